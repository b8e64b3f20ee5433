# P1, P3: the primary cannot send to the other database hosts, cannot receive from them, or both; the web hosts reach
# all of them. Messages that are not replicated are not acknowledged, and another member takes over. If only
# replication is cut, no other member can take over: nothing is accepted until it is repaired.

use Pgq;
use Pgq::ClusterTest;

for my $way (qw(in out both)) {
    my $test    = Pgq::ClusterTest->new("primary cut from its standbys ($way)", target => 20);
    my $cluster = $test->cluster;

    $test->takeover(sub { $cluster->partition(@_, $way, $cluster->standbys) }, repair => sub { $cluster->heal(@_) }) for 1 .. 5;
    $test->end;
}

# ---- replication alone

my $test     = Pgq::ClusterTest->new('replication cut for ten seconds');
my $cluster  = $test->cluster;
my $leader   = $cluster->leader;
my @standbys = $cluster->standbys;

$test->round(sub {
    $cluster->partition($leader, both => @standbys, 'tcp dport 5432', 'tcp sport 5432');
    $test->accepts_nothing(10);
}, stops_load => 1, repair => sub { $cluster->heal($leader) });

$test->end;

done_testing;
