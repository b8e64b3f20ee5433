# P10: nginx reloads its configuration and is restarted under load: no request fails, each accepted message is in posts once,
# counters do not decrease, and old workers exit after their last request.

use Pgq;
use Pgq::HttpLoad;
use Pgq::StatusMonitor;

my $locations = 'location = /metrics { pgq_metrics; } location = /status { pgq_status; }';
my $pg        = Pgq::Postgres->new->start;
my $nginx     = Pgq::Nginx->new(pg => $pg, workers => 2, pool => 'lanes=1', locations => $locations)->start;

sub waiting { return $nginx->metric('pgq_waiting_tickets{pool="main"}') }
sub accepted { return scalar grep { (($_->answer || {})->{status} // 0) == 202 } @_ }
sub old_exited { return poll_until { 2 == $nginx->worker_pids } $_[0] // 10 }

# ---- reloads under load

# the status is 503 until a new nginx has connected its first lane
poll_until { $nginx->metric('pgq_lanes{pool="main",state="idle"}') == 2 };
my $reloads = 10;
my $load = Pgq::HttpLoad->new($nginx, $pg)->start;
ok($load->wait_for(10), 'messages are accepted before the reloads');

my $exited = 0;
for (1 .. $reloads) {
    $nginx->reload;
    $exited++ if old_exited();
    $load->wait_for(3);
}
is($exited, $reloads, "the old workers exit after each of $reloads reloads");
$load->stop;
diag('reloads: ' . $load->summary);
cmp_ok($load->count('accepted'), '>=', 4 * (10 + 3 * $reloads), 'messages are accepted during the reloads');
is($load->failures, '', 'no request fails during the reloads');
is(join("\n", $load->complaints), '', 'each accepted message is in posts once, and no counter has decreased');
cmp_ok($load->count('resent'), '<=', 2 * $reloads, 'at most one idle connection of each client is closed by a reload');

# ---- the status while new workers connect slowly and the old workers have exited

SKIP: {
    skip 'workers start too slowly', 5 if $ENV{PGQ_VALGRIND};

    $pg->set(pre_auth_delay => 1);
    ok((poll_until { $nginx->metric('pgq_lanes{pool="main",state="idle"}') == 2 }), 'two lanes are connected');
    $nginx->reload;
    my $status = Pgq::StatusMonitor->new($nginx);
    my %status;
    ok((poll_until { $status{ $status->ask }++; $nginx->metric('pgq_lanes{pool="main",state="connecting"}') == 2 && old_exited(0) }),
        'the new workers are not connected when the old workers have exited');
    ok((poll_until { $status{ $status->ask }++; $nginx->metric('pgq_lanes{pool="main",state="idle"}') == 2 }), 'the new workers connect');
    is(join("\n", $status->complaints), '', 'the status is ok for two seconds without a connection');
    cmp_ok($status{200} // 0, '>', 0, 'the status was requested while no lane was connected');
    $pg->set(pre_auth_delay => undef);
}

# ---- requests that began before a reload

my $half = Pgq::Client->new($nginx);
$half->send("POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n\"half");
my $head = Pgq::Client->new($nginx);
$head->send("POST /post HTTP/1.1\r\nHost: x\r\nContent-");
my $idle = Pgq::Client->new($nginx);
Pgq::Client->new($nginx)->get('/nowhere') for 1 .. 4;
my @old = $nginx->worker_pids;
$nginx->reload;
$nginx->wait_for_log(qr/ $_#$_: gracefully shutting down/) for @old;
$half->send(' one"');
$head->send("Length: 3\r\n\r\n\"a\"");
$idle->send_post('/post', '"idle"');
for my $case ([ 'with half of its body', $half ], [ 'with half of its header', $head ], [ 'on an open connection', $idle ]) {
    my ($name, $client) = @$case;
    my $answer = $client->answer;
    is($answer && $answer->status, 202, "a request $name is answered by the old or the new worker");
}
$_->close for $half, $head, $idle;
ok(old_exited(), 'the old workers exit after the requests');

# ---- a reload while tickets wait for a lock

my $lock = $pg->lock_table;
my @waiting = map { Pgq::Client->new($nginx)->send_post('/post', qq("locked $_")) } 1 .. 20;
ok((poll_until { waiting() == 20 }), 'tickets wait for a lock before the reload');
$nginx->configure(pool => 'lanes=3');
ok($nginx->reload, 'new workers start while old workers have tickets');
push @waiting, map { Pgq::Client->new($nginx)->send_post('/post', qq("locked $_")) } 21 .. 40;
ok((poll_until { waiting() == 40 }), 'tickets wait in the old and the new workers for a lock');
$lock->release;
is(accepted(@waiting), 40, 'the old and the new workers answer their tickets');
$_->close for @waiting;
ok(old_exited(), 'the old workers exit after their last answer');
ok($pg->poll_query_until("select count(*) <= 6 from pg_stat_activity where usename = 'ngx_pgq_web'"), 'the lanes of the old workers are closed');
$nginx->configure(pool => 'lanes=1');

# ---- a reload while no ticket waits, with and without a database

$nginx->reload;
ok(old_exited(5), 'idle workers exit at once');
$pg->stop;
$nginx->reload;
ok(old_exited(5), 'idle workers without a database exit at once');
$pg->start;

# ---- two reloads while the server is stopped

$pg->stop;
@waiting = map { Pgq::Client->new($nginx)->send_post('/post', qq("outage $_")) } 1 .. 20;
ok((poll_until { waiting() == 20 }), 'tickets wait in the old workers for the database');
$nginx->reload;
push @waiting, map { Pgq::Client->new($nginx)->send_post('/post', qq("outage $_")) } 21 .. 40;
ok((poll_until { waiting() == 40 }), 'tickets wait in the old and the new workers for the database');
$nginx->reload;
cmp_ok(scalar($nginx->worker_pids), '>=', 4, 'workers with tickets do not exit');
is(waiting(), 40, 'no ticket is lost in two reloads');
$pg->start;
is(accepted(@waiting), 40, 'the tickets are accepted when the database is started');
$_->close for @waiting;
ok(old_exited(), 'the workers exit after their tickets were answered');
ok((poll_until { $pg->count_posts('"outage %') == 40 }), 'each message that waited for the database is a post');

# ---- worker_shutdown_timeout

$nginx->configure(main => 'worker_shutdown_timeout 1s;');
$nginx->reload;
old_exited();
$lock = $pg->lock_table;
@waiting = map { Pgq::Client->new($nginx)->send_post('/post', qq("cut $_")) } 1 .. 10;
ok((poll_until { waiting() == 10 }), 'tickets wait for a lock before the reload');
$nginx->reload;
ok(old_exited(15), 'the old workers exit after worker_shutdown_timeout');
is((grep { $_->closed } @waiting), 10, 'the tickets of exited workers are not answered');
is(waiting(), 0, 'the tickets of exited workers do not wait');
$lock->release;
ok($pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web'", 2), 'the connections of exited workers are closed');
ok($pg->wait_until_moved, 'the messages that exited workers had sent are moved');
is($pg->safe_psql("select count(*) from (select from posts where data::text like '\"cut %' group by data::text having count(*) > 1) t"),
    0, 'each message that exited workers had sent is a post at most once');
$nginx->configure(main => '');
$nginx->reload;
old_exited();

# ---- a graceful stop (QUIT)

$lock = $pg->lock_table;
@waiting = map { Pgq::Client->new($nginx)->send_post('/post', qq("graceful $_")) } 1 .. 10;
ok((poll_until { waiting() == 10 }), 'tickets wait for a lock before the graceful stop');
my $position = $nginx->log_position;
kill 'QUIT', $nginx->pid;
$nginx->wait_for_log(qr/gracefully shutting down/, $position);
$lock->release;
is(accepted(@waiting), 10, 'the tickets are accepted during a graceful stop');
is($nginx->stop, 0, 'nginx exits with status 0 after a graceful stop');
$nginx->start;

# ---- a fast stop (TERM)

$lock = $pg->lock_table;
@waiting = map { Pgq::Client->new($nginx)->send_post('/post', qq("fast $_")) } 1 .. 10;
ok((poll_until { waiting() == 10 }), 'tickets wait for a lock before the fast stop');
is($nginx->stop('TERM', 5), 0, 'nginx exits with status 0 after a fast stop');
is((grep { $_->closed } @waiting), 10, 'the tickets are not answered by a fast stop');
$lock->release;
ok($pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web'", 0), 'no connection remains after a fast stop');
ok($pg->wait_until_moved, 'the messages that were sent before the fast stop are moved');
is($pg->safe_psql("select count(*) from (select from posts where data::text like '\"fast %' group by data::text having count(*) > 1) t"),
    0, 'each message that was sent before the fast stop is a post at most once');
$nginx->start;

# ---- restarts under load: the clients connect again

my $restarts = 4;
$load = Pgq::HttpLoad->new($nginx, $pg, reconnects => 1, watch => 0)->start;
$load->wait_for(10);
my $good = 0;
for (1 .. $restarts) {
    $good++ if defined $nginx->stop && $nginx->start;
    $load->wait_for(5);
}
is($good, $restarts, "nginx is restarted $restarts times");
$load->stop;
diag('restarts: ' . $load->summary);
is($load->failures, '', 'no request that began fails during the restarts');
is(join("\n", $load->complaints), '', 'each accepted message is in posts once after the restarts');

done_testing;
