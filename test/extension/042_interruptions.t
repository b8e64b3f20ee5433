# A mover continues when its settings have changed, when its server or role was read-only, and when it was cancelled or
# terminated during a batch. Each message is posted once, and none becomes a dead letter.

use Pgq;
use Time::HiRes qw(time);

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.idle_interval = '20d'\n")->start;

sub reset_all { $pg->set(all => undef) }

# Checks that 20 more messages become posts.
sub posts_increase {
    my ($name) = @_;
    my $seen = $pg->safe_psql('select count(*) from posts');

    ok($pg->poll_query_until("select count(*) > $seen + 20 from posts", 't', 20), $name);
}

# Checks that a message becomes a post.
sub is_posted {
    my ($message, $name) = @_;

    ok($pg->poll_query_until("select count(*) from posts where data::text = '\"$message\"'", 1, 20), $name);
}

# all settings
$pg->safe_psql('create role other_mover login; grant ngx_pgq_mover to other_mover');
my $producer = Pgq::Producer->new($pg);
posts_increase('messages become posts');

for (split /\n/, $pg->safe_psql(q{select name, min_val, max_val from pg_settings where name ~ '^ngx_pgq\.' and vartype = 'integer' order by 1})) {
    my ($name, @limits) = split /\|/;

    for my $value ($name eq 'ngx_pgq.movers' ? (0, 3) : @limits) {
        $pg->set($name => $value);
        ok($pg->poll_query_until("select setting from pg_settings where name = '$name'", $value), "a reload applies $name = $value");
        $value eq '0' && $name eq 'ngx_pgq.movers'
            ? ok($pg->poll_query_until('select count(*) from ngx_pgq.status where pid is not null', 0, 10), 'all movers stop with ngx_pgq.movers = 0')
            : posts_increase("messages become posts with $name = $value");
    }
    reset_all();
}
posts_increase('messages become posts when all integer settings are reset');

$pg->set('ngx_pgq.role' => 'other_mover');
ok($pg->poll_query_until(q{select usename from pg_stat_activity where backend_type = 'ngx_pgq mover'}, 'other_mover', 10), 'a reload applies ngx_pgq.role');
posts_increase('messages become posts with another ngx_pgq.role');
my $position = $pg->log_position;
$pg->set('ngx_pgq.role' => 'missing_role');
ok($pg->wait_for_log(qr/the role "missing_role" does not exist/, $position, 10), 'the log says that ngx_pgq.role does not exist');
$pg->set('ngx_pgq.databases' => 'postgres');
ok($pg->poll_query_until('select count(*) from ngx_pgq.status where pid is not null', 0, 10), 'movers leave a database that ngx_pgq.databases does not name');
reset_all();
posts_increase('messages become posts when ngx_pgq.role and ngx_pgq.databases are reset');
$pg->set('ngx_pgq.synchronous' => 'on');
ok($pg->poll_query_until('show ngx_pgq.synchronous', 'on'), 'a reload applies ngx_pgq.synchronous');
posts_increase('inserted messages become posts with ngx_pgq.synchronous = on');
reset_all();

for my $name (split /\n/, $pg->safe_psql(q{select name from pg_settings where name ~ '^ngx_pgq\.' and vartype <> 'integer'})) {
    like($name, qr/^ngx_pgq\.(?:databases|role|synchronous)$/, "$name is one of the settings tested above");
}

my $sent = $producer->stop;
is_deeply($producer->errors, {}, 'the producer has got no error');
ok($pg->poll_query_until('select count(*) from posts', $sent, 20), "all $sent messages are posts");
is($pg->safe_psql('select count(distinct data::text) from posts'), $sent, 'each message is posted once');

# the statistics that an idle mover reports
my $statistics = q{select sum(n_tup_ins), sum(n_tup_del) from pg_stat_user_tables where relname ~ '%s'};
ok($pg->poll_query_until(sprintf($statistics, '^queue_\d$'), "$sent|$sent", 10), 'the statistics of the queue count all inserts and deletes');
ok($pg->poll_query_until(sprintf($statistics, '^posts$'), "$sent|0", 10), 'the statistics of posts count all inserts');
is($pg->safe_psql('select n_live_tup from pg_stat_user_tables where relname = $$posts$$'), $sent, 'n_live_tup of posts is the number of posts');
$pg->set('autovacuum_naptime' => '1');
ok($pg->poll_query_until('select last_autoanalyze is not null from pg_stat_user_tables where relname = $$posts$$', 't', 30), 'autovacuum analyzes posts');
ok($pg->safe_psql('select abs(reltuples - ' . $sent . ') <= 50 + 0.1 * ' . $sent . ' from pg_class where relname = $$posts$$'), 'reltuples of posts is about the number of posts');
reset_all();

# enqueue() with ngx_pgq.synchronous = on and no standby
my $enqueue = q{select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"enqueued"'])};
$pg->set('ngx_pgq.synchronous' => 'on');
$pg->poll_query_until('show ngx_pgq.synchronous', 'on');
like(($pg->psql("\\set VERBOSITY sqlstate\n$enqueue"))[2], qr/ERROR:  57P03/, 'enqueue() fails with 57P03 when commits wait for no standby');
reset_all();
$pg->poll_query_until('show ngx_pgq.synchronous', 'off');
is(($pg->psql($enqueue))[0], 0, 'enqueue() succeeds with ngx_pgq.synchronous = off');
is_posted('enqueued', 'the message of enqueue() is posted');

# enqueue() and read-only transactions
for my $how ('begin read only;', 'set default_transaction_read_only = on;') {
    my ($status, undef, $err) = $pg->psql("\\set VERBOSITY sqlstate\n$how\n"
        . q{select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"no"'])});
    like($err, qr/ERROR:  25006/, "enqueue() fails with 25006 after: $how");
}
is($pg->safe_psql('select count(*) from ngx_pgq.queue'), 0, 'a failed enqueue() adds nothing to the queue');

# a read-only mover
my @read_write = (env => { PGOPTIONS => '-c default_transaction_read_only=off' });

for my $case (
    [ 'the server' => 5, 'alter system set default_transaction_read_only = on', 'alter system reset default_transaction_read_only' ],
    [ 'its role' => 1, 'alter role ngx_pgq_mover set default_transaction_read_only = on', 'alter role ngx_pgq_mover reset default_transaction_read_only' ],
    [ 'the database' => 1, 'alter database posts set default_transaction_read_only = on', 'alter database posts reset default_transaction_read_only' ],
) {
    my ($where, $times, $on, $off) = @$case;
    my $errors = $pg->safe_psql('select sum(errors) from ngx_pgq.status');

    $pg->safe_psql($_, @read_write) for $on, 'select pg_reload_conf()', 'select pg_terminate_backend(pid) from ngx_pgq.status where pid is not null';
    $pg->safe_psql(qq{insert into ngx_pgq.queue (data) values ('"$where"')}, @read_write);
    ok($pg->poll_query_until("select sum(errors) > $errors + $times and bool_and(last_error ~ '25006') and bool_or(state = 'backing off')
        from ngx_pgq.status where database = 'posts' and pid is not null", 't', 20), "$where is read-only: the mover backs off");
    is($pg->safe_psql('select count(*) from ngx_pgq.queue'), 1, "$where is read-only: the message stays in the queue");
    $pg->safe_psql($_, @read_write) for $off, 'select pg_reload_conf()';
    my $start = time;
    is_posted($where, "$where is writable again: the message is posted");
    cmp_ok(time - $start, '<', timeout(2.5), "$where is writable again: the reload ends the pause of the mover") if $times == 5;
}

# a cancel and a termination during a batch
$pg->hold_message('held');

for my $function ('pg_cancel_backend', 'pg_terminate_backend') {
    my $lock = $pg->session;

    $lock->query('select pg_advisory_lock(42)');
    $pg->safe_psql('truncate posts');
    $pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 300) n;
        insert into ngx_pgq.queue (data) values ('"held"');
        insert into ngx_pgq.queue (data) select to_json(n) from generate_series(301, 400) n});
    ok($pg->wait_for_movers(1), "$function: a mover waits within a batch");
    $pg->safe_psql(qq{select $function(pid) from ngx_pgq.status where pid is not null});
    ok($pg->poll_query_until(q{select bool_or(last_error ~ '57014') from ngx_pgq.status}, 't', 10), 'the status has the SQLSTATE of the cancel')
        if $function eq 'pg_cancel_backend';
    ok($pg->wait_for_movers(1), "$function: a mover waits at the same message again");
    $lock->quit;
    ok($pg->poll_query_until('select count(*) from posts', 401, 20), "$function: all messages of the batch are posted");
    is($pg->safe_psql('select count(distinct message_id) from posts'), 401, "$function: each message of the batch is posted once");
}

# the launcher
my $launcher = q{select pid from pg_stat_activity where backend_type = 'ngx_pgq launcher'};
my $pid = $pg->safe_psql($launcher);
$pg->safe_psql("select pg_cancel_backend($pid)");
$pg->set('ngx_pgq.movers' => 2);
ok($pg->poll_query_until('select count(*) from ngx_pgq.status where pid is not null', 2, 10), 'a cancelled launcher starts movers');
is($pg->safe_psql($launcher), $pid, 'a cancelled launcher is not restarted');

is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'there is no dead letter');

done_testing;
