# Requests in all forms: bodies of every size, in pieces, on disk, pipelined, chunked, with a wrong Content-Length, and
# clients that stall or close the connection.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, http => 'client_body_buffer_size 16k; client_body_timeout 1s; client_max_body_size 1m;')->start;
my $client = Pgq::Client->new($nginx);

sub message { return '"' . substr('0123456789abcdef' x ($_[0] / 16 + 1), 0, $_[0] - 2) . '"' }

for my $size (2, 3, 1000, 1024, 4095, 4096, 8192, 16383, 16384, 16385, 65536, 262144, 1048575, 1048576) {
    my $message = message($size);
    my $answer  = $client->post('/post', $message, Prefer => 'return=representation');
    is($answer->{status}, 202, "a message of $size bytes is accepted");
    ok(index($answer->{body}, $message) > 0, "a message of $size bytes is answered unchanged");
}

is($client->post('/post', message(1048577))->{status}, 413, 'a message one byte above client_max_body_size is refused');
$client = Pgq::Client->new($nginx);

my $text = $client->request('POST', '/post', body => '"piece by piece"', headers => { 'Content-Type' => 'application/json' });
$client->send($_) for split //, $text;
is($client->answer->{status}, 202, 'a request that arrives byte by byte is accepted');

is($client->post_chunked('/post', [ '["chunk",', '"by",', '"chunk"]' ])->{status}, 202, 'a chunked request is accepted');
is($client->post_chunked('/post', [])->{status}, 400, 'a chunked request without a chunk is refused as empty');
is($client->post_chunked('/post', [ ('[' . '1,' x 8191 . '1') , (',' . '2,' x 8191 . '2') x 8, ']' ])->{status}, 202, 'a chunked request that is stored on disk is accepted');

$client->send(join '', map {
    $client->request('POST', '/post', body => "\"pipelined $_\"", headers => { 'Content-Type' => 'application/json' })
} 1 .. 20);
is(join(' ', map { $client->answer->{body} =~ /pipelined (\d+)/ } 1 .. 20), join(' ', 1 .. 20), 'pipelined requests are answered in order');

$client->send($client->request('POST', '/post', headers => { 'Content-Length' => 15, 'Content-Type' => 'application/json', Expect => '100-continue' }));
is($client->answer(interim => 1)->{status}, 100, '100 Continue is sent to a client that expects it');
$client->send('"100, continue"');
is($client->answer->{status}, 202, 'a body sent after 100 Continue is accepted');

# ---- a wrong Content-Length
my $other = Pgq::Client->new($nginx);
$other->send($other->request('POST', '/post', body => '"short"', headers => { 'Content-Length' => 1000, 'Content-Type' => 'application/json' }));
my $answer = $other->answer;
ok(!$answer || $answer->{status} == 408, 'a body shorter than its Content-Length is answered with 408 or not at all');

$other = Pgq::Client->new($nginx);
$other->send($other->request('POST', '/post', body => '"long"XXXX', headers => { 'Content-Length' => 6, 'Content-Type' => 'application/json' }) . "\r\n\r\n");
is($other->answer->{status}, 202, 'a body longer than its Content-Length is cut and accepted');
is($other->answer->{status}, 400, 'the bytes after the body are refused as a request');

$other = Pgq::Client->new($nginx);
$other->send($other->request('POST', '/post', headers => { 'Content-Length' => '5x', 'Content-Type' => 'application/json' }));
is($other->answer->{status}, 400, 'a Content-Length that is not a number is refused');

# ---- a client that stalls, and a client that closes the connection within a request
my $stalled = Pgq::Client->new($nginx);
$stalled->send("POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n\"stall");
my $closed = Pgq::Client->new($nginx);
$closed->send("POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n\"leave");
$closed->close;
is($client->post('/post', '"others go on"')->{status}, 202, 'a client that stalls does not delay others');
$answer = $stalled->answer;
ok(!$answer || $answer->{status} == 408, 'a client that stalls is answered with 408 or not at all');

$pg->poll_query_until(q{select count(*) from ngx_pgq.queue}, 0);
is($pg->safe_psql(q{select count(*) from posts where data::text ~ '^"(short|stall|leave)'}), 0, 'no incomplete message is a post');
is($pg->safe_psql(q{select count(distinct data::text) from posts where data::text ~ 'pipelined'}), 20, 'all pipelined messages are posts');

$nginx->stop;

{
    my $h2 = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', Pgq::Nginx->http2)->start;
    my $url = $h2->url('/post');
    my $out = `curl -sS --http2-prior-knowledge -w '%{http_version} %{http_code}\\n' -o /dev/null -d '"over HTTP/2"' $url`;
    is($out, "2 202\n", 'a message is accepted over HTTP/2');
    $out = `h2load -n 2000 -c 4 -m 32 -d /etc/hostname $url 2>&1`;
    like($out, qr/2000 succeeded.*\n.*2000 2xx/, 'all streams of HTTP/2 connections are answered');
    my $cut = `timeout -s KILL 0.2 h2load -D 5 -c 2 -m 64 -d /etc/hostname $url 2>&1`;
    is(`curl -sS --http2-prior-knowledge -w '%{http_code}' -o /dev/null -d 1 $url`, 202, 'a message is accepted after an HTTP/2 connection was cut within its streams');
}

done_testing;
