# ngx_pgq.horizon shows the sessions, transactions, slots and standbys that keep vacuum from removing dead rows in this
# database, and no others.

use Pgq;

my $pg = Pgq::Postgres->new(conf => <<'END')->start;
wal_level = logical
max_prepared_transactions = 4
autovacuum = off
ngx_pgq.databases = ''
END

# Returns these columns of the view for the holder of that name.
sub horizon {
    my ($name, $columns, %option) = @_;
    return $pg->safe_psql("select $columns from ngx_pgq.horizon where name = '$name'", %option);
}

# Deletes a row and runs VACUUM. Returns 'removed' or 'kept'.
sub vacuum {
    $pg->safe_psql('create table if not exists deleted (n integer)');
    $pg->safe_psql('insert into deleted values (1)');
    $pg->safe_psql('delete from deleted');
    my (undef, undef, $output) = $pg->psql('vacuum verbose deleted; truncate deleted');
    return $output =~ /(\d+) are dead but not yet removable/ ? ($1 > 0 ? 'kept' : 'removed') : $output;
}

is($pg->safe_psql('select count(*) from ngx_pgq.horizon'), 0, 'the view is empty when the server is idle');
is(vacuum(), 'removed', 'vacuum removes dead rows when the server is idle');

# a snapshot
my $reader = $pg->session(database => 'posts');
$reader->query("set application_name = 'reader'; begin isolation level repeatable read; select 'since noon' from posts limit 0");
$pg->safe_psql('create table later (n integer)');
$pg->safe_psql('insert into later values (1)') for 1 .. 5;
is(horizon('reader', 'holder, role, database, holds, age between 5 and 20, since < now(), duration is not null, state'),
    'session|postgres|posts|rows|t|t|t|idle in transaction, waits for ClientRead', 'the view shows a session with an old snapshot');
like(horizon('reader', 'query'), qr/^select 'since noon' from posts/, 'the view shows the last query of the session');
is(horizon('reader', 'pid'), $pg->safe_psql("select pid from pg_stat_activity where application_name = 'reader'"), 'the view shows the process of the session');
is(vacuum(), 'kept', 'vacuum keeps dead rows for an old snapshot');

# a transaction that has an id and no snapshot
my $writer = $pg->session;
$writer->query("set application_name = 'writer'; begin; insert into later values (2)");
is(horizon('writer', 'holder, holds, xmin is not null'), 'session|rows|t', 'the view shows an open transaction with an id');
is($pg->safe_psql('select name from ngx_pgq.horizon limit 1'), 'reader', 'the oldest holder is the first row');
$reader->query('rollback');
is(horizon('reader', 'count(*)'), 0, 'the view does not show a session whose transaction has ended');
is($pg->safe_psql('select name from ngx_pgq.horizon limit 1'), 'writer', 'the next oldest holder becomes the first row');
is(vacuum(), 'kept', 'vacuum keeps dead rows for a transaction with an id');
$writer->query('rollback');

# another database
$pg->safe_psql('create database elsewhere');
my $other = $pg->session(database => 'elsewhere');
$other->query("set application_name = 'other'; begin isolation level repeatable read; create table there (n integer)");
is(horizon('other', 'count(*)'), 0, 'the view does not show a session of another database');
is(vacuum(), 'removed', 'vacuum removes dead rows in spite of a session of another database');
$other->query('rollback');
$other->quit;

# a prepared transaction
$pg->safe_psql("begin; insert into later values (3); prepare transaction 'forgotten'");
is(horizon('forgotten', 'holder, pid, role, database, holds, since < now(), state'),
    'prepared transaction||postgres|posts|rows|t|waits for COMMIT PREPARED', 'the view shows a prepared transaction');
is(vacuum(), 'kept', 'vacuum keeps dead rows for a prepared transaction');
$pg->safe_psql("rollback prepared 'forgotten'");
is(horizon('forgotten', 'count(*)'), 0, 'the view does not show a prepared transaction that has ended');

# the session that reads the view
is($pg->safe_psql("set application_name = 'me'; begin isolation level repeatable read; select 1; select count(*) from ngx_pgq.horizon where name = 'me'"),
    "1\n1", 'the view shows its own session with an old snapshot');
is($pg->safe_psql("set application_name = 'me'; select count(*) from ngx_pgq.horizon where name = 'me'"), 0, 'the view does not show the snapshot of its own query');

# a logical slot, which holds only rows of the catalogs
$pg->safe_psql("select pg_create_logical_replication_slot('logical', 'pgoutput')");
is(horizon('logical', 'holder, pid, database, holds, state'), 'replication slot||posts|catalogs|inactive', 'the view shows a logical slot');
is(vacuum(), 'removed', 'vacuum removes dead rows of tables in spite of a logical slot');
$pg->safe_psql("select pg_drop_replication_slot('logical')");

# a standby with hot_standby_feedback, without a slot and then with one
my $standby = $pg->standby(preload => '', conf => "max_prepared_transactions = 4\nhot_standby_feedback = on\nwal_receiver_status_interval = 1\n");
$standby->start;
my $query = $standby->session;
$query->query('begin isolation level repeatable read; select 1');
$pg->safe_psql('insert into later values (4)') for 1 .. 3;
ok($pg->poll_query_until("select count(*) from ngx_pgq.horizon where holder = 'standby' and holds = 'rows' and database is null and age >= 3"
        . " and state like 'streaming%'", 1), 'the view shows a standby with feedback');
is(vacuum(), 'kept', 'vacuum keeps dead rows for a standby with feedback');

$pg->safe_psql("select pg_create_physical_replication_slot('spare')");
is(horizon('spare', 'count(*)'), 0, 'the view does not show a slot without xmin');
$standby->append_conf("primary_slot_name = 'spare'");
$query->quit;
$standby->restart;
$query = $standby->session;
$query->query('begin isolation level repeatable read; select 1');
ok($pg->poll_query_until("select string_agg(holder || ' ' || holds, ',') from ngx_pgq.horizon where name = 'spare'", 'replication slot rows'),
    'the view shows the slot of a standby with feedback');
$query->quit;
$standby->stop;
is(horizon('spare', "state, holds, since is not null = (current_setting('server_version_num')::integer >= 170000)"), 'inactive|rows|t',
    'the view shows the slot when the standby has stopped');
is(vacuum(), 'kept', 'vacuum keeps dead rows for the slot of a stopped standby');

# rights
$pg->safe_psql('create role watcher login in role pg_monitor; create role stranger login');
is(horizon('spare', 'count(*)', user => 'watcher'), 1, 'a member of pg_monitor may read the view');
my ($status, undef, $err) = $pg->psql('select * from ngx_pgq.horizon', user => 'stranger');
like($err, qr/permission denied/, 'a role without grants may not read the view');
is($pg->safe_psql(undef, file => Pgq::Host::top() . '/sql/inspect/horizon.sql') =~ /pg_drop_replication_slot\('spare'\)/, 1,
    'sql/inspect/horizon.sql shows the statement that drops the slot');
$pg->safe_psql("select pg_drop_replication_slot('spare')");
is(vacuum(), 'removed', 'vacuum removes dead rows when the slot is dropped');

$_->quit for $reader, $writer;
done_testing;
