# P2, P10: nginx or one of its workers is killed on a web host. It is started again by itself. A client that knows the
# other web host is answered there, and the message that it had sent to the first one is enqueued once.

use Pgq;
use Pgq::ClusterTest;

my %killed = (
    faulty => 0,
    allow  => 'closed|unreachable|reader (?:closed|unreachable)',
    log    => qr/worker process \d+ exited on signal 9/,
    gap    => { kind => qr/failover/ },
);

my $test    = Pgq::ClusterTest->new('nginx worker killed', %killed);
my $cluster = $test->cluster;

$test->round(sub { $cluster->must('web1', 'sh', '-c', 'kill -9 $(pgrep -P $(cat /run/nginx.pid) | head -n 1)') }) for 1 .. 3;
$test->end;

my $kill = sub { $cluster->must('web1', qw(systemctl kill --kill-whom=all --signal=KILL nginx)) };

$test = Pgq::ClusterTest->new('nginx killed', %killed);
$test->round($kill) for 1 .. 3;
$test->end;

# ---- nginx is killed while each of its clients has a request that waits for a standby

$test = Pgq::ClusterTest->new('nginx killed while commits wait', %killed);
$test->round(sub {
    my @standbys = $cluster->standbys;

    $cluster->must($_, qw(systemctl freeze patroni)) for @standbys;
    $test->accepts_nothing(1);
    $kill->();
    $cluster->must($_, qw(systemctl thaw patroni)) for @standbys;
}) for 1 .. 3;
$test->end;
cmp_ok($test->switched('closed'), '>', 0, 'a failover client sent its request again to the other web host');

done_testing;
