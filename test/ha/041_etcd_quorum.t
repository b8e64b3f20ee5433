# P3: two of three etcds are gone for longer than the primary's lock lasts. The primary reaches its standbys, which
# promise not to take over, and goes on (failsafe_mode).

use Pgq;
use Pgq::ClusterTest;

my $test     = Pgq::ClusterTest->new('etcd without a quorum', target => 10);
my $cluster  = $test->cluster;
my $leader   = $cluster->leader;
my @standbys = $cluster->standbys;

$test->round(sub {
    $cluster->must($_, qw(systemctl stop etcd)) for @standbys;
    $test->hold(40);
}, repair => sub { $cluster->must($_, qw(systemctl start --no-block etcd)) for @standbys });

is($cluster->leader, $leader, 'the same member leads');
$test->end;

done_testing;
