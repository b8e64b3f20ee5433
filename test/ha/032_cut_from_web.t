# P3: the primary and the web hosts cannot reach each other. If one web host is cut off, its nginx uses the HAProxy of
# the other one. If both are, in one direction or both, clients wait until the network is repaired.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("primary cut from web1's HAProxy", target => 10, gap => { server => 0 });
my $cluster = $test->cluster;
my $leader  = $cluster->leader;
$test->round(sub { $cluster->partition($leader, both => $cluster->haproxy_of('web1')) }, repair => sub { $cluster->heal($leader) });
is($cluster->leader, $leader, 'the primary keeps leading');
$test->end;

for my $way (qw(in out both)) {
    $test = Pgq::ClusterTest->new("primary cut from both web hosts for ten seconds ($way)");

    $test->round(sub {
        $cluster->partition($leader, $way, 'web1', 'web2');
        $test->accepts_nothing(10);
    }, stops_load => 1, repair => sub { $cluster->heal($leader) });
    is($cluster->leader, $leader, 'the primary keeps leading');
    $test->end;
}

done_testing;
