# Movers move messages, are started again after a failure, apply changed settings, and do not delay a shutdown.

use Pgq;
use Time::HiRes qw(time);

my $pg          = Pgq::Postgres->new->start;
my $mover_count = "select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover'";
my $mover_pid   = "select pid from pg_stat_activity where backend_type = 'ngx_pgq mover' limit 1";

# Inserts a message into the queue and checks that it becomes a post.
sub is_moved {
    my ($message, $name) = @_;
    $pg->safe_psql("insert into ngx_pgq.queue (data) values ('\"$message\"')");
    ok($pg->poll_query_until("select count(*) from posts where data::text = '\"$message\"'", 1), $name);
}

is_moved('first', 'a mover moves a message');
like($pg->safe_psql("select application_name from pg_stat_activity where pid = ($mover_pid)"), qr/^ngx_pgq mover 1 of posts$/,
    'application_name has the number and database of a mover');
is($pg->safe_psql("select usename, rolsuper from pg_stat_activity join pg_roles on rolname = usename where pid = ($mover_pid)"),
    'ngx_pgq_mover|f', 'a mover runs as ngx_pgq_mover, which is no superuser');
is($pg->safe_psql("select xact_start is null and backend_xmin is null from pg_stat_activity where pid = ($mover_pid)"), 't',
    'an idle mover has no open transaction and no snapshot');

# a failed mover
for my $case (
    [ 'terminated' => sub { $pg->safe_psql("select pg_terminate_backend(($mover_pid))") } ],
    [ 'cancelled'  => sub { $pg->safe_psql("select pg_cancel_backend(($mover_pid))") } ],
    [ 'killed'     => sub {
        my $position = $pg->log_position;
        kill 'KILL', $pg->safe_psql($mover_pid);
        $pg->wait_for_log(qr/reinitializing(?:.*\n)*.*ready to accept connections/, $position);
    } ],
) {
    my ($name, $action) = @$case;
    $action->();
    is_moved($name, "messages are moved after a mover was $name");
}
unlike($pg->log_since(0), qr/canceling statement/, 'a cancel of an idle mover has no effect');

# a backlog at a crash of the server
my $lock = $pg->session;
$lock->query('begin; lock table posts in exclusive mode');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 5000) n});
ok($pg->poll_query_until("select query from pg_stat_activity where pid = ($mover_pid) and wait_event_type = 'Lock'", 'moving messages to posts'),
    'pg_stat_activity shows what a mover does');
$pg->stop('immediate');
$lock->quit;
$pg->start;
ok($pg->wait_until_moved, 'a backlog is moved after a crash without a new message');
is($pg->safe_psql(q{select count(*), count(distinct message_id) from posts where data::text ~ '^\d+$'}), '5000|5000', 'each message of the backlog is posted once');

# the number of movers
for my $count (4, 2, 0, 1) {
    $pg->set('ngx_pgq.movers' => $count);
    ok($pg->poll_query_until($mover_count, $count), "$count movers run after a reload");
}
is_moved('reloaded', 'movers move messages after the reloads');

# the size of a batch
$pg->set('ngx_pgq.batch_size' => 7);
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 100) n});
ok($pg->wait_until_moved, '100 messages are moved in batches of 7');
$pg->set('ngx_pgq.batch_size' => undef);

# commits wake a mover that checks the queue only once an hour
$pg->set('ngx_pgq.idle_interval' => '1h');
ok($pg->poll_query_until("select setting from pg_settings where name = 'ngx_pgq.idle_interval'", 3_600_000), 'idle_interval is one hour');
is_moved("woken $_", 'an INSERT wakes a mover') for 1 .. 3;
$pg->safe_psql(q{select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"enqueued"'])});
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"enqueued"'}, 1), 'enqueue() wakes a mover');
$pg->set('ngx_pgq.idle_interval' => undef);

# the extension is dropped and installed again
my $position = $pg->log_position;
$pg->safe_psql('drop extension ngx_pgq cascade');
ok($pg->wait_for_log(qr/the extension ngx_pgq is missing/, $position), 'the log says that the extension is missing');
is($pg->safe_psql('select count(*) > 5000 from posts'), 't', 'posts stay when the extension is dropped');
$pg->install;
is_moved('again', 'movers move messages when the extension is installed again');
cmp_ok(scalar(() = $pg->log_since($position) =~ /is missing/g), '<=', 2, 'the log has at most two lines about the missing extension');

# shutdown
for my $case ([ 'idle' => '' ], [ 'busy' => q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 50000) n} ]) {
    my ($name, $sql) = @$case;
    $pg->safe_psql($sql) if $sql;
    my $start = time;
    $pg->stop('fast');
    cmp_ok(time - $start, '<', timeout(5), "a fast shutdown with $name movers takes less than 5 seconds");
    $pg->start;
}
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, 60), 'the backlog is moved after a fast shutdown and a start');

# a commit that waits for a missing standby
$pg->commits_wait_for('missing');
$pg->safe_psql(q{set synchronous_commit = local; insert into ngx_pgq.queue (data) values ('"waits"')});
ok($pg->poll_query_until("select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover' and wait_event = 'SyncRep'", 1),
    'the commit of a mover waits for the standby');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"waits"'}), 0, 'the post is not visible while the commit waits');
my $start = time;
$pg->stop('fast');
cmp_ok(time - $start, '<', timeout(5), 'a fast shutdown does not wait for the commit of a mover');

done_testing;
