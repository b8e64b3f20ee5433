# Movers make room for commands that need a database to itself, and only for those who may give them; another
# database is served all the while. Nobody looks around here: what is moved was noticed.

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

# The command takes less time than the server itself would wait for movers.
sub quick {
    my ($sql, $name) = @_;
    my $start = time;
    my ($status, undef, $err) = $pg->psql($sql, @elsewhere);

    is($status, 0, $name) or diag($err);
    cmp_ok(time - $start, '<', timeout(4), '… at once');
}

# Fails with that code, and no mover has noticed.
sub refused {
    my ($name, $code, $sql, %option) = @_;
    my $before = movers('posts');
    my ($status, undef, $err) = $pg->psql("\\set VERBOSITY sqlstate\n$sql", @elsewhere, %option);

    like($err, qr/ERROR:  $code/, "$name is refused");
    is(movers('posts'), $before, '… and movers are not disturbed');
}

moves('movers work');
my $others = movers('other');
like($others, qr/^\d+ \d+$/, 'in the other database, too');

# those who may not
$pg->safe_psql('create role nobody login; create role maker login createdb', @elsewhere);
refused('DROP by a user without the right',          '42501', 'drop database posts',                    user => 'nobody');
refused('DROP FORCE by a user without the right',    '42501', 'drop database posts with (force)',       user => 'nobody');
refused('RENAME by a user without the right',        '42501', 'alter database posts rename to mine',    user => 'nobody');
refused('RENAME by one who may create databases',    '42501', 'alter database posts rename to mine',    user => 'maker');
refused('SET TABLESPACE by a user without the right', '42501', 'alter database posts set tablespace pg_default', user => 'nobody');
refused('a copy by one who may create databases',    '42501', 'create database mine template posts',    user => 'maker');
refused('DROP in a transaction block',               '25001', 'begin; drop database posts');
refused('a copy in a transaction block',             '25001', 'begin; create database mine template posts');
refused('DROP of the database one is in',            '55006', 'drop database posts',                    database => 'posts');
refused('DROP in a read-only transaction',           '25006', "set default_transaction_read_only = on;\ndrop database posts");

# a copy
my $position = $pg->log_position;
quick('create database copy template posts', 'CREATE DATABASE TEMPLATE');
is($pg->safe_psql('select count(*) from posts', database => 'copy'), 1, 'the copy has the posts');
moves('after CREATE DATABASE TEMPLATE');
is(scalar(() = $pg->log_since($position) =~ /movers leave/g), 1, 'the log has one line about it');
unlike($pg->log_since($position), qr/FATAL|exited/, '… and no more');
$position = $pg->log_position;
quick('drop database copy', 'DROP of a database without movers');
quick('create database plain', 'CREATE DATABASE of nothing in particular');
unlike($pg->log_since($position), qr/movers leave/, 'nobody makes room where there is nobody');

# several at the same time: whoever ends first does not bring the movers back into the way of the others
my @copies = map { $pg->session(@elsewhere)->send("create database copy_$_ template posts") } 1 .. 4;
is(join('', map { $_->result } @copies), '', 'copies at the same time');
moves('after all of them');

# another place
my $place = $pg->own(Pgq::Host::temp_dir('place'));
$pg->safe_psql("create tablespace place location '$place'", @elsewhere);
quick('alter database posts set tablespace place', 'ALTER DATABASE SET TABLESPACE');
moves('after SET TABLESPACE');

# a new name, and the old one again
$position = $pg->log_position;
quick('alter database posts rename to archive', 'ALTER DATABASE RENAME');
ok($pg->wait_for_log(qr/no movers for database "posts": the database "posts" does not exist/, $position), 'the log says who has no movers now');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"renamed"')}, database => 'archive');
is($pg->safe_psql('select count(*) from pg_stat_activity where datname = $$archive$$ and backend_type = $$ngx_pgq mover$$'
    , @elsewhere), 0, 'the new name has no movers');
quick('alter database archive rename to posts', 'back');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"renamed"'}, 1, 10), 'what came in meanwhile is moved when the old name is back');
quick('alter database posts rename to archive', 'a new name once more');
$pg->safe_psql(q{alter system set ngx_pgq.databases = 'archive, other'; select pg_reload_conf()}, @elsewhere);
moves('the new name is served when the setting has it', database => 'archive');
$pg->safe_psql('alter system reset ngx_pgq.databases; select pg_reload_conf()', @elsewhere);
ok($pg->poll_query_until('select count(*) from pg_stat_activity where datname = $$archive$$', 0, 10, @elsewhere), 'and left when it has not');
quick('alter database archive rename to posts', 'back again');
moves('after RENAME');

# in a transaction block movers stay away until its end, whatever that is
for my $case (
    [ 'is rolled back' => sub { $_[0]->query('rollback') } ],
    [ 'ends with its session' => sub { $_[0]->quit } ],
    [ 'is terminated' => sub {
        $pg->safe_psql(q{select pg_terminate_backend(pid) from pg_stat_activity where state like 'idle in transaction'}, @elsewhere) } ],
) {
    my ($name, $end) = @$case;
    my $session = $pg->session(@elsewhere);

    like($session->query('begin; alter database posts rename to never; select $$done$$'), qr/done/, "a RENAME that $name");
    is(movers('posts'), '', '… has no mover around');
    $end->($session);
    moves("… they are back when it $name");
}

# who may, but cannot
my $guest = $pg->session;
$guest->query('select 1');
my ($status, undef, $err) = $pg->psql("set statement_timeout = '700ms';\ndrop database posts", @elsewhere);
like($err, qr/canceling statement due to statement timeout/, 'DROP that waits for a session can be cancelled');
moves('movers are back after a DROP that failed');
$guest->quit;

# gone, and made again
is(movers('other'), $others, 'the movers of the other database have not noticed any of it');
$position = $pg->log_position;
$pg->poll_query_until('select count(*) from pg_stat_activity where datname = $$posts$$ and backend_type = $$client backend$$', 0, 10, @elsewhere);
quick('drop database posts', 'DROP DATABASE');
ok($pg->wait_for_log(qr/no movers for database "posts"/, $position), 'the launcher has noticed');
$pg->install;
moves('made again, it is served');
$guest = $pg->session;
$guest->query('select 1');
quick('drop database posts with (force)', 'DROP DATABASE FORCE');
$guest->quit;
$pg->install;
moves('and again');
unlike($pg->log_since(0), qr/FATAL:  (?!terminating )/, 'no mover has tried what could not be');

# one that is broken does not stop the other
$pg->safe_psql('revoke insert on posts from ngx_pgq_mover');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"no right"')});
ok($pg->poll_query_until(q{select count(*) > 0 from ngx_pgq.status where database = 'posts' and state = 'backing off'}, 't', 10),
    'a mover without a right backs off');
my $seen = $pg->safe_psql('select count(*) from posts', database => 'other');
ok($pg->poll_query_until("select count(*) > $seen + 20 from posts", 't', 10, database => 'other'), 'the other database is served meanwhile');
$pg->safe_psql('grant insert on posts to ngx_pgq_mover');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"no right"'}, 1, 30), 'with the right back, it goes on');

# the other one, under load
my $sent = $producer->stop;
is_deeply($producer->errors, {}, 'who sends to the other database has met no error');
is(movers('other'), $others, 'nor have its movers');
ok($pg->poll_query_until('select count(*) from posts', $sent, 10, database => 'other'), "all $sent messages are posts");
is($pg->safe_psql('select count(distinct data::text) from posts', database => 'other'), $sent, 'each once');
quick('drop database other', 'the other one can be dropped');

done_testing;
