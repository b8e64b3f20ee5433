# P3: when the HAProxy that nginx uses is killed, stopped, frozen or reloaded, nginx uses the one of the other web
# host. The gaps are those of this nginx.

use Pgq;
use Pgq::ClusterTest;

my @haproxy = qw(systemctl kill --kill-whom=all haproxy);
my @web1    = (gap => { server => 0 });

my $test    = Pgq::ClusterTest->new('HAProxy killed', target => 2, @web1);
my $cluster = $test->cluster;

$test->round(sub { $cluster->must($cluster->haproxy_of('web1'), @haproxy, '--signal=KILL') }) for 1 .. 5;
$test->end;

$test = Pgq::ClusterTest->new('HAProxy off for ten seconds', target => 2, @web1);
for (1 .. 3) {
    my $host = $cluster->haproxy_of('web1');

    $test->round(sub { $cluster->must($host, qw(systemctl stop haproxy)); $test->hold(10) },
        repair => sub { $cluster->must($host, qw(systemctl start haproxy)) });
}
$test->end;

$test = Pgq::ClusterTest->new('HAProxy frozen', @web1);
for (1 .. 3) {
    my $host = $cluster->haproxy_of('web1');

    $test->round(sub { $cluster->must($host, @haproxy, '--signal=STOP') },
        repair => sub { $cluster->must($host, @haproxy, '--signal=CONT') });
}
$test->end;

$test = Pgq::ClusterTest->new('HAProxy reloaded', target => 2, @web1);
$test->round(sub { $cluster->must($cluster->haproxy_of('web1'), qw(systemctl reload haproxy)) }) for 1 .. 5;
$test->end;

done_testing;
