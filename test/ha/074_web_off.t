# P2, P3: a web host loses power. Clients that know the other one send their requests there with the same
# Idempotency-Key. Clients of the other one notice nothing.

use Pgq;
use Pgq::ClusterTest;

for my $who ([ 'for clients that know both web hosts', kind => qr/failover/ ], [ 'for clients of the other web host', server => 1 ]) {
    my ($name, @gap) = @$who;
    my $test    = Pgq::ClusterTest->new("web host off, $name", faulty => 0, allow => 'closed|unreachable|timeout|reader .*', gap => {@gap});
    my $cluster = $test->cluster;

    $test->round(sub { $cluster->do_to(off => 'web1'); $test->hold(10) }, closed => 0, repair => sub { $cluster->do_to(up => 'web1') });
    $test->end;
}

done_testing;
