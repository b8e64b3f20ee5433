# P1, P2: the primary's host stands still for longer than its lock lasts, and goes on as if nothing had been. It must
# not acknowledge what it had in hand, nor take its lock back; not even when the one that took over stands still then.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("primary's host frozen", target => 25);
my $cluster = $test->cluster;

$test->takeover(sub { $cluster->do_to(freeze => @_) }, repair => sub { $cluster->do_to(thaw => @_) }) for 1 .. 2;
$test->end;

# ---- one after the other: longer than a client waits

$test = Pgq::ClusterTest->new('two primaries frozen in turn', allow => 'refused|unknown|read_failed');
my $first = $cluster->leader;
my $second;

$test->round(sub {
    $cluster->do_to(freeze => $first);
    ok($test->load_runs, 'a second primary');
    $second = $cluster->leader;
    isnt($second, $first, 'which is another member');
    $cluster->do_to(freeze => $second);
    $cluster->do_to(thaw => $first);
}, repair => sub { $cluster->do_to(thaw => $second) });

$test->end;

done_testing;
