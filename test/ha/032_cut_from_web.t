# P3: the primary and the web hosts do not reach each other. Cut from one of them, that one's nginx goes by the other's
# HAProxy; cut from both, in one way, the other, or both, clients wait until it is over.

use Pgq;
use Pgq::Trial;

my $trial   = Pgq::Trial->new("primary cut from web1's HAProxy", bar => 10, gap => { door => 0 });
my $cluster = $trial->cluster;
my $leader  = $cluster->leader;
$trial->round(sub { $cluster->partition($leader, both => $cluster->way_of('web1')) }, mend => sub { $cluster->heal($leader) });
is($cluster->leader, $leader, 'the same member leads');
$trial->end;

for my $way (qw(in out both)) {
    $trial = Pgq::Trial->new("primary cut from both web hosts for ten seconds ($way)");

    $trial->round(sub {
        $cluster->partition($leader, $way, 'web1', 'web2');
        $trial->stands(10);
    }, stops => 1, mend => sub { $cluster->heal($leader) });
    is($cluster->leader, $leader, 'the same member leads');
    $trial->end;
}

done_testing;
