# P1, P3: the primary's clock jumps an hour ahead, then back, and further. Leases are etcd's, by its own timers; what
# Patroni and PostgreSQL take from the clock they may be wrong about, but not about who leads, and nothing is lost.

use Pgq;
use Pgq::Trial;

my $cluster = Pgq::Cluster->new;
my $dir     = '/etc/systemd/system/patroni.service.d';
my ($host)  = $cluster->standbys;
ok($cluster->settled, 'all members are in their places');

# ---- a member whose clock is a file: containers have that of the machine

my $clock = sub {
    my ($offset) = @_;
    $cluster->must($host, 'sh', '-c', "echo '$offset' > /run/pgq_clock.new; mv /run/pgq_clock.new /run/pgq_clock");
};
my $now = sub { return $cluster->safe_psql('select round(extract(epoch from clock_timestamp()))') - time };

$clock->('+0');
$cluster->must($host, 'sh', '-c', "printf '[Service]\\nEnvironment=LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=/run/pgq_clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\\n'"
    . " /usr/lib/*/faketime/libfaketimeMT.so.1 > $dir/pgq_clock.conf; systemctl daemon-reload; systemctl restart patroni");
ok($cluster->settled, 'all members are in their places');
$cluster->patronictl($host, qw(switchover ngx_pgq --force --candidate), $host);
is($cluster->leader, $host, 'it leads');

# ---- and jumps

for my $offset (qw(+3600 -3600 +86400 +0)) {
    my $trial = Pgq::Trial->new("the primary's clock at $offset s", bar => 25);

    $trial->round(sub {
        $clock->($offset);
        ok((poll_until { abs($now->() - $offset) < 60 } 60), 'the primary has another time') if $cluster->leader eq $host;
        $trial->lasts(30);
    });
    diag("$host led, " . $cluster->leader . ' leads');
    $trial->end;
}

$cluster->must($host, 'sh', '-c', "rm $dir/pgq_clock.conf; systemctl daemon-reload; systemctl restart patroni");
ok($cluster->settled, 'all members are in their places');

done_testing;
