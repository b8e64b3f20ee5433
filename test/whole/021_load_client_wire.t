# The load client survives whatever a server does to it, and counts it as what it is.

use Pgq;

use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_LINGER);
use Time::HiRes qw(sleep time);

my $uuid = 0;
my @servers;


# An answer of its own id.
sub answer {
    my $body = sprintf '{"status":"queued","id":"%08x-0000-7000-8000-%012x"}', $$, ++$uuid;
    return "HTTP/1.1 202 Accepted\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
}


# A server that gives each request to the code, with the socket and how many there were on this connection and how many
# connections before it; the code returns false to end the connection.
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

    return { status => $status, said => "$out$err", $out =~ /^result (\S+) (\S+)$/mg };
}


sub expect {
    my ($name, $result, %expected) = @_;
    my %seen = map { $_ => $result->{$_} } keys %expected;

    is_deeply(\%seen, \%expected, $name) or diag($result->{said});

    return;
}


my $good = server(sub { $_[0]->print(answer()) });
my $result;


# ---- answers

expect('a good server', load('--all-ok', $good), status => 0, ok => 100, requests => 100, unknown => 0, retries => 0);

my $bytes = server(sub {
    my ($socket) = @_;
    my ($body) = answer() =~ /(\{.*)/s;

    setsockopt $socket, Socket::IPPROTO_TCP(), Socket::TCP_NODELAY(), 1;
    syswrite $socket, $_
        for split //, sprintf "HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n",
        20, substr($body, 0, 20), length($body) - 20, substr $body, 20;
    return 1;
});

expect('chunks, byte by byte', load('--all-ok', $bytes), status => 0, ok => 100, malformed => 0);

my $large = server(sub {
    my ($socket) = @_;
    my $answer = answer();
    $answer =~ s/Content-Length: (\d+)/'Content-Length: ' . ($1 + 300_000)/e;
    $socket->print($answer, 'x' x 300_000);
});

expect('large answers', load('--all-ok', $large), status => 0, ok => 100);

my $nonsense = server(sub { $_[0]->print("HTTP/1.1 202 OK\r\nContent-Length: 8\r\n\r\n{\"id\":1}") });

expect('an acknowledgement without an id is none', load($nonsense), status => 1, ok => 0, malformed => 100, failed => 100);
expect('unless none is asked for', load('--no-ids', $nonsense), status => 0, ok => 100, malformed => 0);

my $refuse = server(sub {
    $_[0]->print($_[1] % 2 ? answer() : "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno");
});

expect('what is refused is not sent again', load('--connections', 1, '--retry', 5, $refuse),
    status => 0, ok => 50, refused => 50, refused_400 => 50, failed => 50, retries => 0);
expect('and fails the run when all have to be accepted', load('--connections', 1, '--all-ok', $refuse), status => 1);


# ---- retries

my $busy = server(sub {
    $_[0]->print($_[1] % 2 ? answer() : "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno");
});

my $began = time;
$result = load('--connections', 1, '--messages', 2, '--retry', 1, '--retry-max-wait', 5, '--all-ok', $busy);
expect('503 is sent again', $result, status => 0, ok => 2, requests => 4, retries => 2, refused_503 => 2,
    retry_after => 2);
cmp_ok(time - $began, '>=', 2, 'after the time that the server asks for');
cmp_ok($result->{p50_ms}, '>=', 1000, 'which counts as latency');

expect('which is bounded', load('--retry', 1, '--retry-max-wait', 0.01, '--all-ok', $busy),
    status => 0, ok => 100, requests => 200);
expect('and is not done unless asked for', load('--connections', 1, $busy),
    status => 0, ok => 50, refused_503 => 50, retries => 0);

my $never = server(sub { $_[0]->print("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno") });

expect('retries are bounded', load('--messages', 4, '--retry', 3, '--retry-max-wait', 0.02, $never),
    status => 1, ok => 0, requests => 16, retries => 12, failed => 4, refused => 16, retry_after => 0);


# ---- connections that end

my $half = server(sub {
    my ($socket, $request) = @_;
    my $answer = answer();

    $socket->print($request == 4 ? substr $answer, 0, 60 : $answer);
    return $request < 4;
});

$result = load('--retry', 5, '--all-ok', $half);
expect('half answers are unknown and sent again', $result, status => 0, ok => 100);
is($result->{$_}, $result->{requests} - 100, "$_: each of them") for qw(unknown retries lost_connections);
cmp_ok($result->{unknown}, '>=', 20, 'every fifth');

$result = load($half);
expect('or not', $result, status => 0, retries => 0, requests => 100, ok => 100 - $result->{unknown});

my $reset = server(sub {
    my ($socket, $request) = @_;
    return $socket->print(answer()) if $request < 3;

    setsockopt $socket, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    return 0;
});

expect('resets as well', load('--retry', 5, '--all-ok', $reset), status => 0, ok => 100);

my $polite = server(sub {
    my $answer = answer();
    $answer =~ s/\r\n/\r\nConnection: close\r\n/;
    $_[0]->print($answer);
    return 0;
});

expect('a connection that is closed as announced is not lost', load('--all-ok', $polite),
    status => 0, ok => 100, unknown => 0, lost_connections => 0, requests => 100);

my $stall = server(sub { $_[1] == 3 ? sleep 600 : $_[0]->print(answer()) });

$result = load('--timeout', 0.2, '--retry', 2, '--all-ok', $stall);
expect('no answer in time: unknown, and sent again', $result, status => 0, ok => 100);
cmp_ok($result->{unknown}, '>=', 20, 'every fourth');

my $nobody = 'http://127.0.0.1:' . Pgq::Host::free_port() . '/post';

expect('nobody there', load('--give-up', 0.3, $nobody), status => 1, ok => 0, requests => 0, unsent => 100, unknown => 0);
$result = load('--all-ok', $nobody, $good);
expect('one of two is there', $result, status => 0, ok => 100, unknown => 0);
cmp_ok($result->{connect_errors}, '>=', 2, 'the other was tried');


# ---- time

# A pause of half a second: who counts from the intended start sees a hundred messages wait, not one.
my $pause = server(sub { sleep 0.5 if $_[1] == 50; $_[0]->print(answer()) });

$result = load('--connections', 1, '--messages', 200, '--rate', 200, '--all-ok', $pause);
cmp_ok($result->{p90_ms}, '>', 100, 'open loop: latency counts from the intended start');
$result = load('--connections', 1, '--messages', 200, '--all-ok', $pause);
cmp_ok($result->{p90_ms}, '<', 100, 'closed loop: it does not');
cmp_ok($result->{max_ms}, '>=', 500, 'but is seen as the longest');

$result = load('--messages', 0, '--seconds', 1, '--rate', 100, $good);
cmp_ok($result->{requests}, '<=', 101, 'a second at 100 a second: never more');
cmp_ok($result->{requests}, '>=', 80, 'and fewer only by what the machine was late at the end');

my $dir  = Pgq::Host::temp_dir('signal');
my $load = Pgq::Host::spawn(
    [ Pgq::Host::build_dir() . '/bench/pgq_load', '--connections', 2, '--seconds', 60, $good ],
    out => "$dir/out", err => "$dir/err",
);

ok(poll_until { -e "$dir/err" && Pgq::Host::slurp("$dir/err") =~ /acknowledged/ }, 'a line each second');
kill 'INT', $load;
is(Pgq::Host::ended($load), 0, 'a signal ends the load');

my %result = Pgq::Host::slurp("$dir/out") =~ /^result (\S+) (\S+)$/mg;
cmp_ok($result{ok}, '>', 0, 'with a report');
is($result{requests}, $result{ok}, 'every answer was waited for');
ok(!exists $result{phase_0_ok}, 'without a mark there are no phases');

$load = Pgq::Host::spawn(
    [ Pgq::Host::build_dir() . '/bench/pgq_load', '--connections', 2, '--seconds', 60, '--rate', 200, $good ],
    out => "$dir/phases", err => "$dir/seconds",
);

for my $phase (1 .. 3) {
    my $said = sub { my @lines = -e "$dir/seconds" ? Pgq::Host::slurp("$dir/seconds") =~ /acknowledged/g : (); scalar @lines };
    ok((poll_until { $said->() >= $phase } 10), "phase $phase: a second is over");
    kill $phase < 3 ? 'USR1' : 'INT', $load;
}

is(Pgq::Host::ended($load), 0, 'a mark does not end the load');

%result = Pgq::Host::slurp("$dir/phases") =~ /^result (\S+) (\S+)$/mg;
cmp_ok($result{"phase_${_}_ok"}, '>=', 100, "phase $_ has messages") for 0 .. 2;
is($result{phase_0_ok} + $result{phase_1_ok} + $result{phase_2_ok}, $result{ok}, 'each message is of one phase');
ok(!exists $result{phase_3_ok}, 'two marks make three phases');
cmp_ok($result{phase_1_seconds}, '>=', 0.5, 'which last from mark to mark');

done_testing;


# A server is a group of processes, one for each connection.
END {
    my $status = $?;

    kill 'KILL', map { -$_ } @servers;
    waitpid $_, 0 for @servers;
    $? = $status;
}
