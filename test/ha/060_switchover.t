# P3, P10: ten switchovers, one after the other, under load.

use Pgq;
use Pgq::Trial;

my $trial   = Pgq::Trial->new('switchover', bar => 2);
my $cluster = $trial->cluster;

$trial->takeover(sub { ok($cluster->switchover, 'a switchover') }) for 1 .. 10;
$trial->end;

done_testing;
