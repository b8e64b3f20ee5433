# A request that the pool can never hold is refused with 413 and without Retry-After, one that it cannot hold now with 503.
# tickets= counts messages, not requests.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'lanes=1 tickets=10 size=10k',
    http      => 'client_max_body_size 64k;',
    locations => 'location = /status { pgq_status; }',
)->start;
my $client = Pgq::Client->new($nginx);
my @ndjson = ('Content-Type' => 'application/x-ndjson');

sub refused {
    my ($what, $status, $code, $answer) = @_;
    is($answer->status, $status, "$what is refused with $status");
    is($answer->json->{code}, $code, "$what has the code $code");
    is(defined $answer->header('retry-after') ? 1 : 0, $status == 503 ? 1 : 0, "$what is answered " . ($status == 503 ? 'with' : 'without') . ' Retry-After');
    return;
}

is($client->post('/post', '"' . 'x' x 10_238 . '"')->status, 202, 'a message of size= bytes is accepted');
refused('a message longer than size=', 413, 'too_large', $client->post('/post', '"' . 'x' x 10_239 . '"'));
refused('a chunked message longer than size=', 413, 'too_large', $client->post_chunked('/post', [ '"' . 'x' x 10_000, 'x' x 300 . '"' ]));
refused('a text longer than size= as JSON', 413, 'too_large', $client->post('/post', "\x01" x 2000, 'Content-Type' => 'text/plain'));
is($client->post('/post', "1\n" x 10, @ndjson)->status, 202, 'a request with tickets= messages is accepted');
refused('a request with more than tickets= messages', 413, 'too_large', $client->post('/post', "1\n" x 11, @ndjson));
is($client->get('/status')->json->{status}, 'ok', 'the status is ok after requests that the pool cannot hold');

# ---- waiting messages
my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
my @waiting = Pgq::Client->new($nginx);
$waiting[0]->send($waiting[0]->request('POST', '/post', body => "1\n" x 6, headers => {@ndjson}));
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
refused('a request with more messages than tickets= leaves', 503, 'queue_full', $client->post('/post', "1\n" x 5, @ndjson));
is_deeply([ $client->get('/status')->status, $client->get('/status')->json->{status} ], [ 200, 'full' ], 'the status is full after a refusal');
is($client->get('/status')->json->{pools}[0]{status}, 'full', 'the status names the pool that is full');

push @waiting, Pgq::Client->new($nginx);
$waiting[1]->send($waiting[1]->request('POST', '/post', body => "1\n" x 4, headers => {@ndjson}));
ok((poll_until { $client->get('/status')->json->{pools}[0]{waiting_tickets} == 2 }), 'a request with as many messages as tickets= leaves waits');
refused('a message after tickets= messages', 503, 'queue_full', $client->post('/post', '1'));

$lock->query('commit');
$lock->quit;
is_deeply([ map { $_->answer->status } @waiting ], [ 202, 202 ], 'the requests that waited are accepted');
is($client->post('/post', "1\n" x 10, @ndjson)->status, 202, 'a request with tickets= messages is accepted when no ticket waits');
ok((poll_until { $client->get('/status')->json->{status} eq 'ok' }), 'the status is ok when messages are accepted again');

# ---- the warning for client_max_body_size
for my $case (
    [ 'client_max_body_size 10k;', 0, 'client_max_body_size equal to size=' ],
    [ 'client_max_body_size 11k;', 1, 'client_max_body_size larger than size=' ],
    [ 'client_max_body_size 0;',   1, 'client_max_body_size of 0' ],
) {
    my ($http, $warned, $what) = @$case;
    $nginx->configure(http => $http);
    my ($status, $text) = $nginx->test;
    is($status, 0, "$what: nginx starts");
    is(() = $text =~ /\[warn\] .*"client_max_body_size" of location "\/post" exceeds "size=" of pgq_pool "main"/g, $warned,
        $what . ($warned ? ': it warns' : ': it does not warn'));
}

done_testing;
