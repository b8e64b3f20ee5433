# A mover's life: it begins when there is something to serve, goes on after whatever ends it, and does not hold up
# the server's end.

use Pgq;
use Time::HiRes qw(time);

my $pg     = Pgq::Postgres->new->start;
my $movers = "select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover'";
my $one    = "select pid from pg_stat_activity where backend_type = 'ngx_pgq mover' limit 1";

# Puts a message into the queue and waits for its post.
sub moves {
    my ($message, $name) = @_;
    $pg->safe_psql("insert into ngx_pgq.queue (data) values ('\"$message\"')");
    ok($pg->poll_query_until("select count(*) from posts where data::text = '\"$message\"'", 1), $name);
}

moves('first', 'a mover works');
like($pg->safe_psql("select application_name from pg_stat_activity where pid = ($one)"), qr/^ngx_pgq mover 1 of posts$/,
    'pg_stat_activity says who it is');
is($pg->safe_psql("select usename, rolsuper from pg_stat_activity join pg_roles on rolname = usename where pid = ($one)"),
    'ngx_pgq_mover|f', 'and that it is no superuser');
is($pg->safe_psql("select xact_start is null and backend_xmin is null from pg_stat_activity where pid = ($one)"), 't',
    'asleep it has no transaction open');

# it is ended
for my $case (
    [ 'terminated' => sub { $pg->safe_psql("select pg_terminate_backend(($one))") } ],
    [ 'cancelled'  => sub { $pg->safe_psql("select pg_cancel_backend(($one))") } ],
    [ 'killed'     => sub {
        my $position = $pg->log_position;
        kill 'KILL', $pg->safe_psql($one);
        $pg->wait_for_log(qr/reinitializing(?:.*\n)*.*ready to accept connections/, $position);
    } ],
) {
    my ($name, $action) = @$case;
    $action->();
    moves($name, "$name, it goes on");
}
unlike($pg->log_since(0), qr/canceling statement/, 'a cancel between batches is none');

# what it had not moved when the server crashed is moved without a new message
my $lock = $pg->session;
$lock->query('begin; lock table posts in exclusive mode');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 5000) n});
ok($pg->poll_query_until("select query from pg_stat_activity where pid = ($one) and wait_event_type = 'Lock'", 'moving messages to posts'),
    'pg_stat_activity says what it is at');
$pg->stop('immediate');
$lock->quit;
$pg->start;
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0), 'a backlog is moved after a crash');
is($pg->safe_psql(q{select count(*), count(distinct message_id) from posts where data::text ~ '^\d+$'}), '5000|5000', 'each once');

# how many there are
for my $count (4, 2, 0, 1) {
    $pg->safe_psql("alter system set ngx_pgq.movers = $count; select pg_reload_conf()");
    ok($pg->poll_query_until($movers, $count), "$count movers after a reload");
}
moves('reloaded', 'and they work');

# its batch is a setting, too
$pg->safe_psql('alter system set ngx_pgq.batch_size = 7; select pg_reload_conf()');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 100) n});
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0), 'a small batch moves all');
$pg->safe_psql('alter system reset ngx_pgq.batch_size; select pg_reload_conf()');

# it is woken at commit, and does not find work by looking for it now and then
$pg->safe_psql("alter system set ngx_pgq.idle_interval = '1h'; select pg_reload_conf()");
ok($pg->poll_query_until("select setting from pg_settings where name = 'ngx_pgq.idle_interval'", 3_600_000), 'it looks around once an hour');
moves("woken $_", 'an INSERT wakes it') for 1 .. 3;
$pg->safe_psql(q{select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"enqueued"'])});
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"enqueued"'}, 1), 'enqueue() wakes it');
$pg->safe_psql('alter system reset ngx_pgq.idle_interval; select pg_reload_conf()');

# the extension is dropped, and comes back
my $position = $pg->log_position;
$pg->safe_psql('drop extension ngx_pgq cascade');
ok($pg->wait_for_log(qr/the extension ngx_pgq is missing/, $position), 'without its extension it says so');
is($pg->safe_psql('select count(*) > 5000 from posts'), 't', 'and the posts are still there');
$pg->install;
moves('again', 'with the extension back, it goes on');
cmp_ok(scalar(() = $pg->log_since($position) =~ /is missing/g), '<=', 2, 'without filling the log');

# the end
for my $case ([ 'idle' => '' ], [ 'amid work' => q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 50000) n} ]) {
    my ($name, $sql) = @$case;
    $pg->safe_psql($sql) if $sql;
    my $start = time;
    $pg->stop('fast');
    cmp_ok(time - $start, '<', timeout(5), "$name, it does not hold up a fast shutdown");
    $pg->start;
}
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, 60), 'and goes on afterwards');

# a commit that waits for a standby that is not there
$pg->commits_wait_for('nobody');
$pg->safe_psql(q{set synchronous_commit = local; insert into ngx_pgq.queue (data) values ('"stuck"')});
ok($pg->poll_query_until("select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover' and wait_event = 'SyncRep'", 1),
    'its commit waits for the standby');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"stuck"'}), 0, 'and nobody sees the post before');
my $start = time;
$pg->stop('fast');
cmp_ok(time - $start, '<', timeout(5), 'a fast shutdown does not wait with it');

done_testing;
