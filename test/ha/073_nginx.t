# P2, P10: nginx dies on a web host, a worker or all of it. It is started again by itself; a client that knows the other
# door is answered there, and what it had asked at the first one is not there twice.

use Pgq;
use Pgq::ClusterTest;

my %dies = (
    faulty => 0,
    allow  => 'closed|unreachable|reader (?:closed|unreachable)',
    log    => qr/worker process \d+ exited on signal 9/,
    gap    => { kind => qr/failover/ },
);

my $test    = Pgq::ClusterTest->new('nginx worker killed', %dies);
my $cluster = $test->cluster;

$test->round(sub { $cluster->must('web1', 'sh', '-c', 'kill -9 $(pgrep -P $(cat /run/nginx.pid) | head -n 1)') }) for 1 .. 3;
$test->end;

my $kill = sub { $cluster->must('web1', qw(systemctl kill --kill-whom=all --signal=KILL nginx)) };

$test = Pgq::ClusterTest->new('nginx killed', %dies);
$test->round($kill) for 1 .. 3;
$test->end;

# ---- each client at that door has a request in hand: it waits for a standby when nginx dies

$test = Pgq::ClusterTest->new('nginx killed while commits wait', %dies);
$test->round(sub {
    my @standbys = $cluster->standbys;

    $cluster->must($_, qw(systemctl freeze patroni)) for @standbys;
    $test->accepts_nothing(1);
    $kill->();
    $cluster->must($_, qw(systemctl thaw patroni)) for @standbys;
}) for 1 .. 3;
$test->end;
cmp_ok($test->switched('closed'), '>', 0, 'somebody asked again at the other door');

done_testing;
