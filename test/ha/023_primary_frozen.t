# P1, P2: the primary's host is frozen for longer than the TTL of its leader lock, and thawed. It must neither
# acknowledge what was in flight nor take the lock back, not even if the new primary is frozen then.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("primary's host frozen", target => 25);
my $cluster = $test->cluster;

$test->takeover(sub { $cluster->do_to(freeze => @_) }, repair => sub { $cluster->do_to(thaw => @_) }) for 1 .. 2;
$test->end;

# ---- both in turn, for longer than a client waits

$test = Pgq::ClusterTest->new('two primaries frozen in turn', allow => 'refused|unknown|read_failed');
my $first = $cluster->leader;
my $second;

$test->round(sub {
    $cluster->do_to(freeze => $first);
    ok($test->load_runs, 'while the first primary is frozen messages are accepted');
    $second = $cluster->leader;
    isnt($second, $first, 'while the first primary is frozen another member leads');
    $cluster->do_to(freeze => $second);
    $cluster->do_to(thaw => $first);
}, repair => sub { $cluster->do_to(thaw => $second) });

$test->end;

done_testing;
