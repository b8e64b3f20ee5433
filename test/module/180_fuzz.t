# Generated malformed requests, the same in each run, and regressions that longer runs of `make fuzz` have found.

use Pgq;

use Pgq::FuzzClients;
use Socket qw(IPPROTO_TCP TCP_CORK);

my $fuzz = Pgq::FuzzClients->new(seed => 1, Pgq::FuzzClients::servers());
my ($worker) = $fuzz->{nginx}->worker_pids;

ok($fuzz->run(cases => 500), 'each answer is valid HTTP with a known status');
ok($fuzz->check_posts, 'each message that was answered with 202 is in posts once, unchanged');
ok($fuzz->check_left, 'no connection remains after the clients have left, including those that never read');
diag(join "\n", @{ $fuzz->{wrong} }) if @{ $fuzz->{wrong} };

cmp_ok($fuzz->{count}{ids}, '>', 100, 'more than 100 messages were accepted');
cmp_ok($fuzz->{status}{400}, '>', 30, 'more than 30 requests were refused');
is(($fuzz->{nginx}->worker_pids)[0], $worker, 'the worker has not exited');

# Sends the last bytes and the end of the connection in one segment.
sub ends_with {
    my ($bytes) = @_;
    my $client = Pgq::Client->new($fuzz->{nginx});

    setsockopt $client->socket, IPPROTO_TCP, TCP_CORK, 1;
    $client->send($bytes);
    shutdown $client->socket, 1;

    return $client->answer;
}

my $answer = ends_with("POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n{}");
is($answer->status, 413, 'a message that is too long is refused if its client closes the connection');
is($answer->header('Content-Type'), 'application/problem+json', 'the refusal of a message whose client closes the connection is a problem document');

$answer = Pgq::Client->new($fuzz->{nginx})->get('/get?limit=1', 'If-Match' => '"nothing"');
is_problem($answer, 412, 'precondition_failed', 'a GET with a false precondition');

done_testing;
