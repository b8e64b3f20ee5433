# P1, P3: a synchronous standby stands still, with its connections open, for longer than it is waited for.

use Pgq;
use Pgq::Trial;

my $trial   = Pgq::Trial->new("synchronous standby's host frozen", bar => 10);
my $cluster = $trial->cluster;

for my $n (1 .. 5) {
    my ($standby) = ($cluster->standbys)[ $n % 2 ];

    $trial->round(sub { $cluster->do_to(freeze => $standby); $trial->lasts(12) }, mend => sub { $cluster->do_to(thaw => $standby) });
}

$trial->end;

done_testing;
