# P1, P2, P3: a standby receives nothing from the other hosts for half a minute. After the network is repaired the
# primary's host loses power. The other two hosts have to agree on a new primary, over connections that the partition
# interrupted.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("primary's host off, soon after a standby was cut off", target => 20);
my $cluster = $test->cluster;

for (1 .. 3) {
    my ($standby, @others) = ($cluster->standbys, $cluster->leader);

    $cluster->partition($standby, in => @others);
    $test->hold(30);
    $cluster->heal($standby);
    ok($cluster->settled(60), "after the partition $standby is a synchronous standby again");

    $test->takeover(sub { $cluster->do_to(off => @_) }, repair => sub { $cluster->do_to(up => @_) });
}

$test->end;

done_testing;
