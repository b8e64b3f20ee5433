# P2: a batch is forgotten a period after its transaction has ended, not after it began: one whose commit waits for a
# standby for longer than that is recognised when it is sent again, and so is a fence. The period is 3 s here.

use Pgq;
use Pgq::FaultPoints;
use Time::HiRes ();

my $faults = Pgq::FaultPoints->new;
my $pg     = $faults->pg;
my $period = 3;

sub now { return Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) }
sub new_id { return $pg->safe_psql('select gen_random_uuid()') }

# What does not wait for the standby, and is not told of it.
my @quietly = (env => { PGOPTIONS => '-c synchronous_commit=local -c client_min_messages=error' });

# Enqueues a batch of one message; the number of refusals, or the error.
sub enqueue_sql { my ($batch, $message) = @_; return qq{select count(*) from ngx_pgq.enqueue('$batch', array[gen_random_uuid()], array['"$message"'])} }

sub enqueue {
    my (undef, $out, $err) = $pg->psql(enqueue_sql(@_), @quietly);
    return $err =~ /ERROR:  (.*)/ ? $1 : $out;
}

# Where a batch lies; and the size of a leaf, for which no lock is needed.
sub leaf_of { return $pg->safe_psql("select slot from ngx_pgq.batch where batch_id = '$_[0]'") }
sub size_of { return $pg->safe_psql("select pg_relation_size('ngx_pgq.batch_$_[0]')") }

# Other batches come, until leaves have been truncated: one that was there before is forgotten.
sub periods_pass {
    my ($name, $busy) = @_;
    my ($before, $leaf);

    # in another leaf than that of a transaction that does not end
    poll_until { enqueue($before = new_id(), 'marker'); $leaf = leaf_of($before); $leaf ne ($busy // '') } 60;
    ok((poll_until { enqueue(new_id(), 'traffic'); size_of($leaf) == 0 || leaf_of($before) eq '' } 60), "$name: batches that have been committed are forgotten");
    return;
}

# The movers go on without a standby, as only then leaves are truncated meanwhile.
$pg->safe_psql('alter role ngx_pgq_mover set synchronous_commit = local; select pg_terminate_backend(pid) from ngx_pgq.status where pid is not null');
$faults->set('ledger-due:force');
$pg->safe_psql(q{alter system set synchronous_standby_names = 'nobody'}, @quietly);
$pg->reload;
$pg->poll_query_until('show synchronous_standby_names', 'nobody');

my $waiting = q{select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query ~ 'ngx_pgq'};

for my $kind (qw(enqueue fence)) {
    my $batch   = new_id();
    my $first   = $pg->session;
    my $second  = $pg->session;
    my $attempt = $kind eq 'fence' ? "select ngx_pgq.fence('$batch')" : enqueue_sql($batch, $kind);

    periods_pass("$kind, before");
    $_->query('set client_min_messages = error') for $first, $second;
    $first->send($attempt);
    ok($pg->poll_query_until($waiting, 1, 30, @quietly), "$kind: the commit of the first attempt waits for a standby");
    my $busy = $pg->safe_psql(q{select right(relation::regclass::text, 1) from pg_locks join pg_stat_activity using (pid)
        where wait_event = 'SyncRep' and mode = 'RowExclusiveLock' and relation::regclass::text ~ '^ngx_pgq.batch_[0-2]$'});
    periods_pass("$kind, meanwhile", $busy) for 1 .. 2;
    $second->send('set synchronous_commit = local; ' . enqueue_sql($batch, $kind));
    ok($second->waits(1), "$kind: the batch sent again waits for the first attempt");

    my $started = now();
    $pg->safe_psql(q{select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep' and query ~ 'ngx_pgq'}, @quietly);
    is($first->result, $kind eq 'fence' ? 't' : 0, "$kind: the first attempt ends");
    my $told = $second->result;
    $kind eq 'fence' ? like($told, qr/batch was fenced/, "$kind: the second one is told so") : is($told, 0, "$kind: the second one is accepted");
    my $leaf = leaf_of($batch);
    isnt($leaf, '', "$kind: the batch is known");

    ok((poll_until { enqueue(new_id(), 'traffic'); size_of($leaf) == 0 || leaf_of($batch) eq '' } 60), "$kind: it is forgotten in the end");
    cmp_ok(now() - $started, '>=', $period, "$kind: but not before a period has passed since its transaction ended");
    $_->quit for $first, $second;
}

ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, 30, @quietly), 'all is moved');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"enqueue"'}), 1, 'the batch was taken once');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"fence"'}), 0, 'and the fenced one never');

# ---- a start forgets nothing that it has not seen for a period
my $batch = new_id();
enqueue($batch, 'restart');
my $leaf = leaf_of($batch);
periods_pass('restart') for 1 .. 1;
my $last = new_id();
enqueue($last, 'restart');
$leaf = leaf_of($last);
my $stopped = now();
$pg->restart('immediate');
is(enqueue($last, 'restart'), 0, 'a batch of before a crash is accepted when it is sent again');
is(leaf_of($last), $leaf, 'from the leaf that it was in');
ok((poll_until { enqueue(new_id(), 'traffic'); size_of($leaf) == 0 || leaf_of($last) eq '' } 60), 'it is forgotten in the end');
cmp_ok(now() - $stopped, '>=', $period, 'but not before a period has passed since the start');
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, 30, @quietly), 'all is moved');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"restart"'}), 2, 'and each was taken once');

$faults->end;

done_testing;
