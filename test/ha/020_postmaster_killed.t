# P1, P2, P3: the postmaster of the primary is killed; its host keeps running. A standby that has all acknowledged
# messages takes over at once, and the old primary returns as a standby.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new('postmaster killed', target => 5);
my $cluster = $test->cluster;

$test->takeover(sub { $cluster->kill_postmaster(@_) }) for 1 .. 5;
$test->end;

done_testing;
