# P3: etcd's leader dies. The others elect one, and Patroni notices at most that an answer took long.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new('etcd leader killed', target => 3);
my $cluster = $test->cluster;
my $leader  = $cluster->leader;

for (1 .. 5) {
    my $etcd = $cluster->etcd_leader;

    $test->round(sub { $cluster->must($etcd, qw(systemctl kill --signal=KILL etcd)) });
}

is($cluster->leader, $leader, 'PostgreSQL has the same primary');
$test->end;

done_testing;
