# P5: a message counts until it is answered. What its client has not read of the answer does not keep others from
# posting: a long message is part of the answer only on request, and only while the answers that are not read are few.

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

# ---- what the answer has of the message

for my $case (
    [ 4096, undef,            1, undef,            'a message of 4 kB' ],
    [ 4097, undef,            0, undef,            'a longer one' ],
    [ 4097, $whole,           1, $whole,           'a longer one, on request' ],
    [ 4096, $whole,           1, $whole,           'a short one, on request' ],
    [ 4096, 'return=minimal', 0, 'return=minimal', 'a short one, without it on request' ],
    [ 9000, 'return=minimal', 0, 'return=minimal', 'a longer one, without it on request' ],
) {
    my ($size, $prefer, $echo, $applied, $what) = @$case;
    my $answer = $client->post('/post', message($size), Prefer => $prefer);
    is($answer->status, 202, "$what is accepted");
    like($answer->body, qr/\A\{"status":"queued","id":"[0-9a-f-]{36}"[,}]/, "$what: the answer has its id");
    is(length($answer->json->{msg} // ''), $echo ? $size - 2 : 0, $what . ($echo ? ': it is part of the answer' : ': it is not part of the answer'));
    is($answer->header('preference-applied'), $applied, "$what: the answer says which preference was applied");
}

# ---- clients that do not read

my $request = $client->request('POST', '/post', body => message(20_000), headers => { Prefer => $whole });
my $lines   = $client->request('POST', '/post', body => "1\n" x 200, headers => { 'Content-Type' => 'application/x-ndjson' });

my @unread = map { Pgq::Client->new($nginx, buffer => 4096)->stuff($_ % 2 ? $lines : $request, 0.1) } 1 .. 48;

my %status;
$status{ $client->post('/post', message(10_000))->status }++ for 1 .. 240;
is_deeply(\%status, { 202 => 240 }, 'while 48 clients do not read their answers others post');
is($client->get('/status')->json->{status}, 'ok', 'and the status is ok');
like($client->get('/metrics')->body, qr/^pgq_waiting_bytes\{pool="main"\} 0$/m, 'no answered message waits');

my $answer = $client->post('/post', message(20_000), Prefer => $whole);
is($answer->status, 202, 'a message that wants to be part of its answer is accepted');
is_deeply([ sort keys %{ $answer->json } ], [ 'id', 'status' ], 'and is not part of it while so many answers are not read');
is($answer->header('preference-applied'), undef, 'nor does the answer say that it is');

$answer = $client->post('/post', "1\n" x 500, 'Content-Type' => 'application/x-ndjson');
is($answer->status, 202, 'many messages are accepted');
is($answer->body, '{"status":"queued"}', 'and their ids are left out as well');

$_->close for @unread;
ok((poll_until { exists $client->post('/post', message(20_000), Prefer => $whole)->json->{msg} }), 'when the clients have gone there is room again');

done_testing;
