# P2, P10: nginx dies on a web host, a worker or all of it. It is started again by itself; a client that knows the other
# door is answered there, and what it had asked at the first one is not there twice.

use Pgq;
use Pgq::Trial;

my %dies = (
    allow => 'cut|away|late|broken|reader .*',
    log   => qr/worker process \d+ exited on signal 9/,
    gap   => { kind => qr/roaming/ },
);

my $trial   = Pgq::Trial->new('nginx worker killed', %dies);
my $cluster = $trial->cluster;

$trial->round(sub { $cluster->must('web1', 'sh', '-c', 'kill -9 $(pgrep -P $(cat /run/nginx.pid) | head -n 1)') }) for 1 .. 3;
$trial->end;

$trial = Pgq::Trial->new('nginx killed', %dies);
$trial->round(sub { $cluster->must('web1', qw(systemctl kill --kill-whom=all --signal=KILL nginx)) }) for 1 .. 3;
$trial->end;

done_testing;
