# ngx_pgq.horizon names whoever keeps vacuum from removing dead rows in this database, and nobody else.

use Pgq;

my $pg = Pgq::Postgres->new(conf => <<'END')->start;
wal_level = logical
max_prepared_transactions = 4
autovacuum = off
ngx_pgq.databases = ''
END

# What the view says of one holder, in these columns.
sub held {
    my ($name, $columns, %option) = @_;
    return $pg->safe_psql("select $columns from ngx_pgq.horizon where name = '$name'", %option);
}

# Is a row that died just now gone after a VACUUM? What the view is about, asked of the server itself.
sub vacuumed {
    $pg->safe_psql('create table if not exists dying (n integer)');
    $pg->safe_psql('insert into dying values (1)');
    $pg->safe_psql('delete from dying');
    my (undef, undef, $said) = $pg->psql('vacuum verbose dying; truncate dying');
    return $said =~ /(\d+) are dead but not yet removable/ ? ($1 > 0 ? 'held' : 'free') : $said;
}

is($pg->safe_psql('select count(*) from ngx_pgq.horizon'), 0, 'nobody holds anything: the view is empty');
is(vacuumed(), 'free', 'and dead rows go');

# a snapshot
my $reader = $pg->session(database => 'posts');
$reader->query("set application_name = 'reader'; begin isolation level repeatable read; select 'since noon' from posts limit 0");
$pg->safe_psql('create table later (n integer)');
$pg->safe_psql('insert into later values (1)') for 1 .. 5;
is(held('reader', 'holder, role, database, holds, age between 5 and 20, since < now(), duration is not null, state'),
    'session|postgres|posts|rows|t|t|t|idle in transaction, waits for ClientRead', 'a held snapshot is named');
like(held('reader', 'query'), qr/^select 'since noon' from posts/, 'with what it ran last');
is(held('reader', 'pid'), $pg->safe_psql("select pid from pg_stat_activity where application_name = 'reader'"), 'and its process');
is(vacuumed(), 'held', 'and it does keep dead rows');

# a transaction that has written, and no snapshot
my $writer = $pg->session;
$writer->query("set application_name = 'writer'; begin; insert into later values (2)");
is(held('writer', 'holder, holds, xmin is not null'), 'session|rows|t', 'so is an open transaction that has written');
is($pg->safe_psql('select name from ngx_pgq.horizon limit 1'), 'reader', 'the oldest comes first');
$reader->query('rollback');
is(held('reader', 'count(*)'), 0, 'who has ended is not named');
is($pg->safe_psql('select name from ngx_pgq.horizon limit 1'), 'writer', 'the next oldest is');
is(vacuumed(), 'held', 'and it keeps dead rows, too');
$writer->query('rollback');

# elsewhere
$pg->safe_psql('create database elsewhere');
my $foreign = $pg->session(database => 'elsewhere');
$foreign->query("set application_name = 'foreign'; begin isolation level repeatable read; create table there (n integer)");
is(held('foreign', 'count(*)'), 0, 'another database\'s sessions hold nothing here');
is(vacuumed(), 'free', 'indeed');
$foreign->query('rollback');
$foreign->quit;

# a prepared transaction
$pg->safe_psql("begin; insert into later values (3); prepare transaction 'forgotten'");
is(held('forgotten', 'holder, pid, role, database, holds, since < now(), state'),
    'prepared transaction||postgres|posts|rows|t|waits for commit prepared', 'a prepared transaction is named');
is(vacuumed(), 'held', 'and keeps dead rows');
$pg->safe_psql("rollback prepared 'forgotten'");
is(held('forgotten', 'count(*)'), 0, 'until it is ended');

# the statement that looks
is($pg->safe_psql("set application_name = 'me'; begin isolation level repeatable read; select 1; select count(*) from ngx_pgq.horizon where name = 'me'"),
    "1\n1", 'one\'s own old snapshot counts');
is($pg->safe_psql("set application_name = 'me'; select count(*) from ngx_pgq.horizon where name = 'me'"), 0, 'the one of looking does not');

# a logical slot holds the catalogs, and those only
$pg->safe_psql("select pg_create_logical_replication_slot('logical', 'pgoutput')");
is(held('logical', 'holder, pid, database, holds, state'), 'replication slot||posts|catalogs|nobody reads it', 'a logical slot is named');
is(vacuumed(), 'free', 'and keeps no rows of tables');
$pg->safe_psql("select pg_drop_replication_slot('logical')");

# a standby that says what its queries need: by itself, then by a slot
my $standby = $pg->standby(preload => '', conf => "max_prepared_transactions = 4\nhot_standby_feedback = on\nwal_receiver_status_interval = 1\n");
$standby->start;
my $query = $standby->session;
$query->query('begin isolation level repeatable read; select 1');
$pg->safe_psql('insert into later values (4)') for 1 .. 3;
ok($pg->poll_query_until("select count(*) from ngx_pgq.horizon where holder = 'standby' and holds = 'rows' and database is null and age >= 3"
        . " and state like 'streaming%'", 1), 'a standby that gives feedback is named');
is(vacuumed(), 'held', 'and keeps dead rows');

$pg->safe_psql("select pg_create_physical_replication_slot('spare')");
is(held('spare', 'count(*)'), 0, 'a slot that needs nothing is not named');
$standby->append_conf("primary_slot_name = 'spare'");
$query->quit;
$standby->restart;
$query = $standby->session;
$query->query('begin isolation level repeatable read; select 1');
ok($pg->poll_query_until("select string_agg(holder || ' ' || holds, ',') from ngx_pgq.horizon where name = 'spare'", 'replication slot rows'),
    'and so is its slot');
$query->quit;
$standby->stop;
is(held('spare', "state, holds, since is not null = (current_setting('server_version_num')::integer >= 170000)"), 'nobody reads it|rows|t',
    'which holds on when the standby is gone');
is(vacuumed(), 'held', 'dead rows included');

# who may look
$pg->safe_psql('create role watcher login in role pg_monitor; create role stranger login');
is(held('spare', 'count(*)', user => 'watcher'), 1, 'monitoring may look');
my ($status, undef, $err) = $pg->psql('select * from ngx_pgq.horizon', user => 'stranger');
like($err, qr/permission denied/, 'a stranger may not');
is($pg->safe_psql(undef, file => Pgq::Host::top() . '/sql/inspect/horizon.sql') =~ /pg_drop_replication_slot\('spare'\)/, 1,
    'and the inspection says how to end it');
$pg->safe_psql("select pg_drop_replication_slot('spare')");
is(vacuumed(), 'free', 'ended, dead rows go');

$_->quit for $reader, $writer;
done_testing;
