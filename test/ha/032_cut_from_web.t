# P3: the primary and the web hosts do not reach each other. Cut from one of them, that one's nginx goes by the other's
# HAProxy; cut from both, in one way, the other, or both, clients wait until it is over.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("primary cut from web1's HAProxy", target => 10, gap => { server => 0 });
my $cluster = $test->cluster;
my $leader  = $cluster->leader;
$test->round(sub { $cluster->partition($leader, both => $cluster->way_of('web1')) }, repair => sub { $cluster->heal($leader) });
is($cluster->leader, $leader, 'the same member leads');
$test->end;

for my $way (qw(in out both)) {
    $test = Pgq::ClusterTest->new("primary cut from both web hosts for ten seconds ($way)");

    $test->round(sub {
        $cluster->partition($leader, $way, 'web1', 'web2');
        $test->accepts_nothing(10);
    }, stops_load => 1, repair => sub { $cluster->heal($leader) });
    is($cluster->leader, $leader, 'the same member leads');
    $test->end;
}

done_testing;
