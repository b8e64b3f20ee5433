# A process waits at a point of a batch or of enqueue() while it is terminated or cancelled, or while the server is
# stopped.

use Pgq;
use Pgq::FaultPoints;

my $faults = Pgq::FaultPoints->new;
my $pg     = $faults->pg;
my $movers = sub { $pg->safe_psql("select $_[0](pid) from ngx_pgq.status where pid is not null") };

my @cases = (
    [ 'the movers are terminated'         => sub { $movers->('pg_terminate_backend') } ],
    [ 'the batch is cancelled'            => sub { $movers->('pg_cancel_backend') } ],
    [ 'the server is stopped immediately' => sub { $pg->stop('immediate')->start } ],
    [ 'the server is stopped fast'        => sub { $pg->stop('fast')->start } ],
    [ 'the postmaster is killed'          => sub { $pg->kill9->start } ],
);

for my $point (qw(span-taken posts-written slot-locked slot-truncated batch-finished batch-committed)) {
    for my $case (@cases) {
        my ($what, $then) = @$case;
        $faults->case($point => 'wait', then => $then, name => "$point: $what");
    }
}

# a session that enqueues
for my $case ([ 'the session is terminated' => 'pg_terminate_backend' ], [ 'enqueue() is cancelled' => 'pg_cancel_backend' ]) {
    my ($what, $function) = @$case;
    for my $point (qw(batch-entered queue-written)) {
        $faults->case($point => 'wait', name => "$point: $what", then => sub {
            $pg->safe_psql("select $function(pid) from pg_stat_activity where query ~ 'enqueue' and pid <> pg_backend_pid()");
        });
    }
}

# A committed message is moved even if its session wakes no mover. The session cannot be cancelled at this point.
$faults->case('producer-committed' => 'wait', name => 'a producer waits after its commit, before it wakes a mover', then => sub {
    $faults->pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"other"')}, env => { PGOPTIONS => '-c ngx_pgq.fault=' });
    ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"other"'}, 1), 'other messages are moved while the producer waits');
    $faults->set('');
});

# A mover has taken ids and not committed them: no other mover takes ids.
$faults->case('id-taken' => 'wait', name => 'a mover waits after it has taken its first id', then => sub {
    my $last = $pg->safe_psql('select coalesce(max(id), 0) from posts');
    ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover' and wait_event = 'advisory'}, 1),
        'the other mover waits for the first');
    is($pg->safe_psql('select coalesce(max(id), 0) from posts'), $last, 'there is no new post while the mover waits');
    $faults->set('');
});

$faults->end;

done_testing;
