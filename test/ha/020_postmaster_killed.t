# P1, P2, P3: PostgreSQL dies on the primary while its host lives. A standby that has everything takes over at once, the
# one that died comes back as a standby.

use Pgq;
use Pgq::Trial;

my $trial   = Pgq::Trial->new('postmaster killed', bar => 5);
my $cluster = $trial->cluster;

for (1 .. 5) {
    my $leader = $cluster->leader;

    $trial->round(sub { $cluster->must($leader, 'kill', '-9', $cluster->postmaster($leader)) });
    isnt($cluster->leader, $leader, 'another member leads');
}

$trial->end;

done_testing;
