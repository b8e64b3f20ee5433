# P3, P10: ten switchovers, one after the other, under load.

use Pgq;
use Pgq::Trial;

my $trial   = Pgq::Trial->new('switchover', bar => 2);
my $cluster = $trial->cluster;

for (1 .. 10) {
    my $leader = $cluster->leader;

    $trial->round(sub { ok($cluster->switchover, 'a switchover') });
    isnt($cluster->leader, $leader, 'another member leads');
}

$trial->end;

done_testing;
