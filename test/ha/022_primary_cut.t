# P1, P2, P3: the cable of the primary's host is out. It lives on alone, may acknowledge nothing, and steps down; a
# standby takes over when its lock has run out.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("primary's host cut off", target => 20);
my $cluster = $test->cluster;

$test->takeover(sub { $cluster->do_to(cut => @_) }, repair => sub { $cluster->do_to(join => @_) }) for 1 .. 5;
$test->end;

done_testing;
