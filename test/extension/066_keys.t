# Idempotency keys under many sessions: a key is taken once and never waited for; it outlives moves, restarts and
# crashes; and the table of keys does not grow with what has passed through.

use Pgq;

my $pg  = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nmax_prepared_transactions = 4\nlog_lock_waits = on\ndeadlock_timeout = 1ms\n")->start;
my $dir = Pgq::Host::temp_dir('keys');
chmod 0755, $dir;

$pg->safe_psql(<<'END');
create function uuid7() returns uuid language sql volatile as $$
    select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
            || '7' || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid
$$;

-- what became of one message: taken, or the code it was answered with
create function once(key text, message text default '1', batch uuid default uuid7(), id uuid default uuid7()) returns text language sql volatile as $$
    select coalesce((select sqlstate from ngx_pgq.enqueue_keyed(batch, array[id], array[message], array[key])), 'taken')
$$;

create table told (key text, outcome text);
END

sub load {
    my ($name, $seconds, $sql) = @_;
    Pgq::Host::spew("$dir/$name.sql", $sql =~ s/\s+/ /gr, ";\n");
    return Pgq::Host::spawn([ Pgq::Host::pg_bin() . '/pgbench', '-n', '-h', $pg->socket, '-p', $pg->port, '-U', 'postgres', '-c', 8, '-j', 2, '-T', $seconds,
        '-f', "$dir/$name.sql", 'posts' ], out => "$dir/$name.out", err => "$dir/$name.err");
}

# ---- many at once: every key has many messages that are the same, and some that are another
my $race = load('race', 3, q{
    insert into told
    select key, once(key, case when other then '"other"' else '"same"' end)
      from (select 'race ' || floor(random() * 400) as key, random() < 0.05 as other offset 0) as r});
is(Pgq::Host::ended($race, 60), 0, 'eight sessions send the same keys');
is($pg->safe_psql(q{select count(distinct key) from told}), 400, 'all of them');
is($pg->safe_psql(q{select count(*), count(distinct key) from told where outcome = 'taken'}), '400|400', 'each is taken once');
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0), 'all is moved');
is($pg->safe_psql(q{select count(*) from posts}), 400, 'and each has one post');
is($pg->safe_psql(q{select string_agg(distinct outcome, ' ' order by outcome) from told}), 'PQ200 PQ409 PQ422 taken', 'the others were told so, in each of the ways');
unlike($pg->log_since(0), qr/still waiting for.*(?:advisory|on transaction)/, 'nobody has waited for a key');
like(Pgq::Host::slurp("$dir/race.out"), qr/number of failed transactions: 0 /, 'and nobody has failed') if Pgq::Host::pg_version() >= 15;

# ---- a commit that waits for its standby
$pg->commits_wait_for('missing');
$pg->safe_psql(q{set synchronous_commit = local; insert into ngx_pgq.key (at, slot, digest, fingerprint, message_id)
                 select now() - interval '25 h', slot, sha256('old'), sha256('x'), gen_random_uuid() from generate_series(0, 3) as slot where slot <> (select slot from ngx_pgq.key limit 1)});
ok($pg->poll_query_until(q{select count(*) from ngx_pgq.key where digest = sha256('old')}, 0, 30, env => { PGOPTIONS => '-c lock_timeout=1s' }), 'truncating does not wait for the standby, nor anybody for it');
my ($first, $second, $third) = map { $pg->session } 1 .. 3;
$_->query('set client_min_messages = error') for $first, $second, $third;
my ($batch, $id) = split /\|/, $pg->safe_psql('select uuid7(), uuid7()');
$first->send("select once('slow', '1', '$batch', '$id')");
my $stuck = q{select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query ~ 'once'};
ok($pg->poll_query_until($stuck, 1), 'a message waits for a standby that does not exist');
is($second->query(q{begin; select once('slow')}), 'PQ409', 'its key is busy, who meets it is told at once');
is($second->query(q{select once('slow', '2')}), 'PQ409', 'whatever he sends');
is($second->query('rollback; begin; ' . q{select once('slow 2')}), 'taken', 'another key is free');
is($second->query('rollback; begin; ' . q{select count(*) from ngx_pgq.enqueue(uuid7(), array[uuid7()], '{1}')}), 0, 'and a message without one');
$second->query('rollback');
is($pg->safe_psql(q{select count(*) from ngx_pgq.key where digest = sha256('slow')}), 0, 'nobody sees it yet');
$pg->safe_psql(q{select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep' and query ~ 'once'});
is($first->result, 'taken', 'when it need not wait any more, it is taken');
$second->send(q{select once('slow')});
ok($pg->poll_query_until($stuck, 1), 'who now is told that it was, waits for the standby as well');
is($third->query(q{begin; select once('slow'); rollback}), 'PQ409', 'and has the key meanwhile');

# ---- the server dies
$pg->kill9;
Pgq::Host::spew($pg->data . '/postgresql.auto.conf', '');
$pg->start;
$_->quit for $first, $second, $third;
is($pg->safe_psql("select once('slow', '1', '$batch', '$id')"), 'taken', 'after a crash, the batch sent again is accepted');
is($pg->safe_psql("select problem from ngx_pgq.enqueue_keyed(uuid7(), array[uuid7()], '{1}', '{slow}')"), $id, 'the key leads to its message');
is($pg->safe_psql(q{select once('slow', '2')}), 'PQ422', 'and to no other');
is($pg->safe_psql(q{select once('race 1', '"same"') || once('race 1', '"other"')}) =~ /^(?:PQ200PQ422|PQ422PQ200)$/, 1, 'what was moved long ago is known, too');
$pg->restart;
is($pg->safe_psql("select problem from ngx_pgq.enqueue_keyed(uuid7(), array[uuid7()], '{1}', '{slow}')"), $id, 'as after a restart');

# ---- prepared
$pg->safe_psql(q{begin; select once('prepared'); prepare transaction 'keys'});
is($pg->safe_psql(q{select once('prepared')}), 'PQ409', 'a key in a prepared transaction is busy');
$pg->restart('immediate');
is($pg->safe_psql(q{select once('prepared')}), 'PQ409', 'after a crash, too');
$pg->safe_psql(q{commit prepared 'keys'});
is($pg->safe_psql(q{select once('prepared')}), 'PQ200', 'until it is committed');

# ---- other isolation levels see what is, not what was
for my $level ('repeatable read', 'serializable') {
    my $session = $pg->session;
    $session->query("begin isolation level $level; select 1");
    $pg->safe_psql("select once('$level')");
    is($session->query("select once('$level')"), 'PQ200', "a key taken since a $level transaction began is taken");
    $session->quit;
}

# ---- no more is kept than is needed, under load
# Leaves as they would be after days; the current one is busy, and the one before holds keys that count.
sub leaf { my ($back) = @_; return "((extract(epoch from clock_timestamp()) - 946684800)::bigint / 43200 - $back) % 4" }
sub fill {
    my ($back, $age, $rows) = @_;
    $pg->safe_psql("insert into ngx_pgq.key (at, slot, digest, fingerprint, message_id)
                    select clock_timestamp() - interval '$age', @{[ leaf($back) ]}, sha256(('k$back ' || n)::bytea), sha256('k$back'), gen_random_uuid() from generate_series(1, $rows) as n");
}
sub bytes { my ($back) = @_; return $pg->safe_psql("select pg_total_relation_size(format('ngx_pgq.key_%s', @{[ leaf($back) ]})::regclass)") }
sub rows  { my ($back) = @_; return $pg->safe_psql("select count(*) from ngx_pgq.key where fingerprint = sha256('k$back')") }

$pg->safe_psql('truncate ngx_pgq.key');
my $empty = bytes(1);
fill(1, '23 hours', 1000);
my $load = load('load', 60, q{
    select ngx_pgq.enqueue_keyed(uuid7(), array[uuid7(), uuid7()], array['1', '2'], array['load ' || uuid7(), 'load ' || uuid7()])});
my $loaded = q{fingerprint in (sha256('\x010000000131'), sha256('\x010000000132'))};    # of the messages 1 and 2
my $busy = "select count(*) > 500 from ngx_pgq.key where $loaded";
ok($pg->poll_query_until($busy), 'many take keys');

my @sizes;
for my $round (1 .. 6) {
    fill(2, '25 hours', 5000);
    fill(3, '49 hours', 5000);
    push @sizes, bytes(2) + bytes(3);
    ok((poll_until { bytes(2) + bytes(3) == 2 * $empty } 60), "round $round: what has expired is truncated, though all look into it");
}
cmp_ok($sizes[-1], '<=', $sizes[0] * 1.1, 'and it is as large each time as the first time');
is(rows(1), 1000, 'what counts is kept');

# ---- one expired key does not keep, one fresh key keeps a leaf
fill(2, '25 hours', 10);
$pg->safe_psql("insert into ngx_pgq.key (at, slot, digest, fingerprint, message_id) select clock_timestamp(), @{[ leaf(3) ]}, sha256('fresh'), sha256('x'), gen_random_uuid()");
fill(3, '49 hours', 10);
ok((poll_until { rows(2) == 0 } 30), 'a leaf that has expired goes');
is(rows(3), 10, 'one that has a fresh key in it does not, whichever leaf it is');
is($pg->safe_psql(q{select once('fresh')}), 'PQ422', 'and the key is known');

like($pg->safe_psql(undef, file => Pgq::Host::top() . '/sql/inspect/keys.sql'), qr/^ngx_pgq\.key_\d\|11\|1\|/m, 'and of eleven rows in its leaf one is a key that counts');

# ---- who has looked a key up does not hold up the truncation; who reads them all does, and the truncation nobody
my $reader = $pg->session;
is($reader->query(q{begin; select once('fresh 2')}), 'taken', 'a transaction takes a key, and stays open');
fill(2, '25 hours', 10);
ok((poll_until { rows(2) == 0 } 30), 'what has expired goes');
$reader->query('rollback; begin; select count(*) from ngx_pgq.key');
fill(2, '25 hours', 10);
my $before = $pg->safe_psql("select count(*) from ngx_pgq.key where $loaded");
ok((poll_until { $pg->safe_psql("select count(*) from ngx_pgq.key where $loaded") > $before + 2000 } 30), 'while somebody reads all keys, others take some');
is(rows(2), 10, 'and what has expired waits');
$reader->quit;
ok((poll_until { rows(2) == 0 } 30), 'until he is gone');
kill 'INT', $load;
Pgq::Host::ended($load);
unlike(Pgq::Host::slurp("$dir/load.err"), qr/error|fatal/i, 'none of those who take keys met an error');

# ---- no more keys than ngx_pgq.max_keys
sub most { $pg->safe_psql("alter system set ngx_pgq.max_keys = $_[0]; select pg_reload_conf()"); $pg->poll_query_until('show ngx_pgq.max_keys', $_[0]) }

$pg->safe_psql('truncate ngx_pgq.key');
my $start = -s $pg->log;
is($pg->safe_psql(q{select once('before')}), 'taken', 'a key is taken');
fill(1, '23 hours', 2000);
most(2000);
is($pg->safe_psql(q{select once('above')}), 'PQ503', 'with as many keys as ngx_pgq.max_keys a new one is refused');
is($pg->safe_psql(q{select sqlstate || ' ' || problem from ngx_pgq.enqueue_all(uuid7(), uuid7(), '{1,2}', 'above')}), 'PQ503 There are too many idempotency keys.', 'also that of many messages');
is($pg->safe_psql(q{select once('before')}), 'PQ200', 'a known key is known');
is($pg->safe_psql(q{select once('before', '2')}), 'PQ422', 'and keeps its message');
is($pg->safe_psql(q{select string_agg(ordinal || ' ' || sqlstate, ', ') from ngx_pgq.enqueue_keyed(uuid7(), array[uuid7(), uuid7(), uuid7(), uuid7()],
    '{"\"mate\"","\"mate\"",1,"\"mate\""}', array[null, 'above', 'before', null])}), '2 PQ503, 3 PQ200', 'messages without a key are taken from the same batch');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"mate"'}, 2), 'and posted');
ok((poll_until { $pg->log_contains(qr/new idempotency keys are refused, as there are 2000 \(ngx_pgq.max_keys\)/, $start) } 30), 'the log says so');
most(3000);
is($pg->safe_psql(q{select once('above')}), 'taken', 'with a higher limit it is taken');
most(2000);
is($pg->safe_psql(q{select once('above 2')}), 'PQ503', 'with the lower one another is not');
$pg->safe_psql(q{update ngx_pgq.key set at = at - interval '25 hours' where fingerprint = sha256('k1')});
ok($pg->poll_query_until(q{begin; select once('above 2'); rollback}, 'taken'), 'until others have expired and are removed');
ok((poll_until { $pg->log_contains(qr/new idempotency keys are accepted again/, $start) } 30), 'the log says so');
my $said = () = $pg->log_since($start) =~ /new idempotency keys/g;
cmp_ok($said, '<=', 4, 'once for each change');
most(10_000_000);

# ---- the setting
sub keep { $pg->safe_psql("alter system set ngx_pgq.keep_keys = '$_[0]'; select pg_reload_conf()"); $pg->poll_query_until('show ngx_pgq.keep_keys', $_[0]) }

$pg->safe_psql('truncate ngx_pgq.key');
is($pg->safe_psql(q{select once('setting')}), 'taken', 'a key is taken');
for my $time (qw(1min 1d 10d 30d 7min 1d)) {
    keep($time);
    is($pg->safe_psql(q{select once('setting')}), 'PQ200', "with keep_keys = $time it is known");
}
my $looked = q{select sum(idx_scan) from pg_stat_user_indexes where indexrelname = (select format('key_%s_at_idx', slot) from ngx_pgq.key where digest = sha256('setting'))};
$pg->safe_psql(q{update ngx_pgq.key set at = at - interval '2 min'});
keep('1min');
is($pg->safe_psql(q{begin; select once('setting'); rollback}), 'taken', 'after two minutes and with one it is not');
my $looks = $pg->safe_psql($looked);
ok($pg->poll_query_until("select ($looked) > $looks + 1"), 'a mover looks at it');
keep('3min');
is($pg->safe_psql(q{select once('setting')}), 'PQ200', 'with three it is again: it was kept for batches that are sent again');
keep('1min');
$pg->safe_psql(q{update ngx_pgq.key set at = at - interval '29 min'});
ok((poll_until { $pg->safe_psql('select count(*) from ngx_pgq.key') eq '0' } 30), 'and half an hour later its row goes');
unlike($pg->log_since(0), qr/housekeeping/, 'keeping house has met no error');

done_testing;
