# P10: the binary is replaced under load, the way nginx's manual has it (USR2, WINCH, QUIT), and back (HUP, QUIT): no
# request fails, each message that was accepted is in posts once, and what waits is answered by the workers it waits in.

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

sub posting {
    my ($message) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', '/post', body => "\"$message\"", headers => { 'Content-Type' => 'application/json' }));
    return $client;
}

sub metric {
    my ($name) = @_;
    return Pgq::Client->new($nginx)->get('/metrics')->body =~ /^\Q$name\E (\d+)$/m ? $1 : -1;
}

# ---- under load

my $upgrades = 3;
my $load  = Pgq::HttpLoad->new($nginx, $pg, watch => 0)->start;
ok($load->wait_for(10), 'a load');

my $good = 0;
for (1 .. $upgrades) {
    $good++ if $nginx->upgrade && -e $nginx->dir . '/nginx.pid' && !-e $nginx->dir . '/nginx.pid.oldbin';
    $load->wait_for(5);
}
is($good, $upgrades, "$upgrades times another binary");

my $old = $nginx->new_binary;
my $new = $nginx->pid;
ok($old, 'another one is tried');
$nginx->dismiss_workers($old);
ok((poll_until { !$nginx->old_workers($old) }), 'the old workers leave');
my $counted = metric('pgq_messages_total');
$load->wait_for(5);
cmp_ok(metric('pgq_messages_total'), '>', $counted, 'all messages come to the new ones');
kill 'HUP', $old;
ok((poll_until { 2 == $nginx->old_workers($old) }), 'the old workers are back');
ok($nginx->retire($new), 'the new ones leave');
$nginx->{pid} = $old;
$load->wait_for(5);
is(Pgq::Host::slurp($nginx->dir . '/nginx.pid') + 0, $old, 'it is the old binary again');
ok($nginx->upgrade, 'and one more time another');
$load->wait_for(5);
$load->stop;
diag($load->summary);
is($load->failures, '', 'no request fails');
is(join("\n", $load->complaints), '', 'no message is lost, none is there twice');

# ---- with tickets that wait

my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
my @waiting = map { posting($_) } 1 .. 20;
ok((poll_until { metric('pgq_waiting_tickets{pool="main"}') == 20 }), 'tickets wait in the old workers');

$old = $nginx->new_binary;
$nginx->dismiss_workers($old);
my @old = $nginx->old_workers($old);
$nginx->wait_for_log(qr/ $_#$_: gracefully shutting down/) for @old;
ok((poll_until { metric('pgq_connects_total{pool="main"}') == 2 }), 'a new binary counts from zero');
kill 'QUIT', $old;
push @waiting, map { posting($_) } 21 .. 40;
ok((poll_until { metric('pgq_waiting_tickets{pool="main"}') == 20 }), 'more wait in its workers');
ok(scalar(grep { Pgq::Host::alive($_) } @old), 'the old workers stay');
$lock->query('commit');
$lock->quit;
is((grep { (($_->answer || {})->{status} // 0) == 202 } @waiting), 40, 'all are accepted');
$_->close for @waiting;
ok(defined Pgq::Host::ended($old, 20), 'then the old master leaves');
ok($pg->poll_query_until("select count(*) from posts where data::text ~ '^\"[0-9]+\"\$'", 40), 'and all are posts');
is($pg->safe_psql('select count(*) - count(distinct data::text) from posts'), 0, 'once');

done_testing;
