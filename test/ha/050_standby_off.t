# P1, P3: a synchronous standby's host loses power. Commits wait for the other standby.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("synchronous standby's host off", target => 10);
my $cluster = $test->cluster;

for my $n (1 .. 5) {
    my ($standby) = ($cluster->standbys)[ $n % 2 ];

    $test->round(sub { $cluster->do_to(off => $standby) }, repair => sub { $cluster->do_to(up => $standby) });
}

$test->end;

done_testing;
