# What a mover had claimed when it failed is claimed again at once: nobody looks around in this server, and nothing else
# is committed that would have a mover look there.

use Pgq;
use Pgq::FaultPoints;

my $faults = Pgq::FaultPoints->new(conf => "ngx_pgq.idle_interval = '1h'\n");
my $pg     = $faults->pg;

sub posted {
    my ($name) = @_;
    $pg->safe_psql(qq{select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"$name"'])});
    return $pg->poll_query_until(qq{select count(*) from posts where data::text = '"$name"'}, 1, 5);
}

ok(posted('first'), 'a mover works');

for my $point (qw(span-taken rows-taken claimed posting-locked id-taken posts-written notified batch-finished)) {
    for my $action (qw(error fatal)) {
        $faults->arm($point => $action);
        ok(posted("$point $action"), "$point: $action");
        ok((poll_until { $faults->happened($point) }), 'it had happened');
    }
}

# more than a batch: what it leaves behind it gives back at once, and what failed when it failed
$pg->safe_psql('alter system set ngx_pgq.batch_size = 3');
for my $point ('', 'posts-written', 'claimed') {
    $faults->arm($point => 'error') if $point;
    $pg->safe_psql(q{truncate posts; select * from ngx_pgq.enqueue(gen_random_uuid(),
        (select array_agg(gen_random_uuid()) from generate_series(1, 400)),
        (select array_agg(to_json(repeat('x', 300))::text) from generate_series(1, 400)))});
    ok($pg->poll_query_until('select count(*) from posts', 400, 5), "more than a batch is moved $point");
}
$pg->safe_psql('alter system reset ngx_pgq.batch_size');

# the one that looks through all of it fails: it, or another, looks again
for my $point (qw(sweep-started sweep-noted)) {
    $faults->arm($point => 'error');
    $pg->safe_psql(qq{insert into ngx_pgq.queue (data) values ('"$point"')});
    ok($pg->poll_query_until(qq{select count(*) from posts where data::text = '"$point"'}, 1, 5), "$point: error");
    ok($faults->happened($point), 'it had happened');
}

# an error that is a message's fault makes no dead letter of a message that is good when it stands alone
for my $code (qw(22P02 23505 P0001)) {
    $faults->arm('id-taken' => $code);
    ok(posted("together $code"), "$code: the batch is halved");
    ok($faults->happened('id-taken'), 'it had happened');
}

# nor does one that is nobody's fault
$pg->safe_psql("alter system set ngx_pgq.batch_size = 1; select pg_reload_conf()");
for my $code (qw(40001 40P01 42501 53100 53200 55P03 57014 57P01 58030 25006 XX000 XX001)) {
    $faults->arm('id-taken' => $code);
    ok(posted("alone $code"), "$code is tried again");
    ok($faults->happened('id-taken'), 'it had happened');
}
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'no message was blamed');
is($pg->safe_psql('select count(*) - count(distinct message_id) from posts'), 0, 'none is there twice');

$faults->end;

done_testing;
