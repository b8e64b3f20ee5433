# An error that nginx itself finds is answered with a problem document whose title is the status phrase. A request with
# invalid headers is refused without 100 Continue.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    http      => 'client_max_body_size 1k; lingering_timeout 1s; large_client_header_buffers 2 2k; limit_req_zone $server_port zone=few:1m rate=1r/m; limit_req_status 429;',
    locations => 'location = /required { pgq_idempotency required; pgq_post main; } location = /gone { return 410; } location = /teapot { return 418; }'
        . ' location = /few { limit_req zone=few; pgq_get main; } location = /behind { proxy_pass http://127.0.0.1:1; }'
        . ' location = /tiny { pgq_post tiny; } error_page 410 418 429 /problem;',
    pools     => 'pgq_pool main "' . $pg->conninfo(user => 'ngx_pgq_web') . '"; pgq_pool tiny "' . $pg->conninfo(user => 'ngx_pgq_web') . '" size=100;',
)->start;

sub sent {
    my ($bytes) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($bytes);
    return $client->answer;
}

my $host = "Host: localhost\r\n";

# [request, status, phrase, code, bytes]
for my $case (
    [ 'a malformed header',       400, 'Bad Request',                     'bad_request',        "GET /get HTTP/1.1\r\n$host: x\r\n\r\n" ],
    [ 'an unknown path', 404, 'Not Found',                       'not_found',          "GET /nowhere HTTP/1.1\r\n$host\r\n" ],
    [ 'TRACE',                    405, 'Method Not Allowed',              'method_not_allowed', "TRACE /get HTTP/1.1\r\n$host\r\n" ],
    [ 'a removed resource',       410, 'Gone',                            'not_found',          "GET /gone HTTP/1.1\r\n$host\r\n" ],
    [ 'a body of 2 kB',           413, 'Content Too Large',               'too_large',          "POST /post HTTP/1.1\r\n${host}Content-Length: 2000\r\n\r\n" ],
    [ 'a URI of 4 kB',            414, 'URI Too Long',                    'uri_too_long',       'GET /' . 'x' x 4000 . " HTTP/1.1\r\n$host\r\n" ],
    [ 'a header of 4 kB',         431, 'Request Header Fields Too Large', 'headers_too_large',  "GET /get HTTP/1.1\r\n${host}X: " . 'x' x 4000 . "\r\n\r\n" ],
    [ 'a transfer coding',        501, 'Not Implemented',                 'not_implemented',    "POST /post HTTP/1.1\r\n${host}Transfer-Encoding: gzip, chunked\r\n\r\n" ],
    [ 'a proxied server that is down',   502, 'Bad Gateway',                     'bad_gateway',        "GET /behind HTTP/1.1\r\n$host\r\n" ],
    [ 'HTTP/2.0 as a version',    505, 'HTTP Version Not Supported',      'bad_version',        "GET /get HTTP/2.0\r\n$host\r\n" ],
) {
    my ($what, $status, $phrase, $code, $bytes) = @$case;
    my $answer = sent($bytes);
    is_problem($answer, $status, $code, $what);
    is($answer->{reason}, $phrase, "$what is answered with the status phrase");
    my $problem = $answer->json;
    is($problem->{status}, $status, "$what: the problem has the status");
    is($problem->{title}, $phrase, "$what: the title is the status phrase");
    unlike($problem->{detail}, qr/^The request was refused/, "$what: the detail describes the error");
}

sent("GET /few HTTP/1.1\r\n$host\r\n");
is(sent("GET /few HTTP/1.1\r\n$host\r\n")->json->{title}, 'Too Many Requests', 'a request that limit_req refuses is answered with a problem document');
my $answer = sent("GET /teapot HTTP/1.1\r\n$host\r\n");
is($answer->status . ' ' . $answer->json->{code}, '418 error', 'a status without an entry in the problem table has the code error');

# ---- requests with Expect: 100-continue
for my $case (
    [ 'a wrong method',   405, '/get',      {} ],
    [ 'a content coding', 415, '/post',     { 'Content-Encoding' => 'gzip' } ],
    [ 'another charset',  415, '/post',     { 'Content-Type' => 'text/plain; charset=latin1' } ],
    [ 'a malformed type', 400, '/post',     { 'Content-Type' => 'x/' } ],
    [ 'a malformed key',  400, '/post',     { 'Idempotency-Key' => '"x' } ],
    [ 'a missing key',    400, '/required', {} ],
    [ 'a foreign origin', 403, '/post',     { Origin => 'http://evil' } ],
    [ 'a length that the pool cannot hold', 413, '/tiny', { 'Content-Length' => 101 } ],
    [ 'a length that nginx refuses', 413, '/post', { 'Content-Length' => 2000 } ],
    [ 'an unknown path', 404, '/nowhere', {} ],
) {
    my ($what, $status, $path, $headers) = @$case;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', $path, headers => { 'Content-Length' => 3, Expect => '100-continue', %$headers }));
    is($client->answer(interim => 1)->status, $status, "$what is refused without 100 Continue");
    ok($client->closed, "$what: the connection is closed after the refusal");
}

# ---- requests with a malformed chunk
for my $case (
    [ 'a malformed type', 400, 'bad_type',           'POST /post', 'Content-Type: x/' ],
    [ 'a content coding', 415, 'unsupported_type',   'POST /post', 'Content-Encoding: gzip' ],
    [ 'a malformed key',  400, 'bad_key',            'POST /post', 'Idempotency-Key: "x' ],
    [ 'a foreign origin', 403, 'foreign_origin',     'POST /post', 'Origin: http://evil' ],
    [ 'a wrong method',   405, 'method_not_allowed', 'PUT /post',  'X: y' ],
    [ 'a valid header',   400, 'bad_request',        'POST /post', 'X: y' ],
) {
    my ($what, $status, $code, $line, $header) = @$case;
    my $client = Pgq::Client->new($nginx);
    $client->send("$line HTTP/1.1\r\n$host$header\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    my $answer = $client->answer;
    is($answer && $answer->status . ' ' . $answer->json->{code}, "$status $code", "a malformed chunk with $what is answered with $status $code");
    ok($client->closed, "a malformed chunk with $what: the connection is closed");
}

my $client = Pgq::Client->new($nginx);
$client->send($client->request('POST', '/post', headers => { 'Content-Length' => 3, Expect => '100-continue' }));
is($client->answer(interim => 1)->status, 100, '100 Continue is sent for a request that may be accepted');
$client->send('"a"');
is($client->answer->status, 202, 'a body sent after 100 Continue is accepted');

done_testing;
