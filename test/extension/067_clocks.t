# P2: a batch that is sent again is recognized, and a key is valid for its time, when the clocks of web and database hosts
# differ, when they jump while the server runs, and when they change with a restart or a promotion.

use Pgq;
use Pgq::Clock;

plan skip_all => 'libfaketime and sanitizers must both be loaded first' if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};

my %clock = map { $_ => Pgq::Clock->new } qw(one two);

# Returns seconds to add to the machine's clock: about $skew, so that $into seconds of a period of ten minutes have passed.
sub at_second {
    my ($skew, $into) = @_;
    return $skew + $into - (time + $skew) % 600;
}

my $pg = Pgq::Postgres->new(env => { $clock{one}->environment })->start;

$pg->safe_psql(<<'END');
create table sent (batch uuid, key text, message text);

create function uuid7(skew interval) returns uuid language sql volatile as $$
    select (lpad(to_hex((extract(epoch from clock_timestamp() + skew) * 1000)::bigint), 12, '0')
            || '7' || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid
$$;

-- Enqueues new batches of web hosts with other clocks. Each batch has one message with a key.
create function send_new(tag text) returns bigint language sql volatile as $$
    with made as (
        insert into sent
        select uuid7(skew * sign), tag || ' ' || n, to_json(tag || ' ' || n)::text
          from unnest('{0 s,1 s,299 s,301 s,611 s,1207 s,73 min,1 day,3 days 7 min}'::interval[]) with ordinality as s (skew, n),
               unnest('{-1,1}'::int[]) as sign
        returning *
    )
    select count(*) from made, lateral (select count(*) from ngx_pgq.enqueue_keyed(batch, array[uuid7('0 s')], array[message], array[key || batch])) as answer
$$;

-- Sends all batches again. Returns how many results are not PQ200.
create function send_again() returns bigint language sql volatile as $$
    select count(*) from sent, lateral (select * from ngx_pgq.enqueue_keyed(batch, array[uuid7('0 s')], array[message], array[key || batch])) as answer where sqlstate <> 'PQ200'
$$;

-- Sends the same messages in new batches. Returns how many results are not PQ200.
create function send_keys() returns bigint language sql volatile as $$
    select count(*) from sent where coalesce((select sqlstate from ngx_pgq.enqueue_keyed(uuid7('0 s'), array[uuid7('0 s')], array[message], array[key || batch])), '') <> 'PQ200'
$$;

-- Fences all batches. Returns how many were not enqueued before.
create function fenced() returns bigint language sql volatile as $$
    select count(*) from sent where ngx_pgq.fence(batch)
$$;
END

# Checks that the mover has the server's clock, by the time of its last move or its start.
sub has_clock {
    my ($name, $server, $what) = @_;
    my $off = $server->safe_psql("select round(extract(epoch from clock_timestamp() - $what)) from ngx_pgq.status where mover = 1");
    cmp_ok(abs $off, '<', Pgq::Wait::timeout(30), "$name: the mover has the server's clock");
    return;
}

sub moves_by_clock {
    my ($name, $server) = @_;
    $server->safe_psql(q{insert into ngx_pgq.queue (data) values ('"clock"')});
    $server->poll_query_until(q{select count(*) from posts where data::text = '"clock"'}, 1);
    has_clock($name, $server, 'last_move_at');
    $server->safe_psql(q{delete from posts where data::text = '"clock"'});
    return;
}

# Checks that each message is enqueued and posted once.
sub each_once {
    my ($name, $server) = @_;
    my $count = $server->safe_psql('select count(*) from sent');

    is($server->safe_psql('select send_again()'), 0, "$name: each batch that is sent again is recognized");
    is($server->safe_psql('select send_keys()'), 0, "$name: each key is recognized");
    is($server->safe_psql('select fenced()'), 0, "$name: no enqueued batch can be fenced");
    ok($server->wait_until_moved, "$name: all messages are moved");
    is($server->safe_psql('select count(*), count(distinct data::text) from posts'), join('|', $count, $count / 2), "$name: each message is posted once");
}

# Starts a new mover, as a new primary does, and waits until it has checked the batch table and the keys.
sub new_mover {
    my ($server) = @_;
    my $movers = sub { $server->safe_psql("alter system set ngx_pgq.movers = $_[0]"); $server->reload };
    my $old    = $server->safe_psql('select pid from ngx_pgq.status where mover = 1');

    $movers->(0);
    $server->poll_query_until('select count(*) from ngx_pgq.status where pid is not null', 0);
    $movers->(1);
    ok($server->poll_query_until("select count(*) from ngx_pgq.status where mover = 1 and pid <> $old and state = 'idle'", 1), 'a new mover is idle');
}

# ---- the clock jumps while the server runs, to the first or second half of a period
for my $jump ([ 0, 100 ], [ 1, 400 ], [ -1, 100 ], [ 611, 100 ], [ -611, 400 ], [ 4381, 100 ], [ -4381, 100 ], [ 259_620, 400 ], [ -259_620, 100 ]) {
    my ($skew, $into) = @$jump;

    $pg->safe_psql("select send_new('before $skew')");
    $clock{one}->set(at_second($skew, $into));
    my $off = $pg->safe_psql('select round(extract(epoch from clock_timestamp()))') - time - $skew;
    cmp_ok(abs $off, '<=', 601, "$skew s, second $into: the server has that clock");
    moves_by_clock("$skew s, second $into", $pg);
    new_mover($pg);
    has_clock("$skew s, second $into, a new mover", $pg, 'started_at');
    each_once("$skew s, second $into", $pg);
}

# ---- another clock after a restart
for my $restart ([ 1207, 100, 'fast' ], [ -86_401, 100, 'immediate' ], [ 0, 400, 'fast' ]) {
    my ($skew, $into, $how) = @$restart;

    $pg->safe_psql("select send_new('before restart $skew')");
    $clock{one}->set(at_second($skew, $into));
    $pg->restart($how);
    new_mover($pg);
    moves_by_clock("restarted ($how), $skew s", $pg);
    each_once("restarted ($how), $skew s", $pg);
}

# ---- a promotion of a standby with another clock
for my $skew (-600, 600, -259_501) {
    my $standby = $pg->standby(env => { $clock{two}->environment });

    $clock{two}->set(at_second($skew, 100));
    $standby->start;
    $pg->safe_psql("select send_new('before promotion $skew')");
    my $lsn = $pg->safe_psql('select pg_current_wal_flush_lsn()');
    $standby->poll_query_until("select pg_last_wal_replay_lsn() >= '$lsn'", 't');
    $pg->stop('immediate');
    $standby->promote;
    $standby->poll_query_until(q{select count(*) from ngx_pgq.status where mover = 1 and state = 'idle'}, 1);
    moves_by_clock("promoted, $skew s", $standby);
    each_once("promoted, $skew s", $standby);
    $standby->stop;
    $clock{one}->set(0);
    $pg->start;
    each_once('the old primary', $pg);
}

# ---- timeouts do not depend on the clock
$pg->safe_psql(q{select ngx_pgq.pause()});
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"waits"')});
my $waiter = $pg->session;
$waiter->send(q{select ngx_pgq.wait_until_drained('1 s')});
$clock{one}->set(-4381);
is($waiter->result(30), 'f', 'a wait of one second ends when the clock is set back by more than an hour');
$waiter->send(q{select ngx_pgq.wait_until_drained('1 hour')});
$clock{one}->set(4381);
ok($waiter->waits(1), 'a wait of one hour does not end when the clock is set forward by two hours');
$pg->safe_psql(q{select ngx_pgq.resume()});
is($waiter->result(30), 't', 'a wait of one hour ends when the queue is drained');
$waiter->quit;
$pg->safe_psql(q{delete from posts where data::text = '"waits"'});

# ---- keys expire when the database has been in service for a day
my $add_service_time = sub { $pg->safe_psql("update ngx_pgq.service_time set at = at + interval '$_[0]'"); $pg->restart };
my $key  = q{select coalesce((select sqlstate from ngx_pgq.enqueue_keyed(uuid7('0 s'), array[uuid7('0 s')], '{1}', '{aged}')), 'accepted')};
is($pg->safe_psql($key), 'accepted', 'a new key is accepted');
$clock{one}->set(259_620);
$add_service_time->('23 h 50 min');
is($pg->safe_psql($key), 'PQ200', 'a key is valid for a day of service when the clock has jumped by three days');
$add_service_time->('11 min');
is($pg->safe_psql($key), 'accepted', 'a key expires after a day of service');
ok($pg->poll_query_until(q{select count(*) from ngx_pgq.key where at < (select max(at) from ngx_pgq.service_time) - interval '37 h'}, 0), 'expired keys are truncated');

# the time of service is saved while there are keys
my $saved = $pg->safe_psql('select at from ngx_pgq.service_time');
ok($pg->poll_query_until("select at > '$saved' from ngx_pgq.service_time", 't', 60), 'the time of service advances');
is($pg->safe_psql("select at - '$saved' < interval '5 min' from ngx_pgq.service_time"), 't', 'the time of service advances by the elapsed time');

done_testing;
