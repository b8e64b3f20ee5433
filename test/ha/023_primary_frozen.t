# P1, P2: the primary's host stands still for longer than its lock lasts, and goes on as if nothing had been. It must
# not acknowledge what it had in hand, nor take its lock back; not even when the one that took over stands still then.

use Pgq;
use Pgq::Trial;

my $trial   = Pgq::Trial->new("primary's host frozen", bar => 25);
my $cluster = $trial->cluster;

$trial->takeover(sub { $cluster->do_to(freeze => @_) }, mend => sub { $cluster->do_to(thaw => @_) }) for 1 .. 2;
$trial->end;

# ---- one after the other: longer than a client waits

$trial = Pgq::Trial->new('two primaries frozen in turn', allow => 'refused|unknown|unread');
my $first = $cluster->leader;
my $second;

$trial->round(sub {
    $cluster->do_to(freeze => $first);
    ok($trial->flows, 'a second primary');
    $second = $cluster->leader;
    isnt($second, $first, 'which is another member');
    $cluster->do_to(freeze => $second);
    $cluster->do_to(thaw => $first);
}, mend => sub { $cluster->do_to(thaw => $second) });

$trial->end;

done_testing;
