# P3: what happens to the HAProxy that a host's nginx goes by is not seen: there is the other's. The gaps are that door's.

use Pgq;
use Pgq::ClusterTest;

my @haproxy = qw(systemctl kill --kill-whom=all haproxy);
my @door    = (gap => { server => 0 });

my $test    = Pgq::ClusterTest->new('HAProxy killed', target => 2, @door);
my $cluster = $test->cluster;

$test->round(sub { $cluster->must($cluster->way_of('web1'), @haproxy, '--signal=KILL') }) for 1 .. 5;
$test->end;

$test = Pgq::ClusterTest->new('HAProxy off for ten seconds', target => 2, @door);
for (1 .. 3) {
    my $way = $cluster->way_of('web1');

    $test->round(sub { $cluster->must($way, qw(systemctl stop haproxy)); $test->hold(10) },
        repair => sub { $cluster->must($way, qw(systemctl start haproxy)) });
}
$test->end;

$test = Pgq::ClusterTest->new('HAProxy frozen', @door);
for (1 .. 3) {
    my $way = $cluster->way_of('web1');

    $test->round(sub { $cluster->must($way, @haproxy, '--signal=STOP') },
        repair => sub { $cluster->must($way, @haproxy, '--signal=CONT') });
}
$test->end;

$test = Pgq::ClusterTest->new('HAProxy reloaded', target => 2, @door);
$test->round(sub { $cluster->must($cluster->way_of('web1'), qw(systemctl reload haproxy)) }) for 1 .. 5;
$test->end;

done_testing;
