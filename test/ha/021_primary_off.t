# P1, P2, P3: the primary's host loses power. Its leader lock expires; then a standby that has all acknowledged
# messages takes over. When the host is back it becomes a standby by itself.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("primary's host off", target => 20);
my $cluster = $test->cluster;

$test->takeover(sub { $cluster->do_to(off => @_) }, repair => sub { $cluster->do_to(up => @_) }) for 1 .. 5;
$test->end;

done_testing;
