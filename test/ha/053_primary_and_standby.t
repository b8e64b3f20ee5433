# P1: the primary and a standby are lost together. The one that is left may lack what those two had acknowledged: it
# does not take over, however long that lasts. As soon as either is back nothing is missing.

use Pgq;
use Pgq::Trial;

for my $first (qw(standby primary)) {
    my $trial   = Pgq::Trial->new("primary and standby off, the $first back first", allow => 'refused|unknown|unread|late');
    my $cluster = $trial->cluster;
    my %lost    = (primary => $cluster->leader, standby => ($cluster->standbys)[0]);
    my $second  = delete $lost{ $first eq 'primary' ? 'standby' : 'primary' };

    $trial->round(sub {
        $cluster->do_to(off => $second, values %lost);
        $trial->stands(40);
        $cluster->do_to(up => values %lost);
    }, mend => sub { $cluster->do_to(up => $second) });

    $trial->end;
}

done_testing;
