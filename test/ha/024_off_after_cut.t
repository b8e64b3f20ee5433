# P1, P2, P3: a standby heard nobody for half a minute; it hears all of them again, and then the primary's host is off.
# What agrees on another primary are the two that are left, and the connections between them are those that were dead.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("primary's host off, soon after a standby was cut off", target => 20);
my $cluster = $test->cluster;

for (1 .. 3) {
    my ($standby, @others) = ($cluster->standbys, $cluster->leader);

    $cluster->partition($standby, in => @others);
    $test->hold(30);
    $cluster->heal($standby);
    ok($cluster->settled(60), "$standby is back");

    $test->takeover(sub { $cluster->do_to(off => @_) }, repair => sub { $cluster->do_to(up => @_) });
}

$test->end;

done_testing;
