# What the pool can never hold is refused for good, with 413 and without Retry-After; what it cannot hold now, with 503.
# tickets= counts messages, however many come in one request.

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
    is($answer->status, $status, "$what is refused");
    is($answer->json->{code}, $code, "$what: the problem has a code");
    is(defined $answer->header('retry-after') ? 1 : 0, $status == 503 ? 1 : 0, "$what: " . ($status == 503 ? 'it may be sent again' : 'to send it again would not help'));
    return;
}

is($client->post('/post', '"' . 'x' x 10_238 . '"')->status, 202, 'a message of size= bytes is accepted');
refused('a message that is longer', 413, 'too_large', $client->post('/post', '"' . 'x' x 10_239 . '"'));
refused('one in chunks', 413, 'too_large', $client->post_chunked('/post', [ '"' . 'x' x 10_000, 'x' x 300 . '"' ]));
refused('a text that is longer as JSON', 413, 'too_large', $client->post('/post', "\x01" x 2000, 'Content-Type' => 'text/plain'));
is($client->post('/post', "1\n" x 10, @ndjson)->status, 202, 'as many messages as tickets= are accepted at once');
refused('one message more', 413, 'too_large', $client->post('/post', "1\n" x 11, @ndjson));
is($client->get('/status')->json->{status}, 'ok', 'none of these makes the pool full');

# messages that wait
my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
my @waiting = Pgq::Client->new($nginx);
$waiting[0]->send($waiting[0]->request('POST', '/post', body => "1\n" x 6, headers => {@ndjson}));
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
refused('a request with more messages than there is room for', 503, 'queue_full', $client->post('/post', "1\n" x 5, @ndjson));
is_deeply([ $client->get('/status')->status, $client->get('/status')->json->{status} ], [ 200, 'full' ], 'the status says that messages are refused');
is($client->get('/status')->json->{pools}[0]{status}, 'full', 'and in which pool');

push @waiting, Pgq::Client->new($nginx);
$waiting[1]->send($waiting[1]->request('POST', '/post', body => "1\n" x 4, headers => {@ndjson}));
ok((poll_until { $client->get('/status')->json->{pools}[0]{waiting_tickets} == 2 }), 'as many as there is room for wait');
refused('then one more', 503, 'queue_full', $client->post('/post', '1'));

$lock->query('commit');
$lock->quit;
is_deeply([ map { $_->answer->status } @waiting ], [ 202, 202 ], 'those that waited are accepted');
is($client->post('/post', "1\n" x 10, @ndjson)->status, 202, 'then there is room again');
ok((poll_until { $client->get('/status')->json->{status} eq 'ok' }), 'and the status is ok again');

# the warning of the configuration
for my $case (
    [ 'client_max_body_size 10k;', 0, 'a body of size= bytes' ],
    [ 'client_max_body_size 11k;', 1, 'a body that is longer' ],
    [ 'client_max_body_size 0;',   1, 'a body of any length' ],
) {
    my ($http, $warned, $what) = @$case;
    $nginx->configure(http => $http);
    my ($status, $text) = $nginx->test;
    is($status, 0, "$what: nginx starts");
    is(() = $text =~ /\[warn\] .*"client_max_body_size" of location "\/post" exceeds "size=" of pgq_pool "main"/g, $warned,
        $what . ($warned ? ': it warns' : ': it does not warn'));
}

done_testing;
