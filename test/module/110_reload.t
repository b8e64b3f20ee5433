# Reload and graceful stop: nobody who was let in is turned away, and nothing is left behind.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, workers => 2, pool => 'lanes=1', timeout => '20s')->start;

sub waiting {
    my ($message) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', '/post', body => "\"$message\"", headers => { 'Content-Type' => 'application/json' }));
    return $client;
}

my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
my @waiting = map { waiting("over a reload $_") } 1 .. 20;
$pg->poll_query_until("select count(*) > 0 from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'");

$nginx->configure(pool => 'lanes=3', timeout => '20s');
ok($nginx->reload, 'new workers start while old ones wait');
push @waiting, map { waiting("after it $_") } 1 .. 20;
Pgq::Client->new($nginx)->get('/nowhere');
$lock->query('commit');
is((grep { (($_->answer || {})->{status} // 0) == 202 } @waiting), 40, 'old workers and new ones answer');
ok((poll_until { 2 == $nginx->worker_pids }), 'old workers leave');
ok($pg->poll_query_until("select count(*) <= 6 from pg_stat_activity where usename = 'ngx_pgq_web'"), 'with their lanes');

# an idle old worker leaves at once, whatever the timeout
Pgq::Client->new($nginx)->post('/post', '"idle"');
$nginx->reload;
ok((poll_until { 2 == $nginx->worker_pids } 5), 'an idle worker leaves at once');

# so does one without a database
$pg->stop;
$nginx->reload;
ok((poll_until { 2 == $nginx->worker_pids } 5), 'a worker without a database leaves at once');
$pg->start;

$lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
@waiting = map { waiting("over the end $_") } 1 .. 10;
$pg->poll_query_until("select count(*) > 0 from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'");
kill 'QUIT', $nginx->pid;
$nginx->wait_for_log(qr/gracefully shutting down/);
$lock->query('commit');
$lock->quit;
is((grep { (($_->answer || {})->{status} // 0) == 202 } @waiting), 10, 'a graceful stop waits for what was begun');
is($nginx->stop, 0, 'and ends well');

done_testing;
