# Requests that nobody would write, always the same ones, and what longer runs of `make fuzz` have found.

use Pgq;

use Pgq::FuzzClients;
use Socket qw(IPPROTO_TCP TCP_CORK);

my $fuzz = Pgq::FuzzClients->new(seed => 1, Pgq::FuzzClients::servers());
my ($worker) = $fuzz->{nginx}->worker_pids;

ok($fuzz->run(cases => 400), 'what is answered is HTTP, with a status of those that there are');
ok($fuzz->check_posts, 'each message that was answered 202 is in posts once, as it was answered');
ok($fuzz->check_left, 'when the clients have gone, those that never read among them, nothing of them is left');
diag(join "\n", @{ $fuzz->{wrong} }) if @{ $fuzz->{wrong} };

cmp_ok($fuzz->{count}{ids}, '>', 100, 'many were accepted');
cmp_ok($fuzz->{status}{400}, '>', 30, 'many were refused');
is(($fuzz->{nginx}->worker_pids)[0], $worker, 'by one worker all the time');

# Its end in one segment with the client's last word: nginx learns both at once.
sub ends_with {
    my ($bytes) = @_;
    my $client = Pgq::Client->new($fuzz->{nginx});

    setsockopt $client->socket, IPPROTO_TCP, TCP_CORK, 1;
    $client->send($bytes);
    shutdown $client->socket, 1;

    return $client->answer;
}

my $answer = ends_with("POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n{}");
is($answer->status, 413, 'a message too long, of a client that ends there, is refused');
is($answer->header('Content-Type'), 'application/problem+json', 'as a problem');

$answer = Pgq::Client->new($fuzz->{nginx})->get('/get?limit=1', 'If-Match' => '"nothing"');
is($answer->status, 412, 'GET on a condition that is not so');
is($answer->header('Content-Type'), 'application/problem+json', 'is refused as a problem');
is($answer->json->{code}, 'precondition_failed', 'with a word for it');

done_testing;
