# No statement fails when all tables are in a publication, as tools for logical replication create it: each table with
# UPDATE or DELETE has a replica identity.

use Pgq;

my $pg     = Pgq::Postgres->new(conf => "wal_level = logical\n")->start;
my $nginx  = Pgq::Nginx->new(pg => $pg, timeout => '5s')->start;
my $client = Pgq::Client->new($nginx);

$pg->safe_psql('create publication all_tables for all tables');

is($client->post('/post', '1')->status, 202, 'a message is accepted');
is($client->post('/post', '2', 'Idempotency-Key' => '"a"')->status, 202, 'a message with a key is accepted');
is($client->post('/post', '2', 'Idempotency-Key' => '"a"')->header('Idempotency-Replayed'), 'true', 'the same message with the same key is recognized');
is($client->post('/post', "3\n4\n", 'Content-Type' => 'application/x-ndjson', 'Idempotency-Key' => '"b"')->status, 202, 'lines with a key are accepted');

my $batch = $pg->safe_psql('select gen_random_uuid()');
is($pg->safe_psql(qq{select count(*) from ngx_pgq.enqueue('$batch', array[gen_random_uuid()], array['5'])}), 0, 'a batch is accepted');
is($pg->safe_psql(qq{select count(*) from ngx_pgq.enqueue('$batch', array[gen_random_uuid()], array['5'])}), 0, 'the same batch is accepted again');
is($pg->safe_psql(qq{select ngx_pgq.fence('$batch')}), 'f', 'fence() of that batch returns false');
ok($pg->poll_query_until('select count(*) from posts', 5), 'all messages become posts');

$pg->safe_psql(q{alter table posts add constraint no_bad check (data::text <> '"bad"')});
is($client->post('/post', qq("bad"\n"bad"\n), 'Content-Type' => 'application/x-ndjson')->status, 202, 'two messages that posts refuses are accepted');
ok($pg->poll_query_until('select count(*) from ngx_pgq.dead_letter', 2), 'messages that posts refuses become dead letters');
$pg->safe_psql('alter table posts drop constraint no_bad');
is($pg->safe_psql('select ngx_pgq.discard(min(id)) from ngx_pgq.dead_letter'), 't', 'a dead letter is discarded');
is($pg->safe_psql('select ngx_pgq.retry_all()'), 1, 'the other dead letter is retried');
ok($pg->poll_query_until('select count(*) from posts', 6), 'the retried dead letter becomes a post');

# the database's time is saved every ten seconds while there are keys
my $saved = $pg->safe_psql('select at from ngx_pgq.service_time');
ok($pg->poll_query_until("select at > '$saved' from ngx_pgq.service_time", 't', 30), 'the time is saved');

$pg->append_conf('ngx_pgq.keep_posts = 2');
$pg->reload;
ok($pg->poll_query_until('select count(*) from posts', 2), 'old posts are deleted');

is($pg->safe_psql(q{select string_agg(last_error, '') from ngx_pgq.status where last_error !~ 'no_bad'}), '', 'the only errors are those of the refused messages');
unlike($pg->log_since(0), qr/replica identity/, 'the log has no error about a replica identity');

is($pg->safe_psql(q{select string_agg(relname, ' ' order by relname) from pg_class where relnamespace = 'ngx_pgq'::regnamespace and relkind = 'r'
    and relreplident = 'd' and not exists (select from pg_index where indrelid = pg_class.oid and indisprimary)}), 'queue_0 queue_1 queue_2 queue_3',
    'only the leaves of the queue, whose rows the movers delete without a statement, have no replica identity');

done_testing;
