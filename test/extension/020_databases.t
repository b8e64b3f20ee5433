# The databases of ngx_pgq.databases get movers: when they are created later, on a promoted standby, and when there are too
# few worker processes for all movers. A standby has no movers.

use Pgq;

my $pg = Pgq::Postgres->new(bare => 1, conf => "ngx_pgq.databases = 'posts, other'\n")->start;
my $has_posts = sub { $pg->poll_query_until('select count(*) from posts', $_[1], 60, database => $_[0]) };

ok($pg->wait_for_log(qr/role "ngx_pgq_mover" does not exist|database "posts" does not exist/), 'the log names the missing role or database');
is($pg->safe_psql('select 1', database => 'postgres'), 1, 'the server accepts connections');

$pg->install('posts');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('1')});
ok($has_posts->('posts', 1), 'a database that is created later gets a mover');

$pg->install('other');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('2'), ('3')}, database => 'other');
ok($has_posts->('other', 2), 'a second database gets a mover');
is($pg->safe_psql('select count(*) from posts'), 1, 'a message becomes a post in its own database only');
is($pg->safe_psql('select string_agg(distinct database, $$ $$ order by database) from ngx_pgq.status where pid is not null'),
    'other posts', 'the status shows the movers of both databases');

$pg->set('ngx_pgq.databases' => 'posts');
ok($pg->poll_query_until("select count(*) from pg_stat_activity where datname = 'other' and backend_type = 'ngx_pgq mover'", 0),
    'movers of a database are stopped when ngx_pgq.databases no longer names it');
$pg->safe_psql('drop database other', database => 'postgres');
pass('a database without movers can be dropped');

# a standby
$pg->set('ngx_pgq.movers' => 0);
$pg->poll_query_until("select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover'", 0);
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 1000) n});

my $keyed = q{select coalesce((select sqlstate from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], '{1001}', '{key}')), 'accepted')};
is($pg->safe_psql($keyed), 'accepted', 'a message with a key is enqueued');

my $standby = $pg->standby;
$standby->append_conf('ngx_pgq.movers = 2');
Pgq::Host::spew($standby->data . '/postgresql.auto.conf',
    grep { !/ngx_pgq\.movers/ } map { "$_\n" } split /\n/, Pgq::Host::slurp($standby->data . '/postgresql.auto.conf'));
$standby->start;
my $end = $pg->safe_psql('select pg_current_wal_insert_lsn()');
$standby->poll_query_until("select pg_last_wal_replay_lsn() >= '$end'");
is($standby->safe_psql("select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover'"), 0, 'a standby has no mover');

like(($standby->psql(q{\set VERBOSITY sqlstate
    select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['1'])}))[2], qr/25006/, 'enqueue() fails with 25006 on a standby');
like(($standby->psql("\\set VERBOSITY sqlstate\n$keyed"))[2], qr/25006/, 'enqueue_keyed() fails with 25006 on a standby');

$pg->stop;
$standby->promote;
ok($standby->wait_until_moved, 'a promoted standby moves the messages of the queue');
is($standby->safe_psql('select count(*), count(distinct message_id) from posts'), '1002|1002', 'each message is posted once after a promotion');
is($standby->safe_psql($keyed), 'PQ200', 'a promoted standby knows the key');
$standby->stop;

# fewer worker processes than movers
$pg->safe_psql('select 1', database => 'postgres') if $pg->running;
$pg->append_conf("max_worker_processes = 3\nngx_pgq.movers = 8");
Pgq::Host::spew($pg->data . '/postgresql.auto.conf', '');
$pg->start;
ok($pg->wait_for_log(qr/max_worker_processes/), 'the log says that max_worker_processes is too small');
ok($pg->wait_until_moved, 'the movers that could be started move messages');

done_testing;
