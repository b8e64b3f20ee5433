# Slots rotate: movers truncate a slot when its messages are moved, without waiting for a lock. If a transaction prevents
# that, other slots are used, messages are still moved, and none is lost.

use Pgq;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.rotate_size = 64kB\nmax_prepared_transactions = 2\n")->start;
my $sent = 0;

# Inserts this many numbered messages into the queue.
sub insert {
    my ($count) = @_;
    $pg->safe_psql("insert into ngx_pgq.queue (data) select to_json(n) from generate_series($sent + 1, $sent + $count) n");
    $sent += $count;
}

sub all_moved {
    my ($name) = @_;
    ok($pg->poll_query_until("select count(*) || ' ' || count(distinct data::text) from posts", "$sent $sent"), $name);
}

my $slots       = sub { 'select ' . $_[0] . ' from ngx_pgq.status where slot is not null' };
my $queue_bytes = q{select sum(pg_total_relation_size('ngx_pgq.queue_' || n)) from generate_series(0, 3) n};

# Inserts messages until the query returns t.
sub insert_until {
    my ($query, $name) = @_;
    ok(poll_until { insert(200); $pg->safe_psql($query) eq 't' }, $name);
}

# steady traffic
insert_until($slots->('sum(rotations) >= 6'), 'slots are truncated one after the other');
all_moved('each message is posted once');
ok($pg->poll_query_until($slots->(q{count(*) filter (where state <> 'current' and bytes = 0)}), 3), 'all slots but the current one are empty');
cmp_ok($pg->safe_psql($queue_bytes), '<', 500_000, 'the queue is smaller than 500 kB after the traffic');
is($pg->safe_psql($slots->('sum(depth)')), 0, 'depth is 0 when all messages are moved');

# a late commit
my $late = $pg->session;
$late->query('begin');
my $slot = $late->query(q{insert into ngx_pgq.queue (data) values ('"late"') returning slot});
insert_until($slots->("bool_or(skipped = 'locked by another session') filter (where slot = $slot)"), 'a slot is skipped while a transaction that inserted into it is open');
my $rotations = $pg->safe_psql($slots->('sum(rotations)'));
insert_until($slots->("sum(rotations) >= $rotations + 4"), 'the other slots are truncated while one is skipped');
$late->query('commit');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"late"'}, 1), 'a message that is committed late is posted');
$pg->safe_psql(q{delete from posts where data::text = '"late"'});
ok($pg->poll_query_until($slots->("state || ' ' || bytes") . " and slot = $slot", 'empty 0'), 'the slot of a late message is truncated after the commit');
$late->quit;

# an older snapshot
$pg->safe_psql('select ngx_pgq.pause()');
insert(300);
my $old = $pg->session;
$old->query('begin isolation level repeatable read; select 1');
my $sent_before = $sent;
$pg->safe_psql('select ngx_pgq.resume()');
insert_until($slots->(q{bool_or(skipped ~ '^an older snapshot')}), 'a slot that an older snapshot can read is kept');
is($old->query(q{select (select count(*) from ngx_pgq.queue) + (select count(*) from posts)}), $sent_before, 'the older snapshot finds all messages');
cmp_ok($old->query('select count(*) from ngx_pgq.queue'), '>=', 300, 'the older snapshot finds the messages of the queue');
$old->query('commit');
insert_until($slots->(q{not bool_or(coalesce(skipped, '') ~ '^an older snapshot')}), 'the slot is truncated when the older snapshot has ended');

# an older snapshot, and a slot with a message that is moved after a restart
$pg->safe_psql('alter system set ngx_pgq.movers = 0');
$pg->restart;
$sent++;
$pg->safe_psql("insert into ngx_pgq.queue (slot, data) values (2, '$sent')");
$old = $pg->session;
$old->query('begin isolation level repeatable read; select 1');
$pg->set('ngx_pgq.movers' => undef);
ok($pg->poll_query_until($slots->(q{coalesce(skipped, '') ~ '^an older snapshot'}) . ' and slot = 2', 't'), 'a slot is kept for snapshots that are older than its last move');
is($old->query('select data from ngx_pgq.queue'), $sent, 'the older snapshot finds the message of that slot');
$old->query('commit');

# snapshot_grace
$pg->set('ngx_pgq.snapshot_grace' => '1s');
$old->query('begin isolation level repeatable read; select 1');
$rotations = $pg->safe_psql($slots->('sum(rotations)'));
insert_until($slots->("sum(rotations) >= $rotations + 5"), 'slots are truncated in spite of an older snapshot after snapshot_grace');
$old->quit;

# a dump locks all tables
my $dump = $pg->session;
$dump->query('begin isolation level repeatable read; lock table ngx_pgq.queue, posts in access share mode');
insert_until($slots->(q{bool_or(skipped = 'full, but no other slot is empty')}), 'no other slot becomes the current one while all slots are locked');
all_moved('messages are moved while all slots are locked');
is($pg->safe_psql('select count(*) from pg_locks where not granted'), 0, 'no process waits for a lock');
$dump->quit;
ok($pg->poll_query_until($slots->(q{count(*) filter (where bytes > 0 and state <> 'current')}), 0), 'all slots but the current one are truncated after the dump');

# rows in slots that are not the current one
insert_until($slots->('bool_or(slot <> 0) filter (where state = $$current$$)'), 'slot 0 is not the current one');
for my $slot (0 .. 3) {
    $sent++;
    $pg->safe_psql("insert into ngx_pgq.queue (slot, data) values ($slot, '$sent')");
}
all_moved('messages in any slot are moved');

# a prepared transaction, and a restart
$pg->safe_psql(q{begin; insert into ngx_pgq.queue (data) values ('"prepared"'); prepare transaction 'p'});
insert(500);
all_moved('messages are moved while a transaction is prepared');
$pg->safe_psql('select ngx_pgq.pause()');
insert(40000);    # more than a sweep reads at once
$pg->restart;
insert(500);
all_moved('the messages of all slots are moved after a restart');
$pg->safe_psql(q{commit prepared 'p'});
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"prepared"'}, 1), 'the message of a prepared transaction is posted when it commits');

# no right to truncate
$pg->safe_psql(q{delete from posts where data::text = '"prepared"'});
my $position = $pg->log_position;
$pg->safe_psql('revoke truncate on ngx_pgq.queue_0, ngx_pgq.queue_1, ngx_pgq.queue_2, ngx_pgq.queue_3 from ngx_pgq_mover');
insert_until(q{select bool_or(last_error ~ 'permission denied') from ngx_pgq.status where mover = 1}, 'the status says that the mover may not truncate');
insert(500);
all_moved('messages are moved without the right to truncate');
is(scalar(() = $pg->log_since($position) =~ /LOG: .*permission denied for table queue/g), 1, 'the log has one line about the missing right');

done_testing;
