# P3: two of three etcds are gone for longer than the primary's lock lasts. The primary reaches its standbys, which
# promise not to take over, and goes on (failsafe_mode).

use Pgq;
use Pgq::Trial;

my $trial    = Pgq::Trial->new('etcd without a quorum', bar => 10);
my $cluster  = $trial->cluster;
my $leader   = $cluster->leader;
my @standbys = $cluster->standbys;

$trial->round(sub {
    $cluster->must($_, qw(systemctl stop etcd)) for @standbys;
    $trial->lasts(40);
}, mend => sub { $cluster->must($_, qw(systemctl start --no-block etcd)) for @standbys });

is($cluster->leader, $leader, 'the same member leads');
$trial->end;

done_testing;
