# Metrics and status of several pools, of more than 16 pools and of no pool, and of pools whose names have special
# characters. Outcomes of failed requests in the access log.

use Pgq;

my $locations = 'location = /metrics { pgq_metrics; } location = /status { pgq_status; }';
my $pg        = Pgq::Postgres->new->start;
my $conninfo  = $pg->conninfo(user => 'ngx_pgq_web');
my $down      = 'host=' . $pg->socket . ' port=1 user=absent dbname=none';

sub page { my ($nginx) = @_; return Pgq::Client->new($nginx)->get('/metrics')->body }

# ---- two pools; one has no database, and a name with a quote and a backslash
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pools     => qq{pgq_pool main "$conninfo" lanes=3; pgq_pool 'a"b\\\\c' "$down" lanes=1;}, timeout => '20s',
    locations => $locations,
    workers   => 2,
)->start;

ok((poll_until { page($nginx) =~ /^pgq_lanes\{pool="main",state="idle"\} 6$/m }), 'the lanes of a pool are counted');
ok((poll_until { page($nginx) =~ /^pgq_failed_connects_total\{pool="a\\"b\\\\c"\} [1-9]\d*$/m }), "failed connects are counted under the pool's name");
like(page($nginx), qr/^pgq_failed_connects_total\{pool="main"\} 0$/m, 'failed connects of another pool are not counted');
like(page($nginx), qr/^pgq_connects_total\{pool="a\\"b\\\\c"\} 0$/m, 'a pool without a database has no connects');

my $answer = Pgq::Client->new($nginx)->get('/status');
is($answer->status, 503, 'the status is 503 when one of two pools has no database');
is(join(' ', map { "$_->{name} $_->{status} $_->{connected} of $_->{lanes}" } @{ $answer->json->{pools} }),
    'main ok 6 of 6 a"b\c unavailable 0 of 2', 'the status has the lanes of each pool');

# ---- a pool that is removed from the configuration
$nginx->configure(pools => qq{pgq_pool main "$conninfo" lanes=1;}, timeout => '20s');
$nginx->reload;
ok((poll_until { page($nginx) =~ /^pgq_lanes\{pool="main",state="idle"\} 2$/m }), 'the lanes of the new configuration are counted after a reload');
unlike(page($nginx), qr/absent|a\\"b/, 'a pool that was removed from the configuration is not shown');
is(Pgq::Client->new($nginx)->get('/status')->status, 200, 'a pool that was removed from the configuration does not affect the status');

# ---- more pools than places in shared memory
$nginx->configure(pools => qq{pgq_pool main "$conninfo" lanes=1;} . join '', map { qq{pgq_pool p$_ "$conninfo" lanes=1;} } 1 .. 20);
$nginx->reload;
ok((poll_until { page($nginx) =~ /^pgq_lanes\{pool="other",state="idle"\} 14$/m }), 'the pools after the last place are counted as other');
like(page($nginx), qr/^pgq_lanes\{pool="p13",state="idle"\} 2$/m, 'the pools before the last place are counted by their names');
is(scalar(() = page($nginx) =~ /^pgq_waiting_tickets\{pool="other"\}/mg), 1, 'the pools after the last place are shown once');

# ---- waiting tickets of a worker that is killed
$nginx->configure(pools => qq{pgq_pool main "$conninfo" lanes=1;}, timeout => '20s', workers => 1);
$nginx->reload;
ok((poll_until { 1 == $nginx->worker_pids }), 'one worker remains after a reload');
my $lock = $pg->lock_table;
my @clients = map { Pgq::Client->new($nginx)->send_post('/post', '1') } 1 .. 5;
ok((poll_until { page($nginx) =~ /^pgq_waiting_tickets\{pool="main"\} 5$/m }), 'five tickets wait');
$nginx->allow(qr/exited on signal 9/);
my ($killed) = $nginx->worker_pids;
kill 'KILL', $killed;
ok((poll_until { my ($pid) = $nginx->worker_pids; $pid && $pid != $killed }), 'the worker of the waiting tickets is killed and replaced');
like(page($nginx), qr/^pgq_waiting_tickets\{pool="main"\} 0$/m, 'waiting tickets of a killed worker are not counted');
like(page($nginx), qr/^pgq_waiting_bytes\{pool="main"\} 0$/m, 'bytes of waiting tickets of a killed worker are not counted');

# ---- waiting tickets of an old worker that is killed after a reload
@clients = map { Pgq::Client->new($nginx)->send_post('/post', '1') } 1 .. 3;
ok((poll_until { page($nginx) =~ /^pgq_waiting_tickets\{pool="main"\} 3$/m }), 'three tickets wait');
($killed) = $nginx->worker_pids;
$nginx->reload;
like(page($nginx), qr/^pgq_waiting_tickets\{pool="main"\} 3$/m, 'waiting tickets of an old worker are counted');
like(page($nginx), qr/^pgq_workers 2$/m, 'an old worker with waiting tickets is counted');
kill 'KILL', $killed;
ok((poll_until { page($nginx) =~ /^pgq_waiting_tickets\{pool="main"\} 0$/m }), 'waiting tickets of a killed old worker are not counted');
like(page($nginx), qr/^pgq_workers 1$/m, 'a killed old worker is not counted');
$lock->release;
$nginx->stop;

# ---- failed outcomes in the access log
$nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'lanes=1 tickets=1', timeout => '1s',
    http      => q{log_format pgq '[$status|$pgq_id|$pgq_batch|$pgq_outcome]';},
    server    => 'access_log pgq.log pgq;',
    locations => $locations,
)->start;
is(Pgq::Client->new($nginx)->post('/post', '1')->status, 202, 'a message is accepted before the queue is locked');
$lock = $pg->lock_table;
my $client = Pgq::Client->new($nginx)->send_post('/post', '2');
ok((poll_until { page($nginx) =~ /^pgq_lanes\{pool="main",state="busy"\} 1$/m }), 'a message is in flight');
is(Pgq::Client->new($nginx)->post('/post', '3')->status, 503, 'a message is refused while another one is in flight');
is($client->answer->status, 504, 'a message whose outcome is unknown is answered with 504');
my $left = Pgq::Client->new($nginx)->send_post('/post', '4');
ok((poll_until { page($nginx) =~ /^pgq_waiting_tickets\{pool="main"\} 1$/m }), 'a message waits for the lane');
$left->close;
ok((poll_until { page($nginx) =~ /^pgq_requests_total\{handler="post",code="499"\} 1$/m }), 'a request whose client has left is counted with 499');
like(page($nginx), qr/^pgq_waiting_tickets\{pool="main"\} 0$/m, 'the ticket of a client that has left does not wait');
$lock->release;

my $log = sub { return Pgq::Host::slurp($nginx->dir . '/pgq.log') };
my $id  = '[0-9a-f-]{36}';
like($log->(), qr/^\[503\|-\|-\|unavailable\]$/m, 'the access log has the outcome unavailable and no id for a full queue');
like($log->(), qr/^\[504\|$id\|1\|unknown\]$/m, 'the access log has the outcome unknown and the id for a message without an answer');
like($log->(), qr/^\[499\|$id\|-\|-\]$/m, 'the access log has no outcome for a client that has left');
like(page($nginx), qr/^pgq_rejects_total\{reason="$_"\} 1$/m, "the reason $_ is counted") for qw(outcome_unknown queue_full);
$nginx->stop;

# ---- no pool, with and without a master process
for my $master (qw(on off)) {
    $nginx = Pgq::Nginx->new(name => "bare_$master", master => $master, config => <<"END")->start;
%%HEAD%%
http {
    access_log off;
    server { listen 127.0.0.1:%%PORT%%; location / { return 404; } $locations }
}
END
    like(page($nginx), qr/^pgq_workers 1$/m, "master_process $master: the metrics are shown without a pool");
    is(Pgq::Client->new($nginx)->get('/status')->body, qq({"status":"ok","workers":1,"pools":[]}\n), "master_process $master: the status is ok without a pool");
    $nginx->stop;
}

done_testing;
