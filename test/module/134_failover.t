# P3: nginx finds the primary among several hosts. While it fails and its synchronous standby is promoted, requests wait
# and are then accepted. Each accepted message is in posts once, and the new primary knows the idempotency keys.

use Pgq;
use Pgq::HttpLoad;

my $old      = Pgq::Postgres->new->start;
my $new      = Pgq::Postgres->new(name => 'standby', backup_of => $old)->start;
my $password = $old->set_password('ngx_pgq_web');

$new->poll_query_until(q{select rolpassword is not null from pg_authid where rolname = 'ngx_pgq_web'});
$old->set(synchronous_standby_names => '*');
$old->poll_query_until(q{select count(*) from pg_stat_replication where sync_state = 'sync'}, 1);

my $nginx = Pgq::Nginx->new(
    conninfo => 'host=localhost,127.0.0.1,127.0.0.1 port=' . join(',', Pgq::Host::free_port(), $new->port, $old->port)
        . " dbname=posts user=ngx_pgq_web password=$password",
    pool     => 'lanes=2',
)->start;
is(Pgq::Client->new($nginx)->post('/post', '"first"')->{status}, 202, 'the primary is found after a host that is down and a standby');
like($nginx->log_since(0), qr/pgq lane: connected to 127\.0\.0\.1:@{[ $old->port ]}/, 'the log has the address of the primary');
my @key   = ('Idempotency-Key' => '"before"');
my $first = Pgq::Client->new($nginx)->post('/post', '{"n": 1}', @key);
is($first->{status}, 202, 'a message with a key is accepted before the failover');
my $lines = Pgq::Client->new($nginx)->post('/post', "1\n2\n", 'Content-Type' => 'application/x-ndjson', 'Idempotency-Key' => '"lines"');
is($lines->{status}, 202, 'NDJSON with a key is accepted before the failover');

my $load = Pgq::HttpLoad->new($nginx, $new, watch => 0)->start;
ok($load->wait_for(10), 'messages are accepted before the failover');
$old->kill9;
$new->promote;
ok($load->wait_for(10), 'messages are accepted by the new primary');
$load->stop;
diag($load->summary);
is($load->failures, '', 'no request fails during the failover');
is(join("\n", $load->complaints), '', 'each accepted message is in posts once, and no other');

is(Pgq::Client->new($nginx)->post('/post', '"second"')->{status}, 202, 'the new primary is found after a failover');
ok($new->poll_query_until(q{select count(*) from posts where data::text in ('"first"', '"second"')}, 2), "the new primary's mover moves messages");
my $again = Pgq::Client->new($nginx)->post('/post', '{"n": 1}', @key);
is($again->{body}, $first->{body}, 'a key that was used before the failover gets its first answer');
is($again->{headers}{'idempotency-replayed'}, 'true', 'a key that was used before the failover is answered with a replay');
$again = Pgq::Client->new($nginx)->post('/post', "1\n2\n", 'Content-Type' => 'application/x-ndjson', 'Idempotency-Key' => '"lines"');
is($again->{body}, $lines->{body}, 'a key of NDJSON that was used before the failover gets its first answer');
is(Pgq::Client->new($nginx)->post('/post', '{"n": 2}', @key)->{status}, 422, 'another message with a key that was used before the failover is refused');
is($new->safe_psql(q{select count(*) from posts where data::text = '{"n": 1}'}), 1, 'a message whose key was repeated after the failover is a post once');

done_testing;
