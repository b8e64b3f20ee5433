# P3: the primary dies and its synchronous standby takes over: who posts meanwhile waits and is accepted, nothing is
# lost, nothing is there twice, and idempotency keys are as good there.

use Pgq;
use Pgq::HttpLoad;

my $old      = Pgq::Postgres->new->start;
my $new      = Pgq::Postgres->new(name => 'standby', backup_of => $old)->start;
my $password = $old->set_password('ngx_pgq_web');

$new->poll_query_until(q{select rolpassword is not null from pg_authid where rolname = 'ngx_pgq_web'});
$old->safe_psql(q{alter system set synchronous_standby_names = '*'});
$old->reload;
$old->poll_query_until(q{select count(*) from pg_stat_replication where sync_state = 'sync'}, 1);

my $nginx = Pgq::Nginx->new(
    conninfo => 'host=127.0.0.1,127.0.0.1 port=' . $old->port . ',' . $new->port . " dbname=posts user=ngx_pgq_web password=$password",
    pool     => 'lanes=2',
)->start;
my @key   = ('Idempotency-Key' => '"before"');
my $first = Pgq::Client->new($nginx)->post('/post', '{"n": 1}', @key);
is($first->{status}, 202, 'a message with a key');
my $lines = Pgq::Client->new($nginx)->post('/post', "1\n2\n", 'Content-Type' => 'application/x-ndjson', 'Idempotency-Key' => '"lines"');
is($lines->{status}, 202, 'and lines with one');

my $load = Pgq::HttpLoad->new($nginx, $new, watch => 0)->start;
ok($load->wait_for(10), 'a load');
$old->kill9;
$new->promote;
ok($load->wait_for(10), 'goes on at the standby');
$load->stop;
diag($load->summary);
is($load->failures, '', 'no request failed');
is(join("\n", $load->complaints), '', 'what was accepted is there once, and nothing else');

my $again = Pgq::Client->new($nginx)->post('/post', '{"n": 1}', @key);
is($again->{body}, $first->{body}, 'the key gets the first answer');
is($again->{headers}{'idempotency-replayed'}, 'true', 'again');
$again = Pgq::Client->new($nginx)->post('/post', "1\n2\n", 'Content-Type' => 'application/x-ndjson', 'Idempotency-Key' => '"lines"');
is($again->{body}, $lines->{body}, 'so do the lines');
is(Pgq::Client->new($nginx)->post('/post', '{"n": 2}', @key)->{status}, 422, 'another message under that key does not');
is($new->safe_psql(q{select count(*) from posts where data::text = '{"n": 1}'}), 1, 'and it is there once');

done_testing;
