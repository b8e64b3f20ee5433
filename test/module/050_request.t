# Requests in all the forms that clients send them: bodies of every size, in pieces, on disk, pipelined, chunked,
# with lies about their length, and clients that stall or leave.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg     => $pg,
    http   => 'client_body_buffer_size 16k; client_body_timeout 1s; client_max_body_size 1m;',
    listen => '',
)->start;
my $client = Pgq::Client->new($nginx);

sub message { return '"' . substr('0123456789abcdef' x ($_[0] / 16 + 1), 0, $_[0] - 2) . '"' }

for my $size (2, 3, 1000, 1024, 4095, 4096, 8192, 16383, 16384, 16385, 65536, 262144, 1048575, 1048576) {
    my $message = message($size);
    my $answer  = $client->post('/post', $message, Prefer => 'return=representation');
    is($answer->{status}, 202, "$size bytes are accepted");
    ok(index($answer->{body}, $message) > 0, "$size bytes are answered");
}

is($client->post('/post', message(1048577))->{status}, 413, 'one byte more than the limit is not');
$client = Pgq::Client->new($nginx);

my $text = $client->request('POST', '/post', body => '"piece by piece"', headers => { 'Content-Type' => 'application/json' });
$client->send($_) for split //, $text;
is($client->answer->{status}, 202, 'a request that comes byte by byte');

is($client->post_chunked('/post', [ '["chunk",', '"by",', '"chunk"]' ])->{status}, 202, 'a chunked request');
is($client->post_chunked('/post', [])->{status}, 400, 'a chunked request without a chunk is empty');
is($client->post_chunked('/post', [ ('[' . '1,' x 8191 . '1') , (',' . '2,' x 8191 . '2') x 8, ']' ])->{status}, 202, 'a chunked request on disk');

$client->send(join '', map {
    $client->request('POST', '/post', body => "\"pipelined $_\"", headers => { 'Content-Type' => 'application/json' })
} 1 .. 20);
is(join(' ', map { $client->answer->{body} =~ /pipelined (\d+)/ } 1 .. 20), join(' ', 1 .. 20), 'pipelined requests are answered in their order');

$client->send($client->request('POST', '/post', headers => { 'Content-Length' => 15, 'Content-Type' => 'application/json', Expect => '100-continue' }));
is($client->answer(interim => 1)->{status}, 100, 'who waits for 100 gets it');
$client->send('"100, continue"');
is($client->answer->{status}, 202, 'and is accepted');

# Content-Length that lies
my $liar = Pgq::Client->new($nginx);
$liar->send($liar->request('POST', '/post', body => '"short"', headers => { 'Content-Length' => 1000, 'Content-Type' => 'application/json' }));
my $answer = $liar->answer;
ok(!$answer || $answer->{status} == 408, 'a body shorter than it says is waited for, and then not taken');

$liar = Pgq::Client->new($nginx);
$liar->send($liar->request('POST', '/post', body => '"long"XXXX', headers => { 'Content-Length' => 6, 'Content-Type' => 'application/json' }) . "\r\n\r\n");
is($liar->answer->{status}, 202, 'a body longer than it says is cut');
is($liar->answer->{status}, 400, 'and the rest is no request');

$liar = Pgq::Client->new($nginx);
$liar->send($liar->request('POST', '/post', headers => { 'Content-Length' => '5x', 'Content-Type' => 'application/json' }));
is($liar->answer->{status}, 400, 'a length that is no number');

# a client that stalls, one that leaves midway
my $staller = Pgq::Client->new($nginx);
$staller->send("POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n\"stall");
my $leaver = Pgq::Client->new($nginx);
$leaver->send("POST /post HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n\"leave");
$leaver->close;
is($client->post('/post', '"others go on"')->{status}, 202, 'others do not wait for them');
$answer = $staller->answer;
ok(!$answer || $answer->{status} == 408, 'who stalls is sent away');

$pg->poll_query_until(q{select count(*) from ngx_pgq.queue}, 0);
is($pg->safe_psql(q{select count(*) from posts where data::text ~ '^"(short|stall|leave)'}), 0, 'nothing half is kept');
is($pg->safe_psql(q{select count(distinct data::text) from posts where data::text ~ 'pipelined'}), 20, 'everything whole is');

$nginx->stop;

{
    my $version = `nginx -v 2>&1`;
    my $h2 = Pgq::Nginx->new(
        pg => $pg, pool => 'lanes=1',
        $version =~ m{nginx/1\.2[0-4]} ? (listen => 'http2') : (server => 'http2 on;'),
    )->start;
    my $url = $h2->url('/post');
    my $out = `curl -sS --http2-prior-knowledge -w '%{http_version} %{http_code}\\n' -o /dev/null -d '"over HTTP/2"' $url`;
    is($out, "2 202\n", 'HTTP/2');
    $out = `h2load -n 2000 -c 4 -m 32 -d /etc/hostname $url 2>&1`;
    like($out, qr/2000 succeeded.*\n.*2000 2xx/, 'many streams of a connection');
    my $cut = `timeout -s KILL 0.2 h2load -D 5 -c 2 -m 64 -d /etc/hostname $url 2>&1`;
    is(`curl -sS --http2-prior-knowledge -w '%{http_code}' -o /dev/null -d 1 $url`, 202, 'and a connection that is cut amid streams');
}

done_testing;
