# P1 while settings change: a commit counts when a standby has confirmed it, whatever the settings say by then. A commit
# that was not confirmed ends with a WARNING, nginx does not answer 202 for it, and sends its batch again.

use Pgq;

my $pg       = Pgq::Postgres->new->start;
my $standby  = $pg->standby->start;
my $password = $pg->set_password('ngx_pgq_web');
my $nginx    = Pgq::Nginx->new(pg => $pg, locations => 'location = /short { pgq_post main; pgq_timeout 2s; } location = /metrics { pgq_metrics; }')->start;
my $warning  = qr/WARNING:  commit was not confirmed by a standby/;
my $waiting  = q{select count(*) from pg_stat_activity where wait_event = 'SyncRep'};
my $receiver;

$pg->poll_query_until('select count(*) from pg_stat_replication', 1);

# ---- the standby, and the settings

sub freeze {
    $receiver = $standby->safe_psql(q{select pid from pg_stat_wal_receiver});
    return kill 'STOP', $receiver;
}

sub thaw { return kill 'CONT', $receiver }

# A new session sees the postmaster's settings, and the checkpointer releases or lets wait by its own.
sub set {
    my ($name, $value) = @_;
    $pg->safe_psql("alter system set $name = '$value'", env => { PGOPTIONS => '-c synchronous_commit=local' });
    $pg->reload;
    return $pg->poll_query_until("show $name", $value);
}

sub names { return set('synchronous_standby_names', $_[0]) }

sub names_in_force {
    names('*');
    return $pg->poll_query_until(q{select count(*) from pg_stat_replication where sync_state = 'sync'}, 1);
}

# ---- SQL: what a transaction is told whose commit waits for a frozen standby, and is released by emptied names

my $new     = 'gen_random_uuid()';
my $enqueue = qq{select count(*) from ngx_pgq.enqueue($new, array[$new], array['1'])};
my %call    = (
    'enqueue'                  => $enqueue,
    'enqueue_keyed'            => qq{select count(*) from ngx_pgq.enqueue_keyed($new, array[$new], array['1'], array[$new\::text])},
    'enqueue_all'              => qq{select count(*) from ngx_pgq.enqueue_all($new, $new, array['1', '2'])},
    'fence'                    => qq{select ngx_pgq.fence((lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0') || '7000800000000000abcd')::uuid)},
    'a larger transaction'     => "begin; insert into public.other values (1); $enqueue; insert into public.other values (2); commit",
    'a procedure that commits' => 'call public.takes()',
    'a rolled back savepoint'  => "begin; insert into public.other values (3); savepoint s; $enqueue; rollback to s; $enqueue; commit",
);
$pg->safe_psql(qq{create table public.other (i int); create procedure public.takes() language plpgsql as \$\$ begin perform count(*) from ($enqueue) as e; commit; end \$\$});

sub released {
    my ($sql) = @_;
    names_in_force();
    freeze();
    my $session = $pg->session;
    $session->send($sql);
    ok($pg->poll_query_until($waiting, 1), 'its commit waits for a standby that stands still');
    names('');
    my $told = $session->result;
    thaw();
    $session->quit;
    return $told;
}

for my $synchronous (qw(off on)) {
    set('ngx_pgq.synchronous', $synchronous);
    like(released($call{$_}), $warning, "synchronous $synchronous, $_: released without a standby, it is told so") for sort keys %call;
}

set('ngx_pgq.synchronous', 'off');
unlike(released('insert into ngx_pgq.queue (data) values (\'1\')'), qr/WARNING/, 'a plain INSERT is not told');

# ---- SQL: other ways to commit without a standby

names_in_force();
my $session = $pg->session;
unlike($session->query($enqueue), qr/WARNING/, 'a commit that a standby has confirmed has no warning');
freeze();
like($session->query("begin; $enqueue; set local synchronous_commit = $_; commit"), $warning, "synchronous_commit is lowered to $_ after the messages were taken") for qw(off local);
thaw();
unlike($session->query("begin; $enqueue; rollback; create table public.after_rollback (); drop table public.after_rollback"), qr/WARNING/, 'a rolled back transaction expects nothing of the next one');
unlike($session->query("begin; set local synchronous_commit = local; $enqueue; commit"), qr/WARNING/, 'a transaction that did not ask for a standby is not told, where this is allowed');
unlike($session->query("begin; set local synchronous_commit = local; $enqueue; set local synchronous_commit = on; commit"), qr/WARNING/, 'raised again before the commit, it waits');

$standby->safe_psql('select pg_wal_replay_pause()');
$session->send("set synchronous_commit = remote_apply; $enqueue");
ok($pg->poll_query_until($waiting, 1), 'a commit that has to be applied waits while replay is paused');
names('');
like($session->result, $warning, 'flushed but not applied is not enough for remote_apply');
$standby->safe_psql('select pg_wal_replay_resume()');
$session->quit;

names('');
unlike($pg->session->query($enqueue), qr/WARNING/, 'a server that is not synchronous promises nothing');
$session = $pg->session;
$session->query("begin; $enqueue");
set('ngx_pgq.synchronous', 'on');
like($session->query('commit'), $warning, 'ngx_pgq.synchronous is switched on before the commit');
$session->quit;

# names are set, and the checkpointer, which lets commits wait, has not read them yet
names('');
my ($checkpointer) = $pg->safe_psql(q{select pid from pg_stat_activity where backend_type = 'checkpointer'});
freeze();
kill 'STOP', $checkpointer;
names('*');
like($pg->session->query($enqueue), $warning, 'names that the server does not wait for yet are no standby');
kill 'CONT', $checkpointer;
thaw();

for my $end (qw(cancel terminate)) {
    names_in_force();
    freeze();
    $session = $pg->session;
    $session->send($enqueue);
    $pg->poll_query_until($waiting, 1);
    my $from = -s $pg->log;
    $pg->safe_psql(qq{select pg_${end}_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'});
    ok((Pgq::Wait::poll_until { $pg->log_contains($warning, $from) } 10), "$end during the wait: the commit was not confirmed");
    thaw();
    $session->quit;
}

# ---- nginx in front

my @kinds = (
    [ plain => '"plain"' ],
    [ keyed => '"keyed"', 'Idempotency-Key' => '"k"' ],
    [ lines => qq("line 1"\n"line 2"\n), 'Content-Type' => 'application/x-ndjson' ],
);

sub send_to {
    my ($path, $kind) = @_;
    my (undef, $body, @headers) = @$kind;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', $path, body => $body, headers => { 'Content-Type' => 'application/json', @headers }));
    return $client;
}

$pg->safe_psql('truncate posts');

for my $kind (@kinds) {
    names_in_force();
    freeze();
    my $short = send_to('/short', $kind);
    ok($pg->poll_query_until($waiting, 1), "$kind->[0]: the commit waits");
    my $position = $nginx->log_position;
    names('');
    $nginx->wait_for_log(qr/commit was not confirmed by a standby/, $position);
    is($short->answer->status, 504, "$kind->[0]: no 202 while no standby has it");
    thaw();
}

names_in_force();
freeze();
my @long = map { send_to('/post', $_) } @kinds;
ok((Pgq::Wait::poll_until { $pg->safe_psql($waiting) > 0 } 10), 'commits wait');
names('');
names_in_force();
ok(!$_->answer(timeout => 0.3), 'no answer while the standby is frozen') for @long;
thaw();
is(join(' ', map { $_->answer->status } @long), '202 202 202', 'when the standby is back, all are accepted');
ok($pg->poll_query_until(q{select string_agg(n::text, ' ' order by n) from (select count(*) as n from posts where data::text <> '"keyed"' group by data::text) as c}, '2 2 2'),
    'each is there once for each of its two requests');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"keyed"'}), 1, 'and the one with a key once');

# ---- a database that wants no warnings
$pg->safe_psql(q{alter database posts set client_min_messages = 'error'});
$pg->safe_psql(q{select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ngx_pgq_web'});

names_in_force();
freeze();
my $quiet = send_to('/short', [ quiet => '"quiet"' ]);
ok($pg->poll_query_until($waiting, 1), 'a database that wants no warnings: the commit waits');
names('');
is($quiet->answer->status, 504, 'a database that wants no warnings: no 202 while no standby has it');
thaw();

$standby->stop;

done_testing;
