# P5: the tickets of a pool are limited in number, bytes and age. A request that the pool can never hold is refused with 413 and
# without Retry-After; a request that it cannot hold at present, with 503. tickets= counts messages, not requests.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'lanes=1 tickets=10 size=10k',
    timeout   => '30s',
    http      => 'client_max_body_size 64k;',
    locations => 'location = /status { pgq_status; }',
)->start;
my $client = Pgq::Client->new($nginx);
my @ndjson = ('Content-Type' => 'application/x-ndjson');

sub refused {
    my ($what, $status, $code, $answer) = @_;
    is_problem($answer, $status, $code, $what);
    is(defined $answer->header('retry-after') ? 1 : 0, $status == 503 ? 1 : 0, "$what is answered " . ($status == 503 ? 'with' : 'without') . ' Retry-After');
    return;
}

# ---- requests that the pool can never hold
is($client->post('/post', '"' . 'x' x 10_238 . '"')->status, 202, 'a message of size= bytes is accepted');
refused('a message longer than size=', 413, 'too_large', $client->post('/post', '"' . 'x' x 10_239 . '"'));
refused('a chunked message longer than size=', 413, 'too_large', $client->post_chunked('/post', [ '"' . 'x' x 10_000, 'x' x 300 . '"' ]));
refused('a text longer than size= as JSON', 413, 'too_large', $client->post('/post', "\x01" x 2000, 'Content-Type' => 'text/plain'));
is($client->post('/post', "1\n" x 10, @ndjson)->status, 202, 'a request with tickets= messages is accepted');
refused('a request with more than tickets= messages', 413, 'too_large', $client->post('/post', "1\n" x 11, @ndjson));
is($client->get('/status')->json->{status}, 'ok', 'the status is ok after requests that the pool cannot hold');

# ---- the number of tickets
my $lock = $pg->lock_table;
my @waiting = Pgq::Client->new($nginx)->send_post('/post', '"first"');
$pg->wait_for_lock;
push @waiting, map { Pgq::Client->new($nginx)->send_post('/post', "\"$_\"") } 2 .. 10;
$nginx->wait_until_received;
my $answer = $client->post('/post', '"one too many"');
is_problem($answer, 503, 'queue_full', 'a message above the limit of tickets');
like($answer->{headers}{'retry-after'}, qr/^[1-9]$/, 'a message above the limit of tickets is answered with Retry-After');
is($client->get('/get')->{status}, 200, 'a GET is answered while the limit of tickets is reached');
$lock->release;
is((grep { $_->answer->{status} == 202 } @waiting), 10, 'the tickets that waited are accepted');
is($client->post('/post', '"again"')->{status}, 202, 'a message is accepted when no ticket waits');

# ---- the number of messages in requests of NDJSON
$lock = $pg->lock_table;
@waiting = Pgq::Client->new($nginx)->send_post('/post', "1\n" x 6, @ndjson);
$pg->wait_for_lock;
refused('a request with more messages than tickets= leaves', 503, 'queue_full', $client->post('/post', "1\n" x 5, @ndjson));
is_deeply([ $client->get('/status')->status, $client->get('/status')->json->{status} ], [ 200, 'full' ], 'the status is full after a refusal');
is($client->get('/status')->json->{pools}[0]{status}, 'full', 'the status names the pool that is full');
push @waiting, Pgq::Client->new($nginx)->send_post('/post', "1\n" x 4, @ndjson);
ok((poll_until { $client->get('/status')->json->{pools}[0]{waiting_tickets} == 2 }), 'a request with as many messages as tickets= leaves waits');
refused('a message after tickets= messages', 503, 'queue_full', $client->post('/post', '1'));
$lock->release;
is_deeply([ map { $_->answer->status } @waiting ], [ 202, 202 ], 'the requests that waited are accepted');
is($client->post('/post', "1\n" x 10, @ndjson)->status, 202, 'a request with tickets= messages is accepted when no ticket waits');
ok((poll_until { $client->get('/status')->json->{status} eq 'ok' }), 'the status is ok when messages are accepted again');

# ---- the bytes of tickets
$lock = $pg->lock_table;
@waiting = Pgq::Client->new($nginx)->send_post('/post', '"' . 'x' x 5000 . '"');
$pg->wait_for_lock;
push @waiting, Pgq::Client->new($nginx)->send_post('/post', '"' . 'y' x 5000 . '"');
$nginx->wait_until_received;
is($client->post('/post', '"' . 'z' x 5000 . '"')->{status}, 503, 'a message above the limit of bytes is refused');
is(scalar(grep { $_ } map { $_->close } @waiting), 0, 'clients of waiting tickets close their connections');
$lock->release;
ok((poll_until { $client->post('/post', '"' . 'z' x 5000 . '"')->{status} == 202 }), 'a message is accepted after the clients of waiting tickets have left');

# ---- the age of tickets. A message that was sent has an unknown outcome; 060 tests messages that were not sent.
$nginx->configure(pool => 'lanes=1', timeout => '1s');
$nginx->reload;
$lock = $pg->lock_table;
my $sent = Pgq::Client->new($nginx)->send_post('/post', '"sent"');
$pg->wait_for_lock;
is_problem($sent->answer, 504, 'outcome_unknown', 'a message that was sent and whose outcome is unknown at its timeout');
$lock->release;
ok((poll_until { Pgq::Client->new($nginx)->post('/post', '"later"')->{status} == 202 }), 'a message is accepted after the lane is free again');
cmp_ok($pg->count_posts('"sent"'), '<=', 1, 'a message of unknown outcome is a post at most once');

# ---- the warning for client_max_body_size
for my $case (
    [ 'client_max_body_size 10k;', 0, 'client_max_body_size equal to size=' ],
    [ 'client_max_body_size 11k;', 1, 'client_max_body_size larger than size=' ],
    [ 'client_max_body_size 0;',   1, 'client_max_body_size of 0' ],
) {
    my ($http, $warned, $what) = @$case;
    $nginx->configure(http => $http, pool => 'lanes=1 tickets=10 size=10k');
    my ($status, $text) = $nginx->test;
    is($status, 0, "$what: nginx starts");
    is(() = $text =~ /\[warn\] .*"client_max_body_size" of location "\/post" exceeds "size=" of pgq_pool "main"/g, $warned,
        $what . ($warned ? ': it warns' : ': it does not warn'));
}

done_testing;
