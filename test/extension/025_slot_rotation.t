# Rotating slots: what has been moved leaves by TRUNCATE, never by waiting for a lock; nothing is lost to it, and whoever
# keeps a slot from being emptied costs space, not messages and not speed.

use Pgq;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.rotate_size = 64kB\nmax_prepared_transactions = 2\n")->start;
my $sent = 0;

# Puts so many messages, numbered, into the queue.
sub put {
    my ($count) = @_;
    $pg->safe_psql("insert into ngx_pgq.queue (data) select to_json(n) from generate_series($sent + 1, $sent + $count) n");
    $sent += $count;
}

sub all_moved {
    my ($name) = @_;
    ok($pg->poll_query_until("select count(*) || ' ' || count(distinct data::text) from posts", "$sent $sent"), $name);
}

my $status = sub { 'select ' . $_[0] . ' from ngx_pgq.status where slot is not null' };
my $size   = q{select sum(pg_total_relation_size('ngx_pgq.queue_' || n)) from generate_series(0, 3) n};

# Keeps messages coming until a query says t.
sub put_until {
    my ($query, $name) = @_;
    ok(poll_until { put(200); $pg->safe_psql($query) eq 't' }, $name);
}

# so much traffic, so little space
put_until($status->('sum(rotations) >= 6'), 'slots are emptied, one after the other');
all_moved('every message is posted, once');
ok($pg->poll_query_until($status->(q{count(*) filter (where state <> 'current' and bytes = 0)}), 3), 'all slots but the current one are empty');
cmp_ok($pg->safe_psql($size), '<', 500_000, 'and the queue has not grown');
is($pg->safe_psql($status->('sum(depth)')), 0, 'nothing waits, says the status');

# a commit that comes late
my $late = $pg->session;
$late->query('begin');
my $slot = $late->query(q{insert into ngx_pgq.queue (data) values ('"late"') returning slot});
put_until($status->("bool_or(skipped = 'locked by another session') filter (where slot = $slot)"), 'a slot that is written to is skipped');
my $rotations = $pg->safe_psql($status->('sum(rotations)'));
put_until($status->("sum(rotations) >= $rotations + 4"), 'the other slots rotate');
$late->query('commit');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"late"'}, 1), 'the late message is posted');
$pg->safe_psql(q{delete from posts where data::text = '"late"'});
ok($pg->poll_query_until($status->("state || ' ' || bytes") . " and slot = $slot", 'empty 0'), 'and its slot is emptied');
$late->quit;

# an older snapshot sees what it saw
$pg->safe_psql('select ngx_pgq.pause()');
put(300);
my $old = $pg->session;
$old->query('begin isolation level repeatable read; select 1');
my $then = $sent;
$pg->safe_psql('select ngx_pgq.resume()');
put_until($status->(q{bool_or(skipped ~ '^an older snapshot')}), 'a slot an older snapshot might want is kept');
is($old->query(q{select (select count(*) from ngx_pgq.queue) + (select count(*) from posts)}), $then, 'that snapshot misses no message');
cmp_ok($old->query('select count(*) from ngx_pgq.queue'), '>=', 300, 'and finds in the queue what was there');
$old->query('commit');
put_until($status->(q{not bool_or(coalesce(skipped, '') ~ '^an older snapshot')}), 'when it is gone the slot is emptied');

# also if the slot was left long before it was drained, by a server that has forgotten when
$pg->safe_psql('alter system set ngx_pgq.movers = 0');
$pg->restart;
$sent++;
$pg->safe_psql("insert into ngx_pgq.queue (slot, data) values (2, '$sent')");
$old = $pg->session;
$old->query('begin isolation level repeatable read; select 1');
$pg->safe_psql('alter system reset ngx_pgq.movers; select pg_reload_conf()');
ok($pg->poll_query_until($status->(q{coalesce(skipped, '') ~ '^an older snapshot'}) . ' and slot = 2', 't'), 'time counts from when it was drained');
is($old->query('select data from ngx_pgq.queue'), $sent, 'and the snapshot finds the message');
$old->query('commit');

# but not for ever
$pg->safe_psql(q{alter system set ngx_pgq.snapshot_grace = '1s'; select pg_reload_conf()});
$old->query('begin isolation level repeatable read; select 1');
$rotations = $pg->safe_psql($status->('sum(rotations)'));
put_until($status->("sum(rotations) >= $rotations + 5"), 'a snapshot is waited for as long as snapshot_grace says');
$old->quit;

# a dump: everything is locked by a reader
my $dump = $pg->session;
$dump->query('begin isolation level repeatable read; lock table ngx_pgq.queue, posts in access share mode');
put_until($status->(q{bool_or(skipped = 'full, but no other slot is empty')}), 'all slots locked: the current one stays');
all_moved('and messages are moved all the same');
my $waits = $pg->safe_psql(q{select count(*) from pg_locks where not granted});
is($waits, 0, 'nobody waits for a lock');
$dump->quit;
ok($pg->poll_query_until($status->(q{count(*) filter (where bytes > 0 and state <> 'current')}), 0), 'after the dump they are emptied');

# a slot by its number, also one that was left
put_until($status->('bool_or(slot <> 0) filter (where state = $$current$$)'), 'slot 0 is not the current one');
for my $slot (0 .. 3) {
    $sent++;
    $pg->safe_psql("insert into ngx_pgq.queue (slot, data) values ($slot, '$sent')");
}
all_moved('messages in any slot are found');

# a transaction that was prepared, and a restart
$pg->safe_psql(q{begin; insert into ngx_pgq.queue (data) values ('"prepared"'); prepare transaction 'p'});
put(500);
all_moved('others pass it');
$pg->safe_psql('select ngx_pgq.pause()');
put(40000);    # more than one chunk of a sweep
$pg->restart;
put(500);
all_moved('after a restart messages of all slots are moved');
$pg->safe_psql(q{commit prepared 'p'});
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"prepared"'}, 1), 'the prepared one too, when it commits');

# no right to truncate: said once, and moving goes on
$pg->safe_psql(q{delete from posts where data::text = '"prepared"'});
my $position = $pg->log_position;
$pg->safe_psql('revoke truncate on ngx_pgq.queue_0, ngx_pgq.queue_1, ngx_pgq.queue_2, ngx_pgq.queue_3 from ngx_pgq_mover');
put_until(q{select bool_or(last_error ~ 'permission denied') from ngx_pgq.status where mover = 1}, 'what keeps it from truncating is in the status');
put(500);
all_moved('and messages are moved');
is(scalar(() = $pg->log_since($position) =~ /LOG: .*permission denied for table queue/g), 1, 'with one line in the log');

done_testing;
