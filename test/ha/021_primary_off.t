# P1, P2, P3: the plug of the primary's host is pulled. Nobody says that it is gone: its lock runs out, then a standby
# that has everything takes over. When the host is back it follows by itself.

use Pgq;
use Pgq::Trial;

my $trial   = Pgq::Trial->new("primary's host off", bar => 20);
my $cluster = $trial->cluster;

for (1 .. 5) {
    my $leader = $cluster->leader;

    $trial->round(sub { $cluster->do_to(off => $leader) }, mend => sub { $cluster->do_to(up => $leader) });
    isnt($cluster->leader, $leader, 'another member leads');
}

$trial->end;

done_testing;
