# P3: the leader of etcd is killed. The other members elect a leader, and PostgreSQL keeps its primary.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new('etcd leader killed', target => 3);
my $cluster = $test->cluster;
my $leader  = $cluster->leader;

for (1 .. 5) {
    my $etcd = $cluster->etcd_leader;

    $test->round(sub { $cluster->must($etcd, qw(systemctl kill --signal=KILL etcd)) });
}

is($cluster->leader, $leader, 'the primary keeps leading');
$test->end;

done_testing;
