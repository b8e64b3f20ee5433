# P1, P2, P3: PostgreSQL dies on the primary while its host lives. A standby that has everything takes over at once, the
# one that died comes back as a standby.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new('postmaster killed', target => 5);
my $cluster = $test->cluster;

$test->takeover(sub { $cluster->kill_postmaster(@_) }) for 1 .. 5;
$test->end;

done_testing;
