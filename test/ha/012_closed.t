# P9: what a host of the cluster does not need is closed to it, and what is open asks who one is: the firewall of each
# role, Patroni's REST API, PostgreSQL.

use Pgq;
use Pgq::Cluster;
use Pgq::Host qw(run);

my $cluster    = Pgq::Cluster->new;
my ($pg)       = $cluster->databases;
my ($web)      = $cluster->webs;
my @c          = qw(curl -s -o /dev/null -w %{http_code} --max-time 3);

sub out { my ($status, $out) = @_; return $out }

# Whether a connection is made: by the machine itself when no host is named.
sub reaches {
    my ($host, $to, $port) = @_;
    my @try = ('timeout', '2', 'bash', '-c', 'exec 3<>/dev/tcp/' . $to->address . "/$port");
    my ($status) = $host ? $cluster->on($host, @try) : run(\@try);

    return !$status;
}

ok(reaches($web, $pg, 5432), 'a web host reaches PostgreSQL');
ok(reaches($web, $pg, 8008), 'and Patroni');
ok(!reaches($web, $pg, $_), "but not port $_ of a database host") for 2379, 2380;
ok(!reaches($pg, $web, 5000), 'a database host has no business with HAProxy');
ok(reaches(undef, $web, $_), "a client reaches port $_ of nginx") for 80, 443;
ok(reaches(undef, $web, 9180), 'what watches the cluster reaches the listener for monitoring');
ok(!reaches($pg, $web, 9180), 'a database host does not');
ok(!reaches(undef, $web, 5000), 'but not HAProxy');
ok(!reaches(undef, $pg, $_), "nor port $_ of a database host") for 5432, 8008, 2379;

# ---- the door, with TLS

my $door = 'https://' . $web->address;
my @door = (@c, '--cacert', $cluster->ca);

is(out(run([ @door, "$door/get?limit=1" ])), '200', 'the door has a certificate of the installation');
is(out(run([ @door, '-w', '%{http_version}', "$door/get?limit=1" ])), '2', 'and HTTP/2');
is(out(run([ @c, "$door/get?limit=1" ])), '000', 'which nobody else vouches for');
is(out(run([ @door, '-H', 'Host: rebound.example', "$door/get?limit=1" ])), '421', 'another host\'s requests are refused');
is(out(run([ @door, "$door/$_" ])), '404', "/$_ is not there") for qw(metrics status);
is(out(run([ @c, 'http://' . $web->address . ":9180/$_" ])), '200', "but /$_ where monitoring is") for qw(metrics status);

# ---- Patroni's REST API

my $url = 'https://' . $pg->name . ':8008';
my @ca  = ('--cacert', '/etc/ngx_pgq/ca.crt');

is(out($cluster->on($web, @c, @ca, "$url/health")), '200', 'a web host may ask how Patroni is');
is(out($cluster->on($web, @c, @ca, '-X', 'POST', '-d', '{"leader": "pg1"}', "$url/switchover")), '403', 'and may change nothing');

# ---- PostgreSQL

my $leader = $cluster->leader;
my $psql   = sub { return join ' ', $cluster->on($pg, 'env', 'PGPASSWORD=guess', 'psql', '-XAtc', 'select 1', "host=$leader $_[0]") };

like($psql->('dbname=posts user=ngx_pgq_web sslmode=require'), qr/no pg_hba.conf entry/, 'nginx\'s role logs in from web hosts alone');
like($psql->('dbname=postgres user=rewind sslmode=disable'),   qr/no pg_hba.conf entry/, 'nobody without TLS');
like($psql->('dbname=postgres user=rewind sslmode=require'),   qr/password authentication failed/, 'nobody by a guess');
like($psql->('dbname=postgres user=postgres sslmode=require'), qr/no pg_hba.conf entry/, 'and the superuser from nowhere');
is($cluster->safe_psql("select count(*) from pg_authid where rolpassword is not null and rolpassword not like 'SCRAM-SHA-256\$%'"), 0,
    'every password is kept as SCRAM');

done_testing;
