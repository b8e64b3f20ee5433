# P1, P2, P3: the plug of the primary's host is pulled. Nobody says that it is gone: its lock runs out, then a standby
# that has everything takes over. When the host is back it follows by itself.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("primary's host off", target => 20);
my $cluster = $test->cluster;

$test->takeover(sub { $cluster->do_to(off => @_) }, repair => sub { $cluster->do_to(up => @_) }) for 1 .. 5;
$test->end;

done_testing;
