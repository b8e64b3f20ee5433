# The utility hook stops the movers of a database before a command that fails while the database is in use, if the user
# may run the command. The movers of other databases keep running. idle_interval is 20 days, so only commits wake movers.

use Pgq;
use Time::HiRes qw(time);

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.databases = 'posts, other'\nngx_pgq.movers = 2\nngx_pgq.idle_interval = '20d'\n")->start;
$pg->install('other');

my @elsewhere = (database => 'postgres');
my $producer  = Pgq::Producer->new($pg, database => 'other');

sub movers {
    my ($database) = @_;

    return $pg->safe_psql("select coalesce(string_agg(pid::text, ' ' order by pid), '') from pg_stat_activity
                            where backend_type = 'ngx_pgq mover' and datname = '$database'", @elsewhere);
}

sub moves {
    my ($name, %option) = @_;

    $pg->safe_psql("insert into ngx_pgq.queue (data) values (to_json('$name'::text))", %option);
    ok($pg->poll_query_until("select count(*) from posts where data::text = to_json('$name'::text)::text", 1, 10, %option), $name);
}

# The command succeeds in less than the 5 seconds that the server waits for other sessions.
sub quick {
    my ($sql, $name) = @_;
    my $start = time;
    my ($status, undef, $err) = $pg->psql($sql, @elsewhere);

    is($status, 0, "$name succeeds") or diag($err);
    cmp_ok(time - $start, '<', timeout(4), "$name takes less than 4 seconds");
}

# The command fails with that SQLSTATE, and no mover has been stopped.
sub refused {
    my ($name, $code, $sql, %option) = @_;
    my $before = movers('posts');
    my ($status, undef, $err) = $pg->psql("\\set VERBOSITY sqlstate\n$sql", @elsewhere, %option);

    like($err, qr/ERROR:  $code/, "$name is refused");
    is(movers('posts'), $before, "$name stops no mover");
}

moves('a message becomes a post');
my $others = movers('other');
like($others, qr/^\d+ \d+$/, 'the other database has two movers');

# users without the right, and other refusals
$pg->safe_psql('create role stranger login; create role maker login createdb', @elsewhere);
refused('DROP by a user without the right',          '42501', 'drop database posts',                    user => 'stranger');
refused('DROP FORCE by a user without the right',    '42501', 'drop database posts with (force)',       user => 'stranger');
refused('RENAME by a user without the right',        '42501', 'alter database posts rename to mine',    user => 'stranger');
refused('RENAME by a user with CREATEDB',            '42501', 'alter database posts rename to mine',    user => 'maker');
refused('SET TABLESPACE by a user without the right', '42501', 'alter database posts set tablespace pg_default', user => 'stranger');
refused('a copy by a user with CREATEDB',            '42501', 'create database mine template posts',    user => 'maker');
refused('DROP in a transaction block',               '25001', 'begin; drop database posts');
refused('a copy in a transaction block',             '25001', 'begin; create database mine template posts');
refused('DROP of the current database',              '55006', 'drop database posts',                    database => 'posts');
refused('DROP in a read-only transaction',           '25006', "set default_transaction_read_only = on;\ndrop database posts");

# a copy
my $position = $pg->log_position;
quick('create database copy template posts', 'CREATE DATABASE TEMPLATE');
is($pg->safe_psql('select count(*) from posts', database => 'copy'), 1, 'a copy of the database has the post');
moves('a message becomes a post after CREATE DATABASE TEMPLATE');
is(scalar(() = $pg->log_since($position) =~ /stopping movers/g), 1, 'the log has one line about stopped movers');
unlike($pg->log_since($position), qr/FATAL|exited/, 'the log has no FATAL message and no exit of a process');
$position = $pg->log_position;
quick('drop database copy', 'DROP of a database without movers');
quick('create database plain', 'CREATE DATABASE from template1');
unlike($pg->log_since($position), qr/stopping movers/, 'movers are not stopped for a database without movers');

# several copies at the same time: movers are started when the last one has ended
my @copies = map { $pg->session(@elsewhere)->send("create database copy_$_ template posts") } 1 .. 4;
is(join('', map { $_->result } @copies), '', 'four copies at the same time succeed');
moves('a message becomes a post after four copies');

# another tablespace
my $directory = $pg->own(Pgq::Host::temp_dir('tablespace'));
$pg->safe_psql("create tablespace other location '$directory'", @elsewhere);
quick('alter database posts set tablespace other', 'ALTER DATABASE SET TABLESPACE');
moves('a message becomes a post after SET TABLESPACE');

# a new name, and the old name again
$position = $pg->log_position;
quick('alter database posts rename to archive', 'ALTER DATABASE RENAME');
ok($pg->wait_for_log(qr/no movers for database "posts": the database "posts" does not exist/, $position), 'the log says which database has no movers');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"renamed"')}, database => 'archive');
is($pg->safe_psql('select count(*) from pg_stat_activity where datname = $$archive$$ and backend_type = $$ngx_pgq mover$$',
    @elsewhere), 0, 'a renamed database has no movers');
quick('alter database archive rename to posts', 'ALTER DATABASE RENAME to the old name');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"renamed"'}, 1, 10), 'a message that was inserted under the other name becomes a post');
quick('alter database posts rename to archive', 'a second ALTER DATABASE RENAME');
$pg->safe_psql(q{alter system set ngx_pgq.databases = 'archive, other'; select pg_reload_conf()}, @elsewhere);
moves('a message becomes a post when ngx_pgq.databases has the new name', database => 'archive');
$pg->safe_psql('alter system reset ngx_pgq.databases; select pg_reload_conf()', @elsewhere);
ok($pg->poll_query_until('select count(*) from pg_stat_activity where datname = $$archive$$', 0, 10, @elsewhere), 'movers of a database are stopped when ngx_pgq.databases no longer has its name');
quick('alter database archive rename to posts', 'a second ALTER DATABASE RENAME to the old name');
moves('a message becomes a post after RENAME');

# movers are stopped until the end of a transaction block
for my $case (
    [ 'rolled back' => sub { $_[0]->query('rollback') } ],
    [ 'ended with its session' => sub { $_[0]->quit } ],
    [ 'terminated' => sub {
        $pg->safe_psql(q{select pg_terminate_backend(pid) from pg_stat_activity where state like 'idle in transaction'}, @elsewhere) } ],
) {
    my ($name, $end) = @$case;
    my $session = $pg->session(@elsewhere);

    like($session->query('begin; alter database posts rename to never; select $$done$$'), qr/done/, "RENAME succeeds in a transaction block that is later $name");
    is(movers('posts'), '', "no mover runs during a transaction block that is later $name");
    $end->($session);
    moves("a message becomes a post when the transaction block was $name");
}

# a DROP that waits for a session
my $session = $pg->session;
$session->query('select 1');
my ($status, undef, $err) = $pg->psql("set statement_timeout = '700ms';\ndrop database posts", @elsewhere);
like($err, qr/canceling statement due to statement timeout/, 'statement_timeout ends a DROP that waits for a session');
moves('a message becomes a post after a DROP that failed');
$session->quit;

# DROP, and a new database of that name
is(movers('other'), $others, 'no command before DROP has stopped the movers of the other database');
$position = $pg->log_position;
$pg->poll_query_until('select count(*) from pg_stat_activity where datname = $$posts$$ and backend_type = $$client backend$$', 0, 10, @elsewhere);
quick('drop database posts', 'DROP DATABASE');
ok($pg->wait_for_log(qr/no movers for database "posts"/, $position), 'the log says that the dropped database has no movers');
$pg->install;
moves('a message becomes a post when the database is created again');
$session = $pg->session;
$session->query('select 1');
quick('drop database posts with (force)', 'DROP DATABASE FORCE');
$session->quit;
$pg->install;
moves('a message becomes a post when the database is created a third time');
unlike($pg->log_since(0), qr/FATAL:  (?!terminating )/, 'no mover has failed to connect');

# an error in one database
$pg->safe_psql('revoke insert on posts from ngx_pgq_mover');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"no right"')});
ok($pg->poll_query_until(q{select count(*) > 0 from ngx_pgq.status where database = 'posts' and state = 'backing off'}, 't', 10),
    'a mover without INSERT on posts backs off');
my $seen = $pg->safe_psql('select count(*) from posts', database => 'other');
ok($pg->poll_query_until("select count(*) > $seen + 20 from posts", 't', 10, database => 'other'), 'messages of the other database become posts in the meantime');
$pg->safe_psql('grant insert on posts to ngx_pgq_mover');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"no right"'}, 1, 30), 'the message is posted when the right is granted');

# the other database, which has been under load
my $sent = $producer->stop;
is_deeply($producer->errors, {}, 'the producer of the other database has got no error');
is(movers('other'), $others, 'no command has stopped the movers of the other database');
ok($pg->poll_query_until('select count(*) from posts', $sent, 10, database => 'other'), "all $sent messages of the other database are posts");
is($pg->safe_psql('select count(distinct data::text) from posts', database => 'other'), $sent, 'each message of the other database is posted once');
quick('drop database other', 'DROP DATABASE of the other database');

done_testing;
