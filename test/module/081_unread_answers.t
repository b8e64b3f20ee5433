# P5: a ticket counts against the pool's limits until it is answered. Unread answers do not keep other clients from posting:
# a long message is part of its answer only on request, and only while unread_size is not reached.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'lanes=1 size=64k unread_size=64k',
    listen    => 'rcvbuf=4k sndbuf=4k',
    http      => 'keepalive_requests 100000; client_max_body_size 64k;',
    locations => 'location = /status { pgq_status; } location = /metrics { pgq_metrics; }',
)->start;
my $client = Pgq::Client->new($nginx);
my $whole  = 'return=representation';

sub message { return '"' . 'x' x ($_[0] - 2) . '"' }

# ---- the message in the answer
for my $case (
    [ 4096, undef,            1, undef,            'a message of 4 kB' ],
    [ 4097, undef,            0, undef,            'a message of more than 4 kB' ],
    [ 4097, $whole,           1, $whole,           'a message of more than 4 kB with return=representation' ],
    [ 4096, $whole,           1, $whole,           'a message of 4 kB with return=representation' ],
    [ 4096, 'return=minimal', 0, 'return=minimal', 'a message of 4 kB with return=minimal' ],
    [ 9000, 'return=minimal', 0, 'return=minimal', 'a message of 9 kB with return=minimal' ],
) {
    my ($size, $prefer, $echo, $applied, $what) = @$case;
    my $answer = $client->post('/post', message($size), Prefer => $prefer);
    is($answer->status, 202, "$what is accepted");
    like($answer->body, qr/\A\{"status":"queued","id":"[0-9a-f-]{36}"[,}]/, "$what: the answer has its id");
    is(length($answer->json->{msg} // ''), $echo ? $size - 2 : 0, $what . ($echo ? ': the answer contains it' : ': the answer does not contain it'));
    is($answer->header('preference-applied'), $applied, "$what: the answer names the applied preference");
}

# ---- clients that do not read their answers
my $request = $client->request('POST', '/post', body => message(20_000), headers => { Prefer => $whole });
my $lines   = $client->request('POST', '/post', body => "1\n" x 200, headers => { 'Content-Type' => 'application/x-ndjson' });

my @unread = map { Pgq::Client->new($nginx, buffer => 4096)->flood($_ % 2 ? $lines : $request, 0.1) } 1 .. 48;

my %status;
$status{ $client->post('/post', message(10_000))->status }++ for 1 .. 240;
is_deeply(\%status, { 202 => 240 }, 'messages are accepted while 48 clients do not read their answers');
is($client->get('/status')->json->{status}, 'ok', 'the status is ok while 48 clients do not read their answers');
like($client->get('/metrics')->body, qr/^pgq_waiting_bytes\{pool="main"\} 0$/m, 'no ticket counts as waiting after it is answered');

my $answer = $client->post('/post', message(20_000), Prefer => $whole);
is($answer->status, 202, 'a message with return=representation is accepted while unread_size is reached');
is_deeply([ sort keys %{ $answer->json } ], [ 'id', 'status' ], 'the answer does not contain the message while unread_size is reached');
is($answer->header('preference-applied'), undef, 'no preference is applied while unread_size is reached');

$answer = $client->post('/post', "1\n" x 500, 'Content-Type' => 'application/x-ndjson');
is($answer->status, 202, 'NDJSON is accepted while unread_size is reached');
is($answer->body, '{"status":"queued"}', 'the ids of NDJSON are left out while unread_size is reached');

$_->close for @unread;
ok((poll_until { exists $client->post('/post', message(20_000), Prefer => $whole)->json->{msg} }), 'the answer contains the message after the clients have left');

done_testing;
