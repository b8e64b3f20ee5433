# P10: nginx reads its configuration anew, and is restarted, under load: no request fails, each message that was
# accepted is in posts once, counters do not fall, and the old workers leave - also when a database that is away, or
# a client that is slow, keeps them for a while.

use Pgq;
use Pgq::HttpLoad;
use Pgq::StatusMonitor;

my $locations = 'location = /metrics { pgq_metrics; } location = /status { pgq_status; }';
my $pg        = Pgq::Postgres->new->start;
my $nginx     = Pgq::Nginx->new(pg => $pg, workers => 2, pool => 'lanes=1', locations => $locations)->start;
my $json      = { 'Content-Type' => 'application/json' };

sub posting {
    my ($message) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', '/post', body => "\"$message\"", headers => $json));
    return $client;
}

sub gauge {
    my ($name) = @_;
    return Pgq::Client->new($nginx)->get('/metrics')->body =~ /^\Q$name\E (\d+)$/m ? $1 : -1;
}

sub waiting { return gauge('pgq_waiting_tickets{pool="main"}') }
sub accepted { return scalar grep { (($_->answer || {})->{status} // 0) == 202 } @_ }
sub only_new { return poll_until { 2 == $nginx->worker_pids } $_[0] // 10 }
sub posts { return $pg->safe_psql("select count(*) from posts where data::text like '\"$_[0] %'") }

# ---- reloads under load

my $reloads = 10;
my $load = Pgq::HttpLoad->new($nginx, $pg)->start;
ok($load->wait_for(10), 'a load');

my $gone = 0;
for (1 .. $reloads) {
    $nginx->reload;
    $gone++ if only_new();
    $load->wait_for(3);
}
is($gone, $reloads, "$reloads reloads, each time the old workers leave");
$load->stop;
diag('reloads: ' . $load->summary);
cmp_ok($load->count('accepted'), '>=', 4 * (10 + 3 * $reloads), 'the load went on');
is($load->failures, '', 'no request fails');
is(join("\n", $load->complaints), '', 'no message is lost, none is there twice, no counter fell');
cmp_ok($load->count('resent'), '<=', 2 * $reloads, 'a kept connection was closed while it was idle, at most once each time');

# ---- the status, while new workers connect slowly and the old ones are gone

SKIP: {
    skip 'workers start too slowly', 5 if $ENV{PGQ_VALGRIND};

    $pg->safe_psql($_) for 'alter system set pre_auth_delay = 1', 'select pg_reload_conf()';
    ok((poll_until { gauge('pgq_lanes{pool="main",state="idle"}') == 2 }), 'two lanes');
    $nginx->reload;
    my $status = Pgq::StatusMonitor->new($nginx);
    my %status;
    ok((poll_until { $status{ $status->ask }++; gauge('pgq_lanes{pool="main",state="connecting"}') == 2 && only_new(0) }),
        'the new workers have none yet, and the old ones are gone');
    ok((poll_until { $status{ $status->ask }++; gauge('pgq_lanes{pool="main",state="idle"}') == 2 }), 'until they have');
    is(join("\n", $status->complaints), '', 'the status is well for two seconds without a connection');
    cmp_ok($status{200} // 0, '>', 0, 'which were seen');
    $pg->safe_psql($_) for 'alter system reset pre_auth_delay', 'select pg_reload_conf()';
}

# ---- requests that have begun

my $half = Pgq::Client->new($nginx);
$half->send("POST /post HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n\"half");
my $head = Pgq::Client->new($nginx);
$head->send("POST /post HTTP/1.1\r\nHost: x\r\nContent-");
my $mute = Pgq::Client->new($nginx);
Pgq::Client->new($nginx)->get('/nowhere') for 1 .. 4;
my @old = $nginx->worker_pids;
$nginx->reload;
$nginx->wait_for_log(qr/ $_#$_: gracefully shutting down/) for @old;
$half->send(' one"');
$head->send("Length: 3\r\n\r\n\"a\"");
$mute->send($mute->request('POST', '/post', body => '"mute"', headers => $json));
for my $case ([ 'of which half the body had come', $half ], [ 'of which half the head had come', $head ], [ 'of which nothing had come', $mute ]) {
    my ($name, $client) = @$case;
    my $answer = $client->answer;
    is($answer && $answer->status, 202, "a request $name is answered by the old worker, or the new");
}
$_->close for $half, $head, $mute;
ok(only_new(), 'then the old workers leave');

# ---- an outage over two reloads

$pg->stop;
my @waiting = map { posting("outage $_") } 1 .. 20;
ok((poll_until { waiting() == 20 }), 'tickets wait for a database');
$nginx->reload;
push @waiting, map { posting("outage $_") } 21 .. 40;
ok((poll_until { waiting() == 40 }), 'in old workers and in new ones');
$nginx->reload;
cmp_ok(scalar($nginx->worker_pids), '>=', 4, 'workers with tickets stay');
is(waiting(), 40, 'with all of them');
$pg->start;
is(accepted(@waiting), 40, 'all are accepted when the database is back');
$_->close for @waiting;
ok(only_new(), 'then the old workers leave');
ok((poll_until { posts('outage') == 40 }), 'and all are posts');

# ---- worker_shutdown_timeout bounds that

$nginx->configure(main => 'worker_shutdown_timeout 1s;');
$nginx->reload;
only_new();
my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
@waiting = map { posting("cut $_") } 1 .. 10;
ok((poll_until { waiting() == 10 }), 'tickets wait on a lock');
$nginx->reload;
ok(only_new(15), 'old workers leave when their time is over');
is((grep { $_->closed } @waiting), 10, 'without an answer to those who wait');
is(waiting(), 0, 'who wait no more');
$lock->query('commit');
$lock->quit;
ok($pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web'", 2), 'nothing of them goes on');
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0), 'whatever they had sent is moved');
is($pg->safe_psql("select count(*) from (select from posts where data::text like '\"cut %' group by data::text having count(*) > 1) t"),
    0, 'and there at most once');
$nginx->configure(main => '');
$nginx->reload;
only_new();

# ---- a fast stop (TERM) answers nobody, and leaves nothing

$lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
@waiting = map { posting("fast $_") } 1 .. 10;
ok((poll_until { waiting() == 10 }), 'tickets wait');
is($nginx->stop('TERM', 5), 0, 'a fast stop ends well');
is((grep { $_->closed } @waiting), 10, 'without an answer');
$lock->query('commit');
$lock->quit;
ok($pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web'", 0), 'and without a connection left');
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0), 'whatever was sent is moved');
is($pg->safe_psql("select count(*) from (select from posts where data::text like '\"fast %' group by data::text having count(*) > 1) t"),
    0, 'and there at most once');
$nginx->start;

# ---- restarts under load: while nobody listens clients come back

my $restarts = 4;
$load = Pgq::HttpLoad->new($nginx, $pg, reconnects => 1, watch => 0)->start;
$load->wait_for(10);
my $good = 0;
for (1 .. $restarts) {
    $good++ if defined $nginx->stop && $nginx->start;
    $load->wait_for(5);
}
is($good, $restarts, "$restarts restarts");
$load->stop;
diag('restarts: ' . $load->summary);
is($load->failures, '', 'no request fails that was begun');
is(join("\n", $load->complaints), '', 'no message is lost, none is there twice');

done_testing;
