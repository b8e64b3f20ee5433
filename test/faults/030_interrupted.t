# A process that stands at a point of its batch or of its enqueue, and then something happens to it or to the server.

use Pgq;
use Pgq::FaultPoints;

my $faults = Pgq::FaultPoints->new;
my $pg     = $faults->pg;
my $movers = sub { $pg->safe_psql("select $_[0](pid) from ngx_pgq.status where pid is not null") };

my @cases = (
    [ 'its movers are terminated'      => sub { $movers->('pg_terminate_backend') } ],
    [ 'its batch is cancelled'         => sub { $movers->('pg_cancel_backend') } ],
    [ 'the server is stopped at once'  => sub { $pg->stop('immediate')->start } ],
    [ 'the server is stopped fast'     => sub { $pg->stop('fast')->start } ],
    [ 'the postmaster is killed'       => sub { $pg->kill9->start } ],
);

for my $point (qw(span-taken posts-written slot-locked slot-truncated batch-finished batch-committed)) {
    for my $case (@cases) {
        my ($what, $then) = @$case;
        $faults->case($point => 'wait', then => $then, name => "$point: $what");
    }
}

# one that enqueues
for my $case ([ 'its session is terminated' => 'pg_terminate_backend' ], [ 'it is cancelled' => 'pg_cancel_backend' ]) {
    my ($what, $function) = @$case;
    for my $point (qw(batch-entered queue-written)) {
        $faults->case($point => 'wait', name => "$point: $what", then => sub {
            $pg->safe_psql("select $function(pid) from pg_stat_activity where query ~ 'enqueue' and pid <> pg_backend_pid()");
        });
    }
}

# What is committed is found, if nobody is told or not. (A commit cannot be ended any more.)
$faults->case('producer-committed' => 'wait', name => 'a producer stands between its commit and the telling', then => sub {
    $faults->pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"meanwhile"')}, env => { PGOPTIONS => '-c ngx_pgq.fault=' });
    ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"meanwhile"'}, 1), 'others are moved meanwhile');
    $faults->set('');
});

# Ids are given out, and not committed: nobody else gives out any.
$faults->case('id-taken' => 'wait', name => 'a mover stands after its first id', then => sub {
    my $last = $pg->safe_psql('select coalesce(max(id), 0) from posts');
    ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover' and wait_event = 'advisory'}, 1),
        'the other mover waits for it');
    is($pg->safe_psql('select coalesce(max(id), 0) from posts'), $last, 'and there is no post meanwhile');
    $faults->set('');
});

$faults->end;

done_testing;
