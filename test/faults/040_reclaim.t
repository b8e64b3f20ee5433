# When a mover fails, the messages that it has claimed are claimed again at once. idle_interval is one hour, and no other
# commit wakes a mover.

use Pgq;
use Pgq::FaultPoints;

my $faults = Pgq::FaultPoints->new(conf => "ngx_pgq.idle_interval = '1h'\n");
my $pg     = $faults->pg;

sub posted {
    my ($name) = @_;
    $pg->safe_psql(qq{select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"$name"'])});
    return $pg->poll_query_until(qq{select count(*) from posts where data::text = '"$name"'}, 1, 5);
}

ok(posted('first'), 'a mover moves a message');

for my $point (qw(span-taken rows-taken claimed posting-locked id-taken posts-written notified batch-finished)) {
    for my $action (qw(error fatal)) {
        $faults->arm($point => $action);
        ok(posted("$point $action"), "$point, $action: the message is posted");
        ok((poll_until { $faults->happened($point) }), "$point, $action: the mover has failed");
    }
}

# more messages than a batch
$pg->safe_psql('alter system set ngx_pgq.batch_size = 3');
for my $point ('', 'posts-written', 'claimed') {
    $faults->arm($point => 'error') if $point;
    $pg->safe_psql(q{truncate posts; select * from ngx_pgq.enqueue(gen_random_uuid(),
        (select array_agg(gen_random_uuid()) from generate_series(1, 400)),
        (select array_agg(to_json(repeat('x', 300))::text) from generate_series(1, 400)))});
    ok($pg->poll_query_until('select count(*) from posts', 400, 5), 'more messages than a batch are posted ' . ($point ? "after a failure at $point" : 'without a failure'));
}
$pg->safe_psql('alter system reset ngx_pgq.batch_size');

# a mover that fails in a sweep
for my $point (qw(sweep-started sweep-noted)) {
    $faults->arm($point => 'error');
    $pg->safe_psql(qq{insert into ngx_pgq.queue (data) values ('"$point"')});
    ok($pg->poll_query_until(qq{select count(*) from posts where data::text = '"$point"'}, 1, 5), "$point, error: the message is posted");
    ok($faults->happened($point), "$point, error: the mover has failed");
}

# The SQLSTATE is that of a bad message, but the message passes alone: bisection makes no dead letter of it.
for my $code (qw(22P02 23505 P0001)) {
    $faults->arm('id-taken' => $code);
    ok(posted("together $code"), "$code: the message is posted by bisection");
    ok($faults->happened('id-taken'), "$code: the batch has failed");
}

# The SQLSTATE is that of a server error, and the batch has one message.
$pg->set('ngx_pgq.batch_size' => 1);
for my $code (qw(40001 40P01 42501 53100 53200 55P03 57014 57P01 58030 25006 XX000 XX001)) {
    $faults->arm('id-taken' => $code);
    ok(posted("alone $code"), "$code, alone: the message is posted by a retry");
    ok($faults->happened('id-taken'), "$code, alone: the batch has failed");
}
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'there is no dead letter');
is($pg->safe_psql('select count(*) - count(distinct message_id) from posts'), 0, 'no message is posted twice');

$faults->end;

done_testing;
