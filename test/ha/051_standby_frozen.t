# P1, P3: a synchronous standby's host is frozen, with its connections open, for longer than wal_sender_timeout.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new("synchronous standby's host frozen", target => 10);
my $cluster = $test->cluster;

for my $n (1 .. 5) {
    my ($standby) = ($cluster->standbys)[ $n % 2 ];

    $test->round(sub { $cluster->do_to(freeze => $standby); $test->hold(12) }, repair => sub { $cluster->do_to(thaw => $standby) });
}

$test->end;

done_testing;
