# P3: two of three members of etcd are stopped for longer than the TTL of the leader lock. The primary reaches its
# standbys, which promise not to take over, and keeps leading (failsafe_mode).

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

is($cluster->leader, $leader, 'the primary keeps leading');
$test->end;

done_testing;
