# Many sessions use idempotency keys: each key is used once, and no session waits for a key of another session. Keys are
# known after their message was moved, and after a restart or crash. Expired keys take no space.

use Pgq;

my $pg  = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nmax_prepared_transactions = 4\nlog_lock_waits = on\ndeadlock_timeout = 1ms\n")->start;
my $dir = Pgq::Host::temp_dir('keys');
chmod 0755, $dir;

$pg->safe_psql(<<'END');
create function uuid7() returns uuid language sql volatile as $$
    select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
            || '7' || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid
$$;

-- Enqueues one message with a key. Returns 'accepted' or the SQLSTATE.
create function enqueue_with_key(key text, message text default '1', batch uuid default uuid7(), id uuid default uuid7()) returns text language sql volatile as $$
    select coalesce((select sqlstate from ngx_pgq.enqueue_keyed(batch, array[id], array[message], array[key])), 'accepted')
$$;

create table result (key text, outcome text);
END

# ---- eight sessions use the same 400 keys. Most messages with a key are the same, one of twenty differs.
my $race = $pg->pgbench("$dir/race", q{
    insert into result
    select key, enqueue_with_key(key, case when other then '"other"' else '"same"' end)
      from (select 'race ' || floor(random() * 400) as key, random() < 0.05 as other offset 0) as r}, -c => 8, -j => 2, -T => 3);
is(Pgq::Host::ended($race, 60), 0, 'eight sessions enqueue messages with the same keys');
is($pg->safe_psql(q{select count(distinct key) from result}), 400, 'each key has been used');
is($pg->safe_psql(q{select count(*), count(distinct key) from result where outcome = 'accepted'}), '400|400', 'one message of each key is accepted');
ok($pg->wait_until_moved, 'all messages are moved');
is($pg->safe_psql(q{select count(*) from posts}), 400, 'each key has one post');
is($pg->safe_psql(q{select string_agg(distinct outcome, ' ' order by outcome) from result}), 'PQ200 PQ409 PQ422 accepted', 'all other messages get PQ200, PQ409 or PQ422');
unlike($pg->log_since(0), qr/still waiting for.*(?:advisory|on transaction)/, 'no session has waited for a key');
like(Pgq::Host::slurp("$dir/race.out"), qr/number of failed transactions: 0 /, 'no transaction has failed') if Pgq::Host::pg_version() >= 15;

# ---- a commit that waits for a standby
$pg->commits_wait_for('missing');
$pg->safe_psql(q{set synchronous_commit = local; insert into ngx_pgq.key (at, slot, digest, fingerprint, message_id)
                 select now() - interval '25 h', slot, sha256('old'), sha256('x'), gen_random_uuid() from generate_series(0, 3) as slot where slot <> (select slot from ngx_pgq.key limit 1)});
ok($pg->poll_query_until(q{select count(*) from ngx_pgq.key where digest = sha256('old')}, 0, 30, env => { PGOPTIONS => '-c lock_timeout=1s' }), 'expired keys are truncated without waiting for the standby, and without blocking a session');
my ($first, $second, $third) = map { $pg->session } 1 .. 3;
$_->query('set client_min_messages = error') for $first, $second, $third;
my ($batch, $id) = split /\|/, $pg->safe_psql('select uuid7(), uuid7()');
$first->send("select enqueue_with_key('slow', '1', '$batch', '$id')");
my $waiting = q{select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query ~ 'enqueue_with_key'};
ok($pg->poll_query_until($waiting, 1), 'the commit of a message waits for a standby');
is($second->query(q{begin; select enqueue_with_key('slow')}), 'PQ409', 'a message with the key of the open transaction gets PQ409 at once');
is($second->query(q{select enqueue_with_key('slow', '2')}), 'PQ409', 'another message with that key gets PQ409');
is($second->query('rollback; begin; ' . q{select enqueue_with_key('slow 2')}), 'accepted', 'a message with another key is accepted');
is($second->query('rollback; begin; ' . q{select count(*) from ngx_pgq.enqueue(uuid7(), array[uuid7()], '{1}')}), 0, 'a message without a key is accepted');
$second->query('rollback');
is($pg->safe_psql(q{select count(*) from ngx_pgq.key where digest = sha256('slow')}), 0, 'the key is not visible before its commit');
$pg->safe_psql(q{select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep' and query ~ 'enqueue_with_key'});
is($first->result, 'accepted', 'the message is accepted after the wait of its commit is cancelled');
$second->send(q{select enqueue_with_key('slow')});
ok($pg->poll_query_until($waiting, 1), 'the commit of a repeated message waits for the standby');
is($third->query(q{begin; select enqueue_with_key('slow'); rollback}), 'PQ409', 'a message gets PQ409 while the commit of another one with its key waits');

# ---- a crash of the server
$pg->kill9;
Pgq::Host::spew($pg->data . '/postgresql.auto.conf', '');
$pg->start;
$_->quit for $first, $second, $third;
is($pg->safe_psql("select enqueue_with_key('slow', '1', '$batch', '$id')"), 'accepted', 'the batch that is sent again after a crash is accepted');
is($pg->safe_psql("select problem from ngx_pgq.enqueue_keyed(uuid7(), array[uuid7()], '{1}', '{slow}')"), $id, 'the key has the id of its message after a crash');
is($pg->safe_psql(q{select enqueue_with_key('slow', '2')}), 'PQ422', 'another message with the key is refused after a crash');
is($pg->safe_psql(q{select enqueue_with_key('race 1', '"same"') || enqueue_with_key('race 1', '"other"')}) =~ /^(?:PQ200PQ422|PQ422PQ200)$/, 1, 'the keys of moved messages are known after a crash');
$pg->restart;
is($pg->safe_psql("select problem from ngx_pgq.enqueue_keyed(uuid7(), array[uuid7()], '{1}', '{slow}')"), $id, 'the key has the id of its message after a restart');

# ---- prepared transactions
$pg->safe_psql(q{begin; select enqueue_with_key('prepared'); prepare transaction 'keys'});
is($pg->safe_psql(q{select enqueue_with_key('prepared')}), 'PQ409', 'a message with the key of a prepared transaction gets PQ409');
$pg->restart('immediate');
is($pg->safe_psql(q{select enqueue_with_key('prepared')}), 'PQ409', 'a message with the key of a prepared transaction gets PQ409 after a crash');
$pg->safe_psql(q{commit prepared 'keys'});
is($pg->safe_psql(q{select enqueue_with_key('prepared')}), 'PQ200', 'the key of a prepared transaction is known after COMMIT PREPARED');

# ---- other isolation levels
for my $level ('repeatable read', 'serializable') {
    my $session = $pg->session;
    $session->query("begin isolation level $level; select 1");
    $pg->safe_psql("select enqueue_with_key('$level')");
    is($session->query("select enqueue_with_key('$level')"), 'PQ200', "a $level transaction finds a key that was committed after its snapshot");
    $session->quit;
}

# ---- expired keys are truncated under load
# Keys change to the next leaf every 12 hours. These functions get the leaf of so many times 12 hours ago: leaf(0) has the
# new keys, leaf(1) valid keys, leaf(2) and leaf(3) expired ones.
sub leaf { my ($back) = @_; return "((extract(epoch from clock_timestamp()) - 946684800)::bigint / 43200 - $back) % 4" }
sub fill_leaf {
    my ($back, $age, $rows) = @_;
    $pg->safe_psql("insert into ngx_pgq.key (at, slot, digest, fingerprint, message_id)
                    select clock_timestamp() - interval '$age', @{[ leaf($back) ]}, sha256(('k$back ' || n)::bytea), sha256('k$back'), gen_random_uuid() from generate_series(1, $rows) as n");
}
sub leaf_bytes { my ($back) = @_; return $pg->safe_psql("select pg_total_relation_size(format('ngx_pgq.key_%s', @{[ leaf($back) ]})::regclass)") }
sub leaf_rows  { my ($back) = @_; return $pg->safe_psql("select count(*) from ngx_pgq.key where fingerprint = sha256('k$back')") }

$pg->safe_psql('truncate ngx_pgq.key');
my $empty = leaf_bytes(1);
fill_leaf(1, '23 hours', 1000);
my $load = $pg->pgbench("$dir/load", q{
    select ngx_pgq.enqueue_keyed(uuid7(), array[uuid7(), uuid7()], array['1', '2'], array['load ' || uuid7(), 'load ' || uuid7()])}, -c => 8, -j => 2, -T => 60);
my $loaded = q{fingerprint in (sha256('\x010000000131'), sha256('\x010000000132'))};    # the fingerprints of the messages 1 and 2
my $busy = "select count(*) > 500 from ngx_pgq.key where $loaded";
ok($pg->poll_query_until($busy), 'eight sessions use new keys');

my @sizes;
for my $round (1 .. 6) {
    fill_leaf(2, '25 hours', 5000);
    fill_leaf(3, '49 hours', 5000);
    push @sizes, leaf_bytes(2) + leaf_bytes(3);
    ok((poll_until { leaf_bytes(2) + leaf_bytes(3) == 2 * $empty } 60), "round $round: leaves of expired keys are truncated while sessions look keys up");
}
cmp_ok($sizes[-1], '<=', $sizes[0] * 1.1, 'the leaves of the last round are as large as those of the first');
is(leaf_rows(1), 1000, 'valid keys are kept');

# ---- a valid key in a leaf of expired keys
fill_leaf(2, '25 hours', 10);
$pg->safe_psql("insert into ngx_pgq.key (at, slot, digest, fingerprint, message_id) select clock_timestamp(), @{[ leaf(3) ]}, sha256('fresh'), sha256('x'), gen_random_uuid()");
fill_leaf(3, '49 hours', 10);
ok((poll_until { leaf_rows(2) == 0 } 30), 'a leaf of expired keys is truncated');
is(leaf_rows(3), 10, 'a leaf with one valid key is not truncated');
is($pg->safe_psql(q{select enqueue_with_key('fresh')}), 'PQ422', 'the valid key is known');

like($pg->safe_psql(undef, file => Pgq::Host::top() . '/sql/inspect/keys.sql'), qr/^ngx_pgq\.key_\d\|11\|1\|/m, 'sql/inspect/keys.sql shows one valid key of eleven rows');

# ---- truncation and open transactions
my $reader = $pg->session;
is($reader->query(q{begin; select enqueue_with_key('fresh 2')}), 'accepted', 'an open transaction has used a key');
fill_leaf(2, '25 hours', 10);
ok((poll_until { leaf_rows(2) == 0 } 30), 'a transaction that has used a key does not delay the truncation');
$reader->query('rollback; begin; select count(*) from ngx_pgq.key');
fill_leaf(2, '25 hours', 10);
my $before = $pg->safe_psql("select count(*) from ngx_pgq.key where $loaded");
ok((poll_until { $pg->safe_psql("select count(*) from ngx_pgq.key where $loaded") > $before + 2000 } 30), 'sessions use new keys while a transaction has read all keys');
is(leaf_rows(2), 10, 'a leaf that an open transaction has read is not truncated');
$reader->quit;
ok((poll_until { leaf_rows(2) == 0 } 30), 'the leaf is truncated when the transaction has ended');
kill 'INT', $load;
Pgq::Host::ended($load);
unlike(Pgq::Host::slurp("$dir/load.err"), qr/error|fatal/i, 'no session has got an error');

# ---- ngx_pgq.max_keys
sub set_max_keys { $pg->set('ngx_pgq.max_keys' => $_[0]); $pg->poll_query_until('show ngx_pgq.max_keys', $_[0]) }

$pg->safe_psql('truncate ngx_pgq.key');
my $start = -s $pg->log;
is($pg->safe_psql(q{select enqueue_with_key('before')}), 'accepted', 'a key is accepted below ngx_pgq.max_keys');
fill_leaf(1, '23 hours', 2000);
set_max_keys(2000);
is($pg->safe_psql(q{select enqueue_with_key('above')}), 'PQ503', 'a new key is refused when there are ngx_pgq.max_keys');
is($pg->safe_psql(q{select sqlstate || ' ' || problem from ngx_pgq.enqueue_all(uuid7(), uuid7(), '{1,2}', 'above')}), 'PQ503 There are too many idempotency keys.', 'the new key of enqueue_all() is refused');
is($pg->safe_psql(q{select enqueue_with_key('before')}), 'PQ200', 'a known key is recognized when there are ngx_pgq.max_keys');
is($pg->safe_psql(q{select enqueue_with_key('before', '2')}), 'PQ422', 'another message with a known key is refused');
is($pg->safe_psql(q{select string_agg(ordinal || ' ' || sqlstate, ', ') from ngx_pgq.enqueue_keyed(uuid7(), array[uuid7(), uuid7(), uuid7(), uuid7()],
    '{"\"no key\"","\"no key\"",1,"\"no key\""}', array[null, 'above', 'before', null])}), '2 PQ503, 3 PQ200', 'messages without a key of the same batch are accepted');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"no key"'}, 2), 'the messages without a key are posted');
ok((poll_until { $pg->log_contains(qr/new idempotency keys are refused: the limit of 2000 \(ngx_pgq.max_keys\) is reached/, $start) } 30), 'the log says that new keys are refused');
set_max_keys(3000);
is($pg->safe_psql(q{select enqueue_with_key('above')}), 'accepted', 'a new key is accepted with a higher ngx_pgq.max_keys');
set_max_keys(2000);
is($pg->safe_psql(q{select enqueue_with_key('above 2')}), 'PQ503', 'a new key is refused with a lower ngx_pgq.max_keys');
$pg->safe_psql(q{update ngx_pgq.key set at = at - interval '25 hours' where fingerprint = sha256('k1')});
ok($pg->poll_query_until(q{begin; select enqueue_with_key('above 2'); rollback}, 'accepted'), 'a new key is accepted when others have expired and are truncated');
ok((poll_until { $pg->log_contains(qr/new idempotency keys are accepted again/, $start) } 30), 'the log says that new keys are accepted again');
cmp_ok(scalar(() = $pg->log_since($start) =~ /new idempotency keys/g), '<=', 4, 'the log has at most two lines for each time that new keys are refused');
set_max_keys(10_000_000);

# ---- ngx_pgq.keep_keys
sub set_keep_keys { $pg->set('ngx_pgq.keep_keys' => $_[0]); $pg->poll_query_until('show ngx_pgq.keep_keys', $_[0]) }

$pg->safe_psql('truncate ngx_pgq.key');
is($pg->safe_psql(q{select enqueue_with_key('setting')}), 'accepted', 'a new key is accepted');
for my $time (qw(1min 1d 10d 30d 7min 1d)) {
    set_keep_keys($time);
    is($pg->safe_psql(q{select enqueue_with_key('setting')}), 'PQ200', "the key is known with keep_keys = $time");
}
my $scans = q{select sum(idx_scan) from pg_stat_user_indexes where indexrelname = (select format('key_%s_at_idx', slot) from ngx_pgq.key where digest = sha256('setting'))};
$pg->safe_psql(q{update ngx_pgq.key set at = at - interval '2 min'});
set_keep_keys('1min');
is($pg->safe_psql(q{begin; select enqueue_with_key('setting'); rollback}), 'accepted', 'a key that is two minutes old is unknown with keep_keys = 1min');
my $before_scans = $pg->safe_psql($scans);
ok($pg->poll_query_until("select ($scans) > $before_scans + 1"), 'a mover checks the leaf of the key');
set_keep_keys('3min');
is($pg->safe_psql(q{select enqueue_with_key('setting')}), 'PQ200', 'the key is known again with keep_keys = 3min, as it was kept for batches that are sent again');
set_keep_keys('1min');
$pg->safe_psql(q{update ngx_pgq.key set at = at - interval '29 min'});
ok((poll_until { $pg->safe_psql('select count(*) from ngx_pgq.key') eq '0' } 30), 'the key is truncated when it is half an hour old');
unlike($pg->log_since(0), qr/housekeeping/, 'the log has no error of housekeeping');

done_testing;
