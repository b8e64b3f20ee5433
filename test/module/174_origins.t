# P12: a page may post and read if it has the server's origin or one of pgq_origins; a page of another origin is refused
# before its body is read. Programs send neither Origin nor Sec-Fetch-Site, and may post and read.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    locations => <<'END',
location = /metrics { pgq_metrics; }
location = /status  { pgq_status; }
location = /listed  { pgq_origins https://app.example.com http://localhost:3000 https://*.example.org; pgq_post main; }
location = /read    { pgq_origins https://app.example.com; pgq_get main; }
location = /any     { pgq_origins *; pgq_post main; }
location = /other   { pgq_origins *; add_header Access-Control-Allow-Origin https://own.example; add_header Vary Accept; return 204; }
END
)->start;
my $host = 'localhost:' . $nginx->port;

sub ask {
    my ($method, $path, %headers) = @_;
    return Pgq::Client->new($nginx)->method($method, $path, $method eq 'POST' ? '1' : undef, Host => $host, %headers);
}

# [client, headers, whether its requests are accepted]
for my $case (
    [ 'a program',                      {},                                                                1 ],
    [ 'a page of the server',           { Origin => "http://$host", 'Sec-Fetch-Site' => 'same-origin' },   1 ],
    [ 'a page of the server, in capitals', { Origin => 'HTTP://' . uc $host },                                1 ],
    [ 'a page of the server on port 80', { Origin => 'http://a.example', Host => 'a.example:80' },          1 ],
    [ 'a page of the server behind a TLS proxy', { Origin => 'https://a.example', Host => 'a.example' },            1 ],
    [ 'the address bar',                { 'Sec-Fetch-Site' => 'none' },                                    1 ],
    [ 'a page of another site',         { 'Sec-Fetch-Site' => 'cross-site' },                              0 ],
    [ 'a page of another site, in capitals', { 'Sec-Fetch-Site' => 'Cross-Site' },                         0 ],
    [ 'another origin',                 { Origin => 'https://evil.example.net' },                          0 ],
    [ 'another port',                   { Origin => 'http://localhost:1' },                                0 ],
    [ 'a missing port',                 { Origin => 'http://localhost' },                                  0 ],
    [ "an origin that begins with the server's", { Origin => "http://$host.evil.example" },                         0 ],
    [ 'a sandboxed page',               { Origin => 'null' },                                              0 ],
    [ 'an empty origin',                { Origin => '' },                                                  0 ],
    [ 'a scheme that is not HTTP',      { Origin => "chrome-extension://$host" },                          0 ],
    [ 'a page of the server, with white space around its origin', { Origin => " \t http://$host\t ", 'Sec-Fetch-Site' => "\tsame-origin\t" }, 1 ],
    [ 'another origin, with white space around it', { Origin => "\thttp://evil.example.net\t" },              0 ],
    [ 'an origin of white space',       { Origin => "\t" },                                               0 ],
    [ 'white space within an origin',   { Origin => "http://$host\tx" },                                  0 ],
    [ 'two origins with a comma',       { Origin => "http://$host, http://$host" },                       0 ],
    [ 'two origins without a comma',    { Origin => "http://$host http://$host" },                       0 ],
    [ 'a page of another site, with white space around the field', { 'Sec-Fetch-Site' => "\tcross-site\t" },                    0 ],
    [ 'a page of another site, with a parameter', { 'Sec-Fetch-Site' => 'cross-site;a=b' },                         0 ],
    [ 'a page of another site, in a list', { 'Sec-Fetch-Site' => 'cross-site, same-origin' },                0 ],
    [ 'a malformed Sec-Fetch-Site',     { 'Sec-Fetch-Site' => '"cross-site"' },                           0 ],
    [ 'a page of the server, with a parameter of Sec-Fetch-Site', { Origin => "http://$host", 'Sec-Fetch-Site' => 'same-origin ; a' }, 1 ],
    [ 'an unknown value of Sec-Fetch-Site', { 'Sec-Fetch-Site' => 'cross-site-to-come' },                     1 ],
    [ "the server's origin in a cross-site request", { Origin => "http://$host", 'Sec-Fetch-Site' => 'cross-site' },    0 ],
    [ 'a form with a null origin',      { Origin => 'null', 'Content-Type' => 'application/x-www-form-urlencoded' }, 0 ],
    [ 'a form of plain text of another origin', { Origin => 'http://x', 'Content-Type' => 'text/plain' },          0 ],
) {
    my ($what, $headers, $good) = @$case;

    for my $request ([ POST => '/post', 202 ], [ GET => '/get', 200 ], [ OPTIONS => '/post', 204 ], [ OPTIONS => '/get', 204 ],
        [ GET => '/metrics', 200 ], [ GET => '/status', 200 ]) {
        my ($method, $path, $status) = @$request;
        my $answer = ask($method, $path, %$headers);
        is($answer->status, $good ? $status : 403, "$what: $method $path is " . ($good ? 'answered' : 'refused'));
        is($answer->json->{code}, 'foreign_origin', "$what: $method $path has the code foreign_origin") if !$good;
        is($answer->header('access-control-allow-origin'), undef, "$what: $method $path has no Access-Control-Allow-Origin");
    }
}

# ---- fields with several lines
for my $case (
    [ 'two origins',                                    403, '/post',   "Origin: http://$host", 'Origin: http://evil' ],
    [ 'the same origin twice',                          403, '/post',   "Origin: http://$host", "Origin: http://$host" ],
    [ 'an origin and an empty one',                     403, '/post',   "Origin: http://$host", 'Origin:' ],
    [ 'a listed origin twice',                          403, '/listed', ('Origin: https://app.example.com') x 2 ],
    [ 'any origin twice',                               403, '/any',    ('Origin: https://app.example.com') x 2 ],
    [ 'any origin, once',                               202, '/any',    "origin:\thttps://app.example.com\t" ],
    [ 'another site in the first of two lines',         403, '/post',   'Sec-Fetch-Site: cross-site', 'Sec-Fetch-Site: none' ],
    [ 'another site in the second of two lines',        403, '/post',   'Sec-Fetch-Site: none', 'sec-fetch-site:cross-site' ],
    [ 'two lines without another site',                 202, '/post',   'Sec-Fetch-Site: none', 'Sec-Fetch-Site: same-origin' ],
) {
    my ($what, $status, $path, @lines) = @$case;
    my $client = Pgq::Client->new($nginx);
    $client->send(join "\r\n", "POST $path HTTP/1.1", "Host: $host", @lines, 'Content-Length: 1', '', '1');
    my $answer = $client->answer;
    is($answer->status, $status, "$what: the answer is $status");
    is($answer->header('access-control-allow-origin'), $status == 202 && $path eq '/any' ? '*' : undef, "$what: Access-Control-Allow-Origin is set only for an accepted request");
}

# ---- the body of a refused request
my $client = Pgq::Client->new($nginx);
$client->send("POST /post HTTP/1.1\r\nHost: $host\r\nOrigin: http://$host\r\nOrigin: http://evil\r\nContent-Length: 1\r\n\r\n1");
is($client->answer->status, 403, 'a request with two origins is refused');
$client = Pgq::Client->new($nginx);
$client->send("POST /post HTTP/1.1\r\nHost: $host\r\nOrigin: http://evil\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n");
is($client->answer(interim => 1)->status, 403, 'a request of a foreign origin is refused without 100 Continue');
ok($client->closed, 'the connection of a foreign origin is closed');

# ---- pgq_origins
for my $case (
    [ '/listed', 'https://app.example.com',          202 ],
    [ '/listed', 'https://APP.example.com',          202 ],
    [ '/listed', 'http://localhost:3000',            202 ],
    [ '/listed', 'https://a.example.org',            202 ],
    [ '/listed', 'https://a.b.example.org',          202 ],
    [ '/listed', 'https://example.org',              403 ],
    [ '/listed', 'http://a.example.org',             403 ],
    [ '/listed', 'https://example.org.evil',         403 ],
    [ '/listed', 'https://evil/.example.org',        403 ],
    [ '/listed', 'https://app.example.com:8443',     403 ],
    [ '/listed', 'null',                             403 ],
    [ '/listed', "\thttps://a.example.org\t",        202, 'https://a.example.org' ],
    [ '/listed', "https://a\tb.example.org",         403 ],
    [ '/listed', 'https://a b.example.org',          403 ],
    [ '/listed', 'https://a,b.example.org',          403 ],
    [ '/any',    'https://evil.example.net',         202, '*' ],
    [ '/any',    'null',                             202, '*' ],
) {
    my ($path, $origin, $status, $allowed) = @$case;
    my $answer = ask('POST', $path, Origin => $origin, 'Sec-Fetch-Site' => 'cross-site');
    is($answer->status, $status, "$path, $origin: the answer is $status");
    is($answer->header('access-control-allow-origin'), $status == 202 ? $allowed // $origin : undef, "$path, $origin: Access-Control-Allow-Origin names an accepted origin");
    is($answer->header('vary'), 'Origin', "$path, $origin: the answer varies with the origin");
    is($answer->header('access-control-allow-credentials'), undef, "$path, $origin: the answer does not allow credentials");
    is($answer->header('access-control-allow-methods'), undef, "$path, $origin: the answer has no headers of a preflight");
}

is(ask('GET', '/read', Origin => 'https://app.example.com')->header('access-control-allow-origin'), 'https://app.example.com', 'a GET of a listed origin may be read by its page');
is(ask('POST', '/listed', 'Sec-Fetch-Site' => 'cross-site')->status, 403, 'a cross-site request without an origin is refused by a list of origins');
is(ask('POST', '/any', 'Sec-Fetch-Site' => 'cross-site')->status, 202, 'a cross-site request without an origin is accepted with pgq_origins *');
is(ask('POST', '/listed')->status, 202, 'a program is accepted with a list of origins');
is(ask('POST', '/listed', Origin => "http://$host")->status, 202, 'a page of the server is accepted with a list of origins');

my $other = ask('GET', '/other', Origin => 'https://app.example.com');
is($other->header('access-control-allow-origin') . ' ' . $other->header('vary'), 'https://own.example Accept', 'the headers of another handler are not changed');

my $answer = ask('OPTIONS', '/listed', Origin => 'https://app.example.com', 'Access-Control-Request-Method' => 'POST');
is($answer->status, 204, 'a preflight is answered with 204');
is($answer->header('access-control-allow-methods'), 'GET, HEAD, POST, PUT, DELETE, OPTIONS', 'a preflight is answered with the allowed methods');
like($answer->header('access-control-allow-headers'), qr/\bContent-Type\b.*\bIdempotency-Key\b/, 'a preflight is answered with the allowed headers');

# ---- the directive's parameters
for my $case ([ 'https://a.example', 1 ], [ 'http://a:1 https://b', 1 ], [ 'a.example', 0 ], [ 'https://', 0 ], [ 'https://a/', 0 ],
    [ 'https://*', 0 ], [ 'null', 0 ], [ 'https://a,https://b', 0 ]) {
    my ($origins, $good) = @$case;
    $nginx->configure(http => "pgq_origins $origins;");
    my ($status, $text) = $nginx->test;
    is($status, $good ? 0 : 1, "pgq_origins $origins is " . ($good ? 'accepted' : 'rejected'));
    like($text, qr/invalid origin/, "pgq_origins $origins: the error names the origin") if !$good;
}

done_testing;
