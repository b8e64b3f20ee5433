# P10: the binary is replaced under load as in nginx's manual (USR2, WINCH, QUIT), and rolled back (HUP, QUIT): no request
# fails, each accepted message is in posts once, and waiting tickets are answered by the workers that hold them.

use Pgq;
use Pgq::HttpLoad;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    workers   => 2,
    daemon    => 'on',
    pool      => 'lanes=1',
    main      => join(' ', map { "env $_;" } qw(LD_PRELOAD ASAN_OPTIONS UBSAN_OPTIONS)),
    locations => 'location = /metrics { pgq_metrics; }',
)->start;

# ---- upgrades under load

my $upgrades = 3;
my $load  = Pgq::HttpLoad->new($nginx, $pg, watch => 0)->start;
ok($load->wait_for(10), 'messages are accepted before the upgrades');

my $good = 0;
for (1 .. $upgrades) {
    $good++ if $nginx->upgrade && -e $nginx->dir . '/nginx.pid' && !-e $nginx->dir . '/nginx.pid.oldbin';
    $load->wait_for(5);
}
is($good, $upgrades, "the binary is upgraded $upgrades times");

my $old = $nginx->new_binary;
my $new = $nginx->pid;
ok($old, 'another upgrade begins');
$nginx->stop_workers($old);
ok((poll_until { !$nginx->old_workers($old) }), 'the old workers exit');
my $counted = $nginx->metric('pgq_messages_total');
$load->wait_for(5);
cmp_ok($nginx->metric('pgq_messages_total'), '>', $counted, 'the new workers accept messages');
kill 'HUP', $old;
ok((poll_until { 2 == $nginx->old_workers($old) }), 'the old workers are started again');
ok($nginx->quit_master($new), 'the new workers exit');
$nginx->{pid} = $old;
$load->wait_for(5);
is(Pgq::Host::slurp($nginx->dir . '/nginx.pid') + 0, $old, 'the old master is the only one after the rollback');
ok($nginx->upgrade, 'the binary is upgraded after the rollback');
$load->wait_for(5);
$load->stop;
diag($load->summary);
is($load->failures, '', 'no request fails during the upgrades');
is(join("\n", $load->complaints), '', 'each accepted message is in posts once');

# ---- an upgrade while tickets wait

my $lock = $pg->lock_table;
my @waiting = map { Pgq::Client->new($nginx)->send_post('/post', qq("$_")) } 1 .. 20;
ok((poll_until { $nginx->metric('pgq_waiting_tickets{pool="main"}') == 20 }), 'tickets wait in the old workers');

$old = $nginx->new_binary;
$nginx->stop_workers($old);
my @old = $nginx->old_workers($old);
$nginx->wait_for_log(qr/ $_#$_: gracefully shutting down/) for @old;
ok((poll_until { $nginx->metric('pgq_connects_total{pool="main"}') == 2 }), 'the counters of the new binary start at zero');
kill 'QUIT', $old;
push @waiting, map { Pgq::Client->new($nginx)->send_post('/post', qq("$_")) } 21 .. 40;
ok((poll_until { $nginx->metric('pgq_waiting_tickets{pool="main"}') == 20 }), 'tickets wait in the new workers');
ok(scalar(grep { Pgq::Host::alive($_) } @old), 'the old workers with tickets do not exit');
$lock->release;
is((grep { (($_->answer || {})->{status} // 0) == 202 } @waiting), 40, 'the tickets of old and new workers are accepted');
$_->close for @waiting;
ok(defined Pgq::Host::ended($old, 20), 'the old master exits after its tickets were answered');
ok($pg->poll_query_until("select count(*) from posts where data::text ~ '^\"[0-9]+\"\$'", 40), 'each message that waited is a post');
is($pg->safe_psql('select count(*) - count(distinct data::text) from posts'), 0, 'no message that waited is a post twice');

done_testing;
