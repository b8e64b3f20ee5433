# P1, P2, P3: the primary's host loses its network. It keeps running, acknowledges nothing and steps down. A standby
# takes over when the leader lock has expired.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("primary's host cut off", target => 20);
my $cluster = $test->cluster;

$test->takeover(sub { $cluster->do_to(cut => @_) }, repair => sub { $cluster->do_to(join => @_) }) for 1 .. 5;
$test->end;

done_testing;
