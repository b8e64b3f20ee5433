# Metrics of several pools, of names that need escapes, of too many, of none; and outcomes that are not good.

use Pgq;

my $locations = 'location = /metrics { pgq_metrics; } location = /status { pgq_status; }';
my $pg        = Pgq::Postgres->new->start;
my $conninfo  = $pg->conninfo(user => 'ngx_pgq_web');
my $nobody    = 'host=' . $pg->socket . ' port=1 user=nobody dbname=none';

sub page { my ($nginx) = @_; return Pgq::Client->new($nginx)->get('/metrics')->body }

# two pools, one of them without a database, under a name with a quote and a backslash
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pools     => qq{pgq_pool main "$conninfo" lanes=3; pgq_pool 'a"b\\\\c' "$nobody" lanes=1;}, timeout => '20s',
    locations => $locations,
    workers   => 2,
)->start;

ok((poll_until { page($nginx) =~ /^pgq_lanes\{pool="main",state="idle"\} 6$/m }), 'lanes of one pool');
ok((poll_until { page($nginx) =~ /^pgq_failed_connects_total\{pool="a\\"b\\\\c"\} [1-9]\d*$/m }), 'another fails, under its own name');
like(page($nginx), qr/^pgq_failed_connects_total\{pool="main"\} 0$/m, 'for itself');
like(page($nginx), qr/^pgq_connects_total\{pool="a\\"b\\\\c"\} 0$/m, 'and has no connects');

my $answer = Pgq::Client->new($nginx)->get('/status');
is($answer->status, 503, 'one pool without a database is a reason for 503');
is(join(' ', map { "$_->{name} $_->{status} $_->{connected} of $_->{lanes}" } @{ $answer->json->{pools} }),
    'main ok 6 of 6 a"b\c unavailable 0 of 2', 'which says which');

# a pool that is configured no more is not shown; one that comes back goes on
$nginx->configure(pools => qq{pgq_pool main "$conninfo" lanes=1;}, timeout => '20s');
$nginx->reload;
ok((poll_until { page($nginx) =~ /^pgq_lanes\{pool="main",state="idle"\} 2$/m }), 'fewer lanes after a reload');
unlike(page($nginx), qr/nobody|a\\"b/, 'a pool that is no more is not shown');
is(Pgq::Client->new($nginx)->get('/status')->status, 200, 'nor waited for');

# more pools than there are places
$nginx->configure(pools => qq{pgq_pool main "$conninfo" lanes=1;} . join '', map { qq{pgq_pool p$_ "$conninfo" lanes=1;} } 1 .. 20);
$nginx->reload;
ok((poll_until { page($nginx) =~ /^pgq_lanes\{pool="other",state="idle"\} 14$/m }), 'pools past the last place share it');
like(page($nginx), qr/^pgq_lanes\{pool="p13",state="idle"\} 2$/m, 'those before do not');
is(scalar(() = page($nginx) =~ /^pgq_waiting_tickets\{pool="other"\}/mg), 1, 'which is shown once');

# waiting requests of a worker that is killed wait no more
$nginx->configure(pools => qq{pgq_pool main "$conninfo" lanes=1;}, timeout => '20s', workers => 1);
$nginx->reload;
ok((poll_until { 1 == $nginx->worker_pids }), 'one worker');
my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
my @clients = map { my $c = Pgq::Client->new($nginx); $c->send($c->request('POST', '/post', body => '1')); $c } 1 .. 5;
ok((poll_until { page($nginx) =~ /^pgq_waiting_tickets\{pool="main"\} 5$/m }), 'five requests wait');
$nginx->allow(qr/exited on signal 9/);
my ($victim) = $nginx->worker_pids;
kill 'KILL', $victim;
ok((poll_until { my ($pid) = $nginx->worker_pids; $pid && $pid != $victim }), 'their worker is killed');
like(page($nginx), qr/^pgq_waiting_tickets\{pool="main"\} 0$/m, 'and they wait no more');
like(page($nginx), qr/^pgq_waiting_bytes\{pool="main"\} 0$/m, 'nor their bytes');

# nor do those of an old worker, whose place nobody takes
@clients = map { my $c = Pgq::Client->new($nginx); $c->send($c->request('POST', '/post', body => '1')); $c } 1 .. 3;
ok((poll_until { page($nginx) =~ /^pgq_waiting_tickets\{pool="main"\} 3$/m }), 'three wait');
($victim) = $nginx->worker_pids;
$nginx->reload;
like(page($nginx), qr/^pgq_waiting_tickets\{pool="main"\} 3$/m, 'over a reload');
like(page($nginx), qr/^pgq_workers 2$/m, 'in a worker that leaves');
kill 'KILL', $victim;
ok((poll_until { page($nginx) =~ /^pgq_waiting_tickets\{pool="main"\} 0$/m }), 'until it is killed');
like(page($nginx), qr/^pgq_workers 1$/m, 'and is no more');
$lock->query('commit');
$lock->quit;
$nginx->stop;

# outcomes that are not good, in the access log
$nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'lanes=1 tickets=1', timeout => '1s',
    http      => q{log_format pgq '[$status|$pgq_id|$pgq_batch|$pgq_outcome]';},
    server    => 'access_log pgq.log pgq;',
    locations => $locations,
)->start;
is(Pgq::Client->new($nginx)->post('/post', '1')->status, 202, 'well at first');
$lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
my $client = Pgq::Client->new($nginx);
$client->send($client->request('POST', '/post', body => '2'));
ok((poll_until { page($nginx) =~ /^pgq_lanes\{pool="main",state="busy"\} 1$/m }), 'a message is on its way');
is(Pgq::Client->new($nginx)->post('/post', '3')->status, 503, 'another is too much');
is($client->answer->status, 504, 'the first gets no answer in time');
my $gone = Pgq::Client->new($nginx);
$gone->send($gone->request('POST', '/post', body => '4'));
ok((poll_until { page($nginx) =~ /^pgq_waiting_tickets\{pool="main"\} 1$/m }), 'a third waits');
$gone->close;
ok((poll_until { page($nginx) =~ /^pgq_requests_total\{handler="post",code="499"\} 1$/m }), 'and goes away');
like(page($nginx), qr/^pgq_waiting_tickets\{pool="main"\} 0$/m, 'nobody waits');
$lock->query('commit');
$lock->quit;

my $log = sub { return Pgq::Host::slurp($nginx->dir . '/pgq.log') };
my $id  = '[0-9a-f-]{36}';
like($log->(), qr/^\[503\|-\|-\|unavailable\]$/m, 'a full queue is unavailable, without an id');
like($log->(), qr/^\[504\|$id\|1\|unknown\]$/m, 'no answer is unknown, with its id');
like($log->(), qr/^\[499\|$id\|-\|-\]$/m, 'who goes has no outcome');
like(page($nginx), qr/^pgq_rejects_total\{reason="$_"\} 1$/m, "rejects: $_") for qw(outcome_unknown queue_full);
$nginx->stop;

# without a pool, and without a master
for my $master (qw(on off)) {
    $nginx = Pgq::Nginx->new(name => "bare_$master", master => $master, config => <<"END")->start;
%%HEAD%%
http {
    access_log off;
    server { listen 127.0.0.1:%%PORT%%; location / { return 404; } $locations }
}
END
    like(page($nginx), qr/^pgq_workers 1$/m, "master $master: no pool is no trouble");
    is(Pgq::Client->new($nginx)->get('/status')->body, qq({"status":"ok","workers":1,"pools":[]}\n), 'for the status neither');
    $nginx->stop;
}

done_testing;
