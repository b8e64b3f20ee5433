# P1 while settings change: a commit counts only if a standby has confirmed it, even if the settings no longer require one.
# A commit without confirmation ends with a WARNING; nginx does not answer 202 for it and sends its batch again.

use Pgq;

my $pg       = Pgq::Postgres->new->start;
my $standby  = $pg->standby->start;
my $password = $pg->set_password('ngx_pgq_web');
my $nginx    = Pgq::Nginx->new(pg => $pg, locations => 'location = /short { pgq_post main; pgq_timeout 2s; } location = /metrics { pgq_metrics; }')->start;
my $warning  = qr/WARNING:  commit was not confirmed by a standby/;
my $waiting  = q{select count(*) from pg_stat_activity where wait_event = 'SyncRep'};
my $receiver;

$pg->poll_query_until('select count(*) from pg_stat_replication', 1);

# ---- the standby and the settings

sub freeze {
    $receiver = $standby->safe_psql(q{select pid from pg_stat_wal_receiver});
    return kill 'STOP', $receiver;
}

sub thaw { return kill 'CONT', $receiver }

# Changes a setting and waits until new sessions have it. The checkpointer, which makes commits wait, may apply it later.
sub set {
    my ($name, $value) = @_;
    $pg->safe_psql("alter system set $name = '$value'", env => { PGOPTIONS => '-c synchronous_commit=local' });
    $pg->reload;
    return $pg->poll_query_until("show $name", $value);
}

sub names { return set('synchronous_standby_names', $_[0]) }

sub require_standby {
    names('*');
    return $pg->poll_query_until(q{select count(*) from pg_stat_replication where sync_state = 'sync'}, 1);
}

# ---- SQL: a commit waits for a frozen standby, and is released when synchronous_standby_names becomes empty

my $new     = 'gen_random_uuid()';
my $enqueue = qq{select count(*) from ngx_pgq.enqueue($new, array[$new], array['1'])};
my %call    = (
    'enqueue'                  => $enqueue,
    'enqueue_keyed'            => qq{select count(*) from ngx_pgq.enqueue_keyed($new, array[$new], array['1'], array[$new\::text])},
    'enqueue_all'              => qq{select count(*) from ngx_pgq.enqueue_all($new, $new, array['1', '2'])},
    'fence'                    => qq{select ngx_pgq.fence((lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || '7000800000000000abcd')::uuid)},
    'a larger transaction'     => "begin; insert into public.other values (1); $enqueue; insert into public.other values (2); commit",
    'a procedure that commits' => 'call public.commits()',
    'a rolled back savepoint'  => "begin; insert into public.other values (3); savepoint s; $enqueue; rollback to s; $enqueue; commit",
);
$pg->safe_psql(qq{create table public.other (i int); create procedure public.commits() language plpgsql as \$\$ begin perform count(*) from ($enqueue) as e; commit; end \$\$});

sub released {
    my ($sql) = @_;
    require_standby();
    freeze();
    my $session = $pg->session;
    $session->send($sql);
    ok($pg->poll_query_until($waiting, 1), 'a commit waits for the frozen standby');
    names('');
    my $result = $session->result;
    thaw();
    $session->quit;
    return $result;
}

for my $synchronous (qw(off on)) {
    set('ngx_pgq.synchronous', $synchronous);
    like(released($call{$_}), $warning, "synchronous $synchronous, $_: a commit that is released without a standby has a WARNING") for sort keys %call;
}

set('ngx_pgq.synchronous', 'off');
unlike(released('insert into ngx_pgq.queue (data) values (\'1\')'), qr/WARNING/, 'a plain INSERT that is released without a standby has no WARNING');

# ---- SQL: other commits without a standby
require_standby();
my $session = $pg->session;
unlike($session->query($enqueue), qr/WARNING/, 'a commit that a standby has confirmed has no WARNING');
freeze();
like($session->query("begin; $enqueue; set local synchronous_commit = $_; commit"), $warning, "a commit after synchronous_commit was lowered to $_ in the transaction has a WARNING") for qw(off local);
thaw();
unlike($session->query("begin; $enqueue; rollback; create table public.after_rollback (); drop table public.after_rollback"), qr/WARNING/, 'a transaction after one that was rolled back has no WARNING');
unlike($session->query("begin; set local synchronous_commit = local; $enqueue; commit"), qr/WARNING/, 'a transaction that did not ask for a standby has no WARNING');
unlike($session->query("begin; set local synchronous_commit = local; $enqueue; set local synchronous_commit = on; commit"), qr/WARNING/, 'a transaction that raises synchronous_commit again before its commit has no WARNING');

$standby->safe_psql('select pg_wal_replay_pause()');
$session->send("set synchronous_commit = remote_apply; $enqueue");
ok($pg->poll_query_until($waiting, 1), 'a commit with remote_apply waits while replay is paused');
names('');
like($session->result, $warning, 'a commit that was flushed but not applied has a WARNING with remote_apply');
$standby->safe_psql('select pg_wal_replay_resume()');
$session->quit;

names('');
unlike($pg->session->query($enqueue), qr/WARNING/, 'a commit without synchronous replication has no WARNING');
$session = $pg->session;
$session->query("begin; $enqueue");
set('ngx_pgq.synchronous', 'on');
like($session->query('commit'), $warning, 'a commit after ngx_pgq.synchronous was switched on has a WARNING');
$session->quit;

# synchronous_standby_names is set, but the checkpointer, which makes commits wait, has not applied it yet.
names('');
my ($checkpointer) = $pg->safe_psql(q{select pid from pg_stat_activity where backend_type = 'checkpointer'});
freeze();
kill 'STOP', $checkpointer;
names('*');
like($pg->session->query($enqueue), $warning, 'a commit that does not wait yet for the new synchronous_standby_names has a WARNING');
kill 'CONT', $checkpointer;
thaw();

for my $end (qw(cancel terminate)) {
    require_standby();
    freeze();
    $session = $pg->session;
    $session->send($enqueue);
    $pg->poll_query_until($waiting, 1);
    my $from = -s $pg->log;
    $pg->safe_psql(qq{select pg_${end}_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'});
    ok((poll_until { $pg->log_contains($warning, $from) } 10), "a commit whose wait ends by $end has a WARNING");
    thaw();
    $session->quit;
}

# ---- nginx
my @kinds = (
    [ plain => '"plain"' ],
    [ keyed => '"keyed"', 'Idempotency-Key' => '"k"' ],
    [ lines => qq("line 1"\n"line 2"\n), 'Content-Type' => 'application/x-ndjson' ],
);

sub send_to {
    my ($path, $kind) = @_;
    my (undef, $body, @headers) = @$kind;
    return Pgq::Client->new($nginx)->send_post($path, $body, @headers);
}

$pg->safe_psql('truncate posts');

for my $kind (@kinds) {
    require_standby();
    freeze();
    my $short = send_to('/short', $kind);
    ok($pg->poll_query_until($waiting, 1), "$kind->[0]: the commit waits for the standby");
    my $position = $nginx->log_position;
    names('');
    $nginx->wait_for_log(qr/commit was not confirmed by a standby/, $position);
    is($short->answer->status, 504, "$kind->[0]: a commit without confirmation is not answered with 202");
    thaw();
}

require_standby();
freeze();
my @long = map { send_to('/post', $_) } @kinds;
ok((poll_until { $pg->safe_psql($waiting) > 0 } 10), 'commits of three messages wait for the standby');
names('');
require_standby();
ok(!$_->answer(timeout => 0.3), 'a message is not answered while the standby is frozen') for @long;
thaw();
is(join(' ', map { $_->answer->status } @long), '202 202 202', 'the messages are accepted when the standby has confirmed them');
ok($pg->poll_query_until(q{select string_agg(n::text, ' ' order by n) from (select count(*) as n from posts where data::text <> '"keyed"' group by data::text) as c}, '2 2 2'),
    'each request without a key is queued once');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"keyed"'}), 1, 'two requests with the same key are queued once');

# ---- client_min_messages = error
$pg->safe_psql(q{alter database posts set client_min_messages = 'error'});
$pg->terminate_web_sessions;

require_standby();
freeze();
my $without_warnings = send_to('/short', [ plain => '"without warnings"' ]);
ok($pg->poll_query_until($waiting, 1), 'client_min_messages = error: the commit waits for the standby');
names('');
is($without_warnings->answer->status, 504, 'client_min_messages = error: a commit without confirmation is not answered with 202');
thaw();

$standby->stop;

done_testing;
