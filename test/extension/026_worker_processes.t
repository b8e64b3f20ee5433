# If there is no free worker process for a mover, the log has one line about it, the other movers work, and the mover is
# started when a process is free.

use Pgq;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.databases = 'posts, other'\nngx_pgq.movers = 0\nmax_worker_processes = 4\n")->start;
$pg->install('other');

# The launcher, PostgreSQL's logical replication launcher and a parallel query use one process each.
my $query = $pg->session(database => 'postgres');
$query->query(q{select set_config(name, 'on', false) from pg_settings where name in ('force_parallel_mode', 'debug_parallel_query')});
$query->send('select pg_sleep(600)');
ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type = 'parallel worker'}, 1, 20), 'a parallel query uses a worker process');

my $position = $pg->log_position;
$pg->set('ngx_pgq.movers' => 3);
ok($pg->wait_for_log(qr/no free worker slot for mover 2 of database "posts"/, $position, 10), 'the log says that a mover has no worker process');
$pg->set('ngx_pgq.movers' => 1);
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('1')}, database => $_) for 'posts', 'other';
ok($pg->poll_query_until('select count(*) from posts', 1, 10), 'the mover with a worker process moves messages');
is($pg->safe_psql('select count(*) from posts', database => 'other'), 0, 'a message stays in the queue of the database without a mover');

$pg->safe_psql(q{select pg_cancel_backend(pid) from pg_stat_activity where query ~ '^select pg_sleep' and backend_type = 'client backend'});
ok($pg->poll_query_until('select count(*) from posts', 1, 20, database => 'other'), 'a mover is started and moves the message when a worker process is free');
is(scalar(() = $pg->log_since($position) =~ /no free worker slot/g), 1, 'the log has one line about missing worker processes');

done_testing;
