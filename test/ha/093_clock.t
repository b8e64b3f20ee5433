# P1, P3: the clock of the primary's Patroni and PostgreSQL jumps an hour ahead, then back, and further; etcd's, by whose
# timers leases run out, does not. They may be wrong about what they take from the clock, but not about who leads, and
# nothing is lost.

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
my $now = sub {
    my ($status, $out) = $cluster->on($host, qw(runuser -u postgres -- psql -d posts -XAtqc), 'select round(extract(epoch from clock_timestamp()))');
    return $status ? 0 : $out - time;
};
my $lead = sub {
    $cluster->patronictl($host, qw(switchover ngx_pgq --force --candidate), $host) if $cluster->leader ne $host;
    is($cluster->leader, $host, 'it leads');
};

$clock->('+0');
$cluster->must($host, 'sh', '-c', "printf '[Service]\\nEnvironment=LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=/run/pgq_clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\\n'"
    . " /usr/lib/*/faketime/libfaketimeMT.so.1 > $dir/pgq_clock.conf; systemctl daemon-reload; systemctl restart patroni");
ok($cluster->settled, 'all members are in their places');

# ---- and jumps

for my $offset (qw(+3600 -3600 +86400 +0)) {
    $lead->();
    my $trial = Pgq::Trial->new("the primary's clock at $offset s", bar => 25);

    $trial->round(sub {
        $clock->($offset);
        ok((poll_until { abs($now->() - $offset) < 60 } 60), 'it has that time');
        $trial->lasts(30);
    });
    diag("$host led, " . $cluster->leader . ' leads');
    $trial->end;
}

$cluster->must($host, 'sh', '-c', "rm $dir/pgq_clock.conf; systemctl daemon-reload; systemctl restart patroni");
ok($cluster->settled, 'all members are in their places');

done_testing;
