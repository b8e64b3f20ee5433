# A lane that has reached lane_age, or whose buffers have grown, is replaced. No request fails, and the old connection is
# closed only after the new one is established.

use Pgq;
use Pgq::Wire;
use Time::HiRes qw(time);

my $pg = Pgq::Postgres->new->start;

sub left { return scalar(() = $_[0]->log_since(0) =~ /pgq lane: replaced/g) }

subtest 'a busy lane is replaced' => sub {
    my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 lane_age=300ms', timeout => '20s',
        locations => 'location = /status { pgq_status; }')->start;
    my $client = Pgq::Client->new($nginx);
    my %status = (202 => 0, 200 => 0);
    my %pids;

    ok((poll_until {
        $status{ $client->post('/post', '"used"')->status }++;
        $status{ $client->get('/status')->status }++;
        return left($nginx) >= 5;
    }), 'lanes are replaced while requests are sent');

    is(join(' ', sort keys %status), '200 202', 'each request is answered, and the pool is always connected');
    unlike($nginx->log_since(0), qr/pgq lane: (?:lost|could not connect)/, 'no lane is lost');
    my $posts = $status{202};
    ok($pg->poll_query_until('select count(*) from posts', $posts), 'each message is a post once');
    cmp_ok(scalar(my @now = $pg->web_sessions), '<=', 2, 'there is at most one connection more than lanes');
    $nginx->stop;
};

subtest 'idle lanes are replaced one at a time' => sub {
    my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=3 lane_age=1s')->start;

    my @first;
    ok((poll_until { (@first = $pg->web_sessions) == 3 }), 'three lanes are connected');
    my %first = map { $_ => 1 } @first;
    ok((poll_until { !grep { $first{$_} } $pg->web_sessions }), 'all lanes are replaced');
    ok((poll_until { left($nginx) >= 6 }), 'the lanes are replaced again');

    my @lines = $nginx->log_since(0) =~ /pgq lane: (connected|replaced)/g;
    like(join(' ', @lines), qr/^connected connected connected(?: connected replaced)+(?: connected)?$/, 'the lanes are replaced one at a time, each after its replacement is connected');
    my @ages = $nginx->log_since(0) =~ /pgq lane: replaced \S+ after (\d+) ms/g;
    cmp_ok((sort { $a <=> $b } @ages)[0], '>=', 900, 'no lane is replaced before lane_age');
    my %ages = map { $_ => 1 } @ages[0 .. 2];
    cmp_ok(scalar(keys %ages), '>', 1, 'the lanes are not replaced at the same time');
    $nginx->stop;
};

subtest 'a lane is replaced after its statement has ended' => sub {
    my $wire  = Pgq::Wire->new($pg)->start;
    my $nginx = Pgq::Nginx->new(conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=1 lane_age=500ms')->start;
    my $client = Pgq::Client->new($nginx);

    $wire->plan({ in => 'enqueue', before => 'ReadyForQuery', do => 'hold', for => 2 });
    my $position = $nginx->log_position;
    $client->send_post('/post', '"long"');
    ok($nginx->wait_for_log(qr/pgq lane: connected/, $position), 'the replacement is connected');
    is(Pgq::Client->new($nginx)->post('/post', '"short"')->status, 202, 'a message is accepted over the replacement');
    unlike($nginx->log_since($position), qr/pgq lane: replaced \S+ after (?:[2-9]\d{3}|\d{5,}) ms/, 'the old lane is not closed during its statement');
    is($client->answer->status, 202, 'the statement on the old lane is completed');
    is(scalar(grep { /long/ } split /\n/, $pg->safe_psql('select data from posts')), 1, 'the message on the old lane is a post once')
        if $pg->poll_query_until(q{select count(*) from posts where data::text in ('"long"', '"short"')}, 2);
    ok($nginx->wait_for_log(qr/pgq lane: replaced \S+ after (?:[2-9]\d{3}|\d{5,}) ms/, $position), 'the old lane is closed after its statement');
    $nginx->stop;
    $wire->stop;
};

subtest 'a lane is kept while its replacement cannot connect' => sub {
    my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 lane_age=300ms')->start;
    my $client = Pgq::Client->new($nginx);

    is($client->post('/post', '"one"')->status, 202, 'a message is accepted before the connection limit');
    $pg->safe_psql('alter role ngx_pgq_web connection limit 1');
    my $position = $nginx->log_position;
    ok($nginx->wait_for_log(qr/pgq lane: could not connect to .*retry in 60000 ms: .*too many connections for role/, $position), 'the replacement is refused');
    my @pids = $pg->web_sessions;
    is($client->post('/post', '"alone"')->status, 202, 'a message is accepted over the old lane');
    is_deeply([ $pg->web_sessions ], \@pids, 'the old lane is not closed');
    $pg->terminate_web_sessions;
    is($client->post('/post', '"after"')->status, 202, 'a new lane connects after the old one is lost');
    $pg->safe_psql('alter role ngx_pgq_web connection limit -1');
    $nginx->stop;
};

subtest 'a lane whose buffers have grown is replaced' => sub {
    my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 lane_age=0 size=256m',
        locations => 'client_max_body_size 64m; client_body_buffer_size 64m;')->start;
    my ($worker) = $nginx->worker_pids;
    my $memory = sub { Pgq::Host::slurp("/proc/$worker/status") =~ /^VmRSS:\s+(\d+)/m ? $1 / 1024 : 0 };

    is(Pgq::Client->new($nginx)->post('/post', '"small"')->status, 202, 'a small message is accepted');
    my $before = $memory->();
    is(Pgq::Client->new($nginx)->post('/post', '"' . 'x' x 40e6 . '"', Prefer => 'return=minimal')->status, 202, 'a large message is accepted');
    my $after = $memory->();
    ok($nginx->wait_for_log(qr/pgq lane: replaced/), 'the lane is replaced after a large message');

    SKIP: {
        skip 'sanitizers and valgrind keep freed memory', 2 if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};
        cmp_ok($after, '>', $before + 35, 'the large message has used memory');
        ok((poll_until { $memory->() < $before + 10 } 10), 'the memory is freed with the lane');
    }

    is(left($nginx), 1, 'the lane is replaced once');
    $nginx->stop;
};

subtest 'idle_session_timeout does not end the lanes' => sub {
    $pg->safe_psql(q{alter database posts set idle_session_timeout = '200ms'});
    my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=2', timeout => '20s')->start;
    is(Pgq::Client->new($nginx)->post('/post', '"idle"')->status, 202, 'a message is accepted');
    is(Pgq::Client->new($nginx)->get('/get')->status, 200, 'a GET is answered');
    my @before = $pg->web_sessions;

    for (1 .. 2) {
        my $position = $pg->log_position;
        my $other    = $pg->session;
        ok($pg->wait_for_log(qr/terminating connection due to idle-session timeout/, $position), 'the server ends another session that is idle');
        eval { $other->quit };
    }

    is(join(' ', $pg->web_sessions), join(' ', @before), 'the lanes have the same connections');
    $nginx->stop;
};

done_testing;
