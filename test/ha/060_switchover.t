# P3, P10: ten switchovers in a row under load.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new('switchover', target => 2);
my $cluster = $test->cluster;

$test->takeover(sub { ok($cluster->switchover, 'the switchover succeeds') }) for 1 .. 10;
$test->end;

done_testing;
