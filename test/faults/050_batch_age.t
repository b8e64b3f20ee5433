# P2: a batch stays in the batch table for a period after the end of its transaction. So a batch or fence whose commit waits
# for a standby for longer than a period is recognized when the batch is sent again. The period is 3 s in this test.

use Pgq;
use Pgq::FaultPoints;
use Time::HiRes ();

my $faults = Pgq::FaultPoints->new;
my $pg     = $faults->pg;
my $period = 3;

sub now { return Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) }
sub new_id { return $pg->safe_psql('select gen_random_uuid()') }

# Options of a session whose commits do not wait for the standby, without a warning about it.
my @local = (env => { PGOPTIONS => '-c synchronous_commit=local -c client_min_messages=error' });

sub enqueue_sql { my ($batch, $message) = @_; return qq{select count(*) from ngx_pgq.enqueue('$batch', array[gen_random_uuid()], array['"$message"'])} }

# Enqueues a batch of one message. Returns the number of refusals or the error.
sub enqueue {
    my (undef, $out, $err) = $pg->psql(enqueue_sql(@_), @local);
    return $err =~ /ERROR:  (.*)/ ? $1 : $out;
}

# The leaf of a batch, and the size of a leaf. The size can be read without a lock.
sub leaf_of { return $pg->safe_psql("select slot from ngx_pgq.batch where batch_id = '$_[0]'") }
sub size_of { return $pg->safe_psql("select pg_relation_size('ngx_pgq.batch_$_[0]')") }

# Enqueues other batches until the leaf of a committed batch has been truncated.
sub periods_pass {
    my ($name, $locked_leaf) = @_;
    my ($before, $leaf);

    # a committed batch in another leaf than the one that an open transaction has locked
    poll_until { enqueue($before = new_id(), 'marker'); $leaf = leaf_of($before); $leaf ne ($locked_leaf // '') } 60;
    ok((poll_until { enqueue(new_id(), 'traffic'); size_of($leaf) == 0 || leaf_of($before) eq '' } 60), "$name: the leaf of a committed batch is truncated");
    return;
}

# The commits of movers do not wait for the standby, so that they truncate leaves.
$pg->safe_psql('alter role ngx_pgq_mover set synchronous_commit = local; select pg_terminate_backend(pid) from ngx_pgq.status where pid is not null');
$faults->set('batch-table-due:force');
$pg->safe_psql(q{alter system set synchronous_standby_names = 'missing'}, @local);
$pg->reload;
$pg->poll_query_until('show synchronous_standby_names', 'missing');

my $waiting = q{select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query ~ 'ngx_pgq'};

for my $kind (qw(enqueue fence)) {
    my $batch   = new_id();
    my $first   = $pg->session;
    my $second  = $pg->session;
    my $attempt = $kind eq 'fence' ? "select ngx_pgq.fence('$batch')" : enqueue_sql($batch, $kind);

    periods_pass("$kind, before");
    $_->query('set client_min_messages = error') for $first, $second;
    $first->send($attempt);
    ok($pg->poll_query_until($waiting, 1, 30, @local), "$kind: the commit of the first attempt waits for a standby");
    my $locked_leaf = $pg->safe_psql(q{select right(relation::regclass::text, 1) from pg_locks join pg_stat_activity using (pid)
        where wait_event = 'SyncRep' and mode = 'RowExclusiveLock' and relation::regclass::text ~ '^ngx_pgq.batch_[0-2]$'});
    periods_pass("$kind, during the wait", $locked_leaf) for 1 .. 2;
    $second->send('set synchronous_commit = local; ' . enqueue_sql($batch, $kind));
    ok($second->waits(1), "$kind: the second attempt waits for the first");

    my $started = now();
    $pg->safe_psql(q{select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep' and query ~ 'ngx_pgq'}, @local);
    is($first->result, $kind eq 'fence' ? 't' : 0, "$kind: the first attempt is committed");
    my $answer = $second->result;
    $kind eq 'fence' ? like($answer, qr/batch was fenced/, "$kind: the second attempt fails, as the batch is fenced") : is($answer, 0, "$kind: the second attempt is accepted");
    my $leaf = leaf_of($batch);
    isnt($leaf, '', "$kind: the batch is in the batch table");

    ok((poll_until { enqueue(new_id(), 'traffic'); size_of($leaf) == 0 || leaf_of($batch) eq '' } 60), "$kind: the batch is truncated after the period");
    cmp_ok(now() - $started, '>=', $period, "$kind: the batch is kept for a period after the end of its transaction");
    $_->quit for $first, $second;
}

ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, 30, @local), 'all messages are moved');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"enqueue"'}), 1, 'the enqueued batch is posted once');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"fence"'}), 0, 'the fenced batch is not posted');

# ---- a new mover keeps all batches for a period
enqueue(new_id(), 'restart');
periods_pass('restart');
my $last = new_id();
enqueue($last, 'restart');
my $leaf    = leaf_of($last);
my $stopped = now();
$pg->restart('immediate');
is(enqueue($last, 'restart'), 0, 'a batch that is sent again after a crash is accepted');
is(leaf_of($last), $leaf, 'the batch is in its leaf after a crash');
ok((poll_until { enqueue(new_id(), 'traffic'); size_of($leaf) == 0 || leaf_of($last) eq '' } 60), 'the batch is truncated after the start of a new mover');
cmp_ok(now() - $stopped, '>=', $period, 'the batch is kept for a period after the start');
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, 30, @local), 'all messages are moved after a crash');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"restart"'}), 2, 'each batch is posted once after a crash');

$faults->end;

done_testing;
