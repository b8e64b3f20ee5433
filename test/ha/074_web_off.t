# P2, P3: a web host is gone. Clients that know the other door go there with the same Idempotency-Key; those who were
# there all the time notice nothing.

use Pgq;
use Pgq::ClusterTest;

for my $who ([ 'for clients that know both doors', kind => qr/failover/ ], [ 'at the other door', server => 1 ]) {
    my ($name, @gap) = @$who;
    my $test    = Pgq::ClusterTest->new("web host off, $name", faulty => 0, allow => 'closed|unreachable|timeout|reader .*', gap => {@gap});
    my $cluster = $test->cluster;

    $test->round(sub { $cluster->do_to(off => 'web1'); $test->hold(10) }, closed => 0, repair => sub { $cluster->do_to(up => 'web1') });
    $test->end;
}

done_testing;
