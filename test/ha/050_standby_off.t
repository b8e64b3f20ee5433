# P1, P3: a synchronous standby is gone, its plug pulled. Commits wait for the other one.

use Pgq;
use Pgq::Trial;

my $trial   = Pgq::Trial->new("synchronous standby's host off", bar => 10);
my $cluster = $trial->cluster;

for my $n (1 .. 5) {
    my ($standby) = ($cluster->standbys)[ $n % 2 ];

    $trial->round(sub { $cluster->do_to(off => $standby) }, mend => sub { $cluster->do_to(up => $standby) });
}

$trial->end;

done_testing;
