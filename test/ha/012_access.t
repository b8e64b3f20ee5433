# P9: the firewall of each role lets through only what other hosts need. Patroni's REST API and PostgreSQL
# authenticate their clients.

use Pgq;
use Pgq::Cluster;
use Pgq::Host qw(run slurp top);

my $cluster    = Pgq::Cluster->new;
my ($pg)       = $cluster->databases;
my ($web)      = $cluster->webs;
my @c          = qw(curl -s -o /dev/null -w %{http_code} --max-time 3);

sub out { my ($status, $out) = @_; return $out }

# Whether a connection can be made from a host, or from the test's machine if none is given.
sub reaches {
    my ($host, $to, $port) = @_;
    my @try = ('timeout', '2', 'bash', '-c', 'exec 3<>/dev/tcp/' . $to->address . "/$port");
    my ($status) = $host ? $cluster->on($host, @try) : run(\@try);

    return !$status;
}

ok(reaches($web, $pg, 5432), 'a web host reaches PostgreSQL');
ok(reaches($web, $pg, 8008), 'a web host reaches Patroni');
ok(!reaches($web, $pg, $_), "a web host does not reach port $_ of a database host") for 2379, 2380;
ok(!reaches($pg, $web, 5000), 'a database host does not reach HAProxy');
ok(reaches(undef, $web, $_), "a client reaches port $_ of nginx") for 80, 443;
ok(reaches(undef, $web, 9180), 'a client on the monitoring network reaches the monitoring listener');
ok(!reaches($pg, $web, 9180), 'a database host does not reach the monitoring listener');
ok(!reaches(undef, $web, 5000), 'a client does not reach HAProxy');
ok(!reaches(undef, $pg, $_), "a client does not reach port $_ of a database host") for 5432, 2379;

# ---- nginx with TLS

my $nginx = 'https://' . $web->address;
my @curl  = (@c, '--cacert', $cluster->ca);

is(out(run([ @curl, "$nginx/get?limit=1" ])), '200', 'nginx has a certificate of the installation');
is(out(run([ @curl, '-w', '%{http_version}', "$nginx/get?limit=1" ])), '2', 'nginx speaks HTTP/2');
is(out(run([ @c, "$nginx/get?limit=1" ])), '000', 'a client that does not trust the CA of the installation makes no request');
is(out(run([ @curl, '-H', 'Host: rebound.example', "$nginx/get?limit=1" ])), '421', 'a request for another host is refused with 421');
is(out(run([ @curl, "$nginx/$_" ])), '404', "nginx does not serve /$_ to clients") for qw(metrics status);
is(out(run([ @c, 'http://' . $web->address . ":9180/$_" ])), '200', "the monitoring listener serves /$_") for qw(metrics status);
is(out(run([ @c, 'http://' . $web->address . ":9180/$_" ])), '404', "the monitoring listener does not serve /$_ to the network") for '', qw(get stream post);
is(out($cluster->on($web, @c, 'http://127.0.0.1:9180/')), '200', 'the live page is served to the web host itself');
like((run([ @curl[ 0, 1 ], '-N', @curl[ 4 .. $#curl ], "$nginx/stream?newest=1" ]))[1], qr/^id: \d+\ndata: \{"id":\d+,/m, 'a stream begins with the newest post');

# ---- metrics for the monitoring network: those that the alerts need

my $rules = slurp(top() . '/monitoring/rules.yml');
my $name  = $pg->name;

for my $case ([ 'patroni', "https://$name:8008" ], [ 'etcd', 'http://' . $pg->address . ':2381' ], [ 'haproxy', 'http://' . $web->address . ':8404' ]) {
    my ($program, $at) = @$case;
    my (undef, $scrape) = run([ qw(curl -s --max-time 3 --cacert), $cluster->ca, '--resolve', "$name:8008:" . $pg->address, "$at/metrics" ]);
    my %named = map { $_ => 1 } $rules =~ /\b(${program}_\w+)/g;
    is(join(' ', grep { $scrape !~ /^$_\b/m } sort keys %named), '', "$program shows the metrics that alerts need");
}

# ---- Patroni's REST API

my $url = 'https://' . $pg->name . ':8008';
my @ca  = ('--cacert', '/etc/ngx_pgq/ca.crt');

is(out($cluster->on($web, @c, @ca, "$url/health")), '200', 'a web host may read the health of Patroni');
is(out($cluster->on($web, @c, @ca, '-X', 'POST', '-d', '{"leader": "pg1"}', "$url/switchover")), '403', 'a web host may not request a switchover');
is(out(run([ @c, '--max-time', 3, '--cacert', $cluster->ca, '--resolve', "$name:8008:" . $pg->address, '-X', 'POST', '-d', '{"leader": "pg1"}', "$url/switchover" ])),
    '403', 'nor may a client on the monitoring network');

# ---- PostgreSQL

my $leader = $cluster->leader;
my $psql   = sub { return join ' ', $cluster->on($pg, 'env', 'PGPASSWORD=guess', 'psql', '-XAtc', 'select 1', "host=$leader $_[0]") };

like($psql->('dbname=posts user=ngx_pgq_web sslmode=require'), qr/no pg_hba.conf entry/, 'the role of nginx cannot log in from a database host');
like($psql->('dbname=postgres user=rewind sslmode=disable'),   qr/no pg_hba.conf entry/, 'no role can log in without TLS');
like($psql->('dbname=postgres user=rewind sslmode=require'),   qr/password authentication failed/, 'a wrong password is refused');
like($psql->('dbname=postgres user=postgres sslmode=require'), qr/no pg_hba.conf entry/, 'the superuser cannot log in over TCP');
is($cluster->safe_psql("select count(*) from pg_authid where rolpassword is not null and rolpassword not like 'SCRAM-SHA-256\$%'"), 0,
    'every password is stored as a SCRAM secret');

done_testing;
