# The load client (pgq_load) classifies each way in which a server answers, delays, truncates or closes.

use Pgq;

use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_LINGER);
use Time::HiRes qw(sleep time);

my $uuid = 0;
my @servers;

# An answer with a new id.
sub answer {
    my $body = sprintf '{"status":"queued","id":"%08x-0000-7000-8000-%012x"}', $$, ++$uuid;
    return "HTTP/1.1 202 Accepted\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
}

# A server that calls the code for each request, with the socket, the number of earlier requests on this connection and the
# number of earlier connections. The code returns false to close the connection.
sub server {
    my ($code) = @_;
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 64, ReuseAddr => 1) or die "listen: $!";

    if (my $pid = fork) {
        push @servers, $pid;
        return 'http://127.0.0.1:' . $listener->sockport . '/post';
    }

    setpgrp;
    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
    local $SIG{CHLD} = 'IGNORE';

    for (my $connection = 0; my $socket = $listener->accept; $connection++) {
        next if fork;
        serve($socket, $connection, $code);
        POSIX::_exit(0);
    }

    POSIX::_exit(0);
}

sub serve {
    my ($socket, $connection, $code) = @_;
    my $request = 0;

    $socket->autoflush(1);

    while (defined(my $head = do { local $/ = "\r\n\r\n"; <$socket> })) {
        my ($length) = $head =~ /^Content-Length: (\d+)/mi;
        read $socket, my ($body), $length;
        return if !$code->($socket, $request++, $connection);
    }

    return;
}

sub load {
    my @arguments = @_;
    my ($status, $out, $err) = Pgq::Host::run(
        [ Pgq::Host::build_dir() . '/bench/pgq_load', '--quiet', '--connections', 4, '--messages', 100, @arguments ]);

    return { status => $status, output => "$out$err", $out =~ /^result (\S+) (\S+)$/mg };
}

sub expect {
    my ($name, $result, %expected) = @_;
    my %seen = map { $_ => $result->{$_} } keys %expected;

    is_deeply(\%seen, \%expected, $name) or diag($result->{output});

    return;
}

my $good = server(sub { $_[0]->print(answer()) });
my $result;

# ---- answers

expect('all answers of a good server are acknowledgements', load('--all-ok', $good), status => 0, ok => 100, requests => 100, unknown => 0, retries => 0);

my $bytes = server(sub {
    my ($socket) = @_;
    my ($body) = answer() =~ /(\{.*)/s;

    setsockopt $socket, Socket::IPPROTO_TCP(), Socket::TCP_NODELAY(), 1;
    syswrite $socket, $_
        for split //, sprintf "HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n",
        20, substr($body, 0, 20), length($body) - 20, substr $body, 20;
    return 1;
});

expect('answers in chunks that arrive byte by byte are read', load('--all-ok', $bytes), status => 0, ok => 100, malformed => 0);

my $large = server(sub {
    my ($socket) = @_;
    my $answer = answer();
    $answer =~ s/Content-Length: (\d+)/'Content-Length: ' . ($1 + 300_000)/e;
    $socket->print($answer, 'x' x 300_000);
});

expect('large answers are read', load('--all-ok', $large), status => 0, ok => 100);

my $nonsense = server(sub { $_[0]->print("HTTP/1.1 202 OK\r\nContent-Length: 8\r\n\r\n{\"id\":1}") });

expect('a 202 without an id is malformed', load($nonsense), status => 1, ok => 0, malformed => 100, failed => 100);
expect('with --no-ids a 202 needs no id', load('--no-ids', $nonsense), status => 0, ok => 100, malformed => 0);

my $refuse = server(sub {
    $_[0]->print($_[1] % 2 ? answer() : "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno");
});

expect('a message that is refused with 400 is not sent again', load('--connections', 1, '--retry', 5, $refuse),
    status => 0, ok => 50, refused => 50, refused_400 => 50, failed => 50, retries => 0);
expect('with --all-ok a refused message fails the run', load('--connections', 1, '--all-ok', $refuse), status => 1);

# ---- retries

my $busy = server(sub {
    $_[0]->print($_[1] % 2 ? answer() : "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno");
});

my $began = time;
$result = load('--connections', 1, '--messages', 2, '--retry', 1, '--retry-max-wait', 5, '--all-ok', $busy);
expect('with --retry a message is sent again after 503', $result, status => 0, ok => 2, requests => 4, retries => 2, refused_503 => 2,
    retry_after => 2);
cmp_ok(time - $began, '>=', 2, 'a message is sent again after the time in Retry-After');
cmp_ok($result->{p50_ms}, '>=', 1000, 'the wait for a retry counts as latency');

expect('--retry-max-wait limits the wait for a retry', load('--retry', 1, '--retry-max-wait', 0.01, '--all-ok', $busy),
    status => 0, ok => 100, requests => 200);
expect('without --retry nothing is sent again', load('--connections', 1, $busy),
    status => 0, ok => 50, refused_503 => 50, retries => 0);

my $never = server(sub { $_[0]->print("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno") });

expect('--retry limits the number of retries', load('--messages', 4, '--retry', 3, '--retry-max-wait', 0.02, $never),
    status => 1, ok => 0, requests => 16, retries => 12, failed => 4, refused => 16, retry_after => 0);

# ---- connections that end

my $half = server(sub {
    my ($socket, $request) = @_;
    my $answer = answer();

    $socket->print($request == 4 ? substr $answer, 0, 60 : $answer);
    return $request < 4;
});

$result = load('--retry', 5, '--all-ok', $half);
expect('after a truncated answer the message is sent again', $result, status => 0, ok => 100);
is($result->{$_}, $result->{requests} - 100, "$_: each truncated answer counts") for qw(unknown retries lost_connections);
cmp_ok($result->{unknown}, '>=', 20, 'every fifth answer is truncated');

$result = load($half);
expect('without --retry the outcome of a truncated answer stays unknown', $result, status => 0, retries => 0, requests => 100, ok => 100 - $result->{unknown});

my $reset = server(sub {
    my ($socket, $request) = @_;
    return $socket->print(answer()) if $request < 3;

    setsockopt $socket, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    return 0;
});

expect('after a reset connection the message is sent again', load('--retry', 5, '--all-ok', $reset), status => 0, ok => 100);

my $polite = server(sub {
    my $answer = answer();
    $answer =~ s/\r\n/\r\nConnection: close\r\n/;
    $_[0]->print($answer);
    return 0;
});

expect('a connection that is closed after Connection: close is not lost', load('--all-ok', $polite),
    status => 0, ok => 100, unknown => 0, lost_connections => 0, requests => 100);

my $stall = server(sub { $_[1] == 3 ? sleep 600 : $_[0]->print(answer()) });

$result = load('--timeout', 0.2, '--retry', 2, '--all-ok', $stall);
expect('after a timeout the message is sent again', $result, status => 0, ok => 100);
cmp_ok($result->{unknown}, '>=', 20, 'every fourth answer times out');

my $closed = 'http://127.0.0.1:' . Pgq::Host::free_port() . '/post';

expect('without a server all messages are unsent', load('--give-up', 0.3, $closed), status => 1, ok => 0, requests => 0, unsent => 100, unknown => 0);
$result = load('--all-ok', $closed, $good);
expect('with one of two servers all messages are acknowledged', $result, status => 0, ok => 100, unknown => 0);
cmp_ok($result->{connect_errors}, '>=', 2, 'connections to the closed server are counted as errors');

# ---- time

# A pause of half a second. Counted from the intended start, a hundred messages wait, not one.
my $pause = server(sub { sleep 0.5 if $_[1] == 50; $_[0]->print(answer()) });

$result = load('--connections', 1, '--messages', 200, '--rate', 200, '--all-ok', $pause);
cmp_ok($result->{p90_ms}, '>', 100, 'open loop: latency counts from the intended start');
$result = load('--connections', 1, '--messages', 200, '--all-ok', $pause);
cmp_ok($result->{p90_ms}, '<', 100, 'closed loop: latency counts from the actual start');
cmp_ok($result->{max_ms}, '>=', 500, 'closed loop: the pause is the maximum');

$result = load('--messages', 0, '--seconds', 1, '--rate', 100, $good);
cmp_ok($result->{requests}, '<=', 101, '--rate 100 for a second sends at most 101 messages');
cmp_ok($result->{requests}, '>=', 80, '--rate 100 for a second sends at least 80 messages');

my $dir  = Pgq::Host::temp_dir('signal');
my $load = Pgq::Host::spawn(
    [ Pgq::Host::build_dir() . '/bench/pgq_load', '--connections', 2, '--seconds', 60, $good ],
    out => "$dir/out", err => "$dir/err",
);

ok(poll_until { -e "$dir/err" && Pgq::Host::slurp("$dir/err") =~ /acknowledged/ }, 'the load client prints a line each second');
kill 'INT', $load;
is(Pgq::Host::ended($load), 0, 'SIGINT ends the load');

my %result = Pgq::Host::slurp("$dir/out") =~ /^result (\S+) (\S+)$/mg;
cmp_ok($result{ok}, '>', 0, 'after SIGINT the results are printed');
is($result{requests}, $result{ok}, 'after SIGINT the load client waits for all answers');
ok(!exists $result{phase_0_ok}, 'without SIGUSR1 there are no phases');

$load = Pgq::Host::spawn(
    [ Pgq::Host::build_dir() . '/bench/pgq_load', '--connections', 2, '--seconds', 60, '--rate', 200, $good ],
    out => "$dir/phases", err => "$dir/seconds",
);

for my $phase (1 .. 3) {
    my $lines = sub { my @lines = -e "$dir/seconds" ? Pgq::Host::slurp("$dir/seconds") =~ /acknowledged/g : (); scalar @lines };
    ok((poll_until { $lines->() >= $phase } 10), "phase $phase lasts a second");
    kill $phase < 3 ? 'USR1' : 'INT', $load;
}

is(Pgq::Host::ended($load), 0, 'SIGUSR1 does not end the load');

%result = Pgq::Host::slurp("$dir/phases") =~ /^result (\S+) (\S+)$/mg;
cmp_ok($result{"phase_${_}_ok"}, '>=', 100, "phase $_ has its own count of messages") for 0 .. 2;
is($result{phase_0_ok} + $result{phase_1_ok} + $result{phase_2_ok}, $result{ok}, 'each message belongs to one phase');
ok(!exists $result{phase_3_ok}, 'two signals make three phases');
cmp_ok($result{phase_1_seconds}, '>=', 0.5, 'a phase lasts from signal to signal');

done_testing;

# Each server is a process group with one process for each connection.
END {
    my $status = $?;

    kill 'KILL', map { -$_ } @servers;
    waitpid $_, 0 for @servers;
    $? = $status;
}
