# P1, P2, P3: the cable of the primary's host is out. It lives on alone, may acknowledge nothing, and steps down; a
# standby takes over when its lock has run out.

use Pgq;
use Pgq::Trial;

my $trial   = Pgq::Trial->new("primary's host cut off", bar => 20);
my $cluster = $trial->cluster;

for (1 .. 5) {
    my $leader = $cluster->leader;

    $trial->round(sub { $cluster->do_to(cut => $leader) }, mend => sub { $cluster->do_to(join => $leader) });
    isnt($cluster->leader, $leader, 'another member leads');
}

$trial->end;

done_testing;
