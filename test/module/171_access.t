# The examples of access control: passwords, an authentication service, tokens, other origins, access logs. A request that is
# refused is answered with a problem document before its body is read, and not queued.

use Pgq;

use Digest::SHA qw(hmac_sha256);
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64 encode_base64url decode_base64url);
use POSIX ();

my $examples = Pgq::Host::top() . '/ngx_pgq_module/examples';
my $port     = Pgq::Host::free_port();
my $secret   = 'a shared secret';
my $pg       = Pgq::Postgres->new->start;
my $plain    = 'location = /post { pgq_post main; } location = /get { pgq_get main; }';
my $http     = "include $examples/http.conf; upstream identity { server 127.0.0.1:$port; }";
my $nginx    = Pgq::Nginx->new(pg => $pg, http => $http, endpoints => '');

# Starts nginx with these examples and lines in its server block.
sub start_with {
    my ($lines, @names) = @_;
    $nginx->stop if $nginx->running;
    $nginx->configure(endpoints => join ' ', $lines, map { "include $examples/$_.conf;" } 'problem', @names);
    $nginx->start;
    return;
}

sub post {
    my ($body, %headers) = @_;
    return Pgq::Client->new($nginx)->post('/post', $body, %headers);
}

# Sends a request whose body waits for 100 Continue. Returns its statuses.
sub expecting {
    my (%headers) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', '/post', headers => { 'Content-Length' => 3, Expect => '100-continue', %headers }));
    my $first = $client->answer(interim => 1)->status;
    return $first if $first != 100;
    $client->send('"h"');
    return "100 " . $client->answer->status;
}

# ---- names and passwords
start_with('', 'basic');
my $hash = `openssl passwd -apr1 -salt 12345678 wonder`;
Pgq::Host::spew($nginx->dir . '/posters', "alice:${hash}carol:$hash");
my %alice = (Authorization => 'Basic ' . encode_base64('alice:wonder', ''));
my %wrong = (Authorization => 'Basic ' . encode_base64('alice:land', ''));

is(post('1', %alice)->status, 202, 'basic: a message with the password is accepted');
is_problem(post('1'), 401, 'unauthorized', 'basic: a message without a password');
is_problem(post('1', %wrong), 401, 'unauthorized', 'basic: a message with a wrong password');
is(post('1')->header('www-authenticate'), 'Basic realm="posts"', 'basic: the refusal names the scheme and the realm');
is(expecting(), 401, 'basic: a message is refused without 100 Continue');
is(expecting(%alice), '100 202', 'basic: 100 Continue is sent to a user with the password');
is(Pgq::Client->new($nginx)->method('OPTIONS', '/post')->status, 204, 'basic: a preflight needs no password');
is(Pgq::Client->new($nginx)->get('/get')->status, 200, 'basic: a GET needs no password');
is($pg->count_posts, 2, 'basic: no refused message is a post');
my %carol = (Authorization => 'Basic ' . encode_base64('carol:wonder', ''));
my @keyed = map { post('1', %$_, 'Idempotency-Key' => '"mine"')->json->{id} } \%alice, \%alice, \%carol;
is($keyed[0], $keyed[1], "basic: a user's idempotency key is the same key when it is repeated");
isnt($keyed[0], $keyed[2], "basic: the same key of another user is another key");

# ---- the live page
$nginx->configure(http => "pgq_ring main; $http");
start_with('', 'page');
Pgq::Host::spew($nginx->dir . '/readers', "alice:$hash");

for my $path (qw(/ /page.js /get /stream /status /metrics)) {
    is_problem(Pgq::Client->new($nginx)->get($path), 401, 'unauthorized', "page: a GET of $path without a password");
}
for my $path (qw(/ /page.js /get /stream?wait=0 /status /metrics)) {
    is(Pgq::Client->new($nginx)->method('GET', $path, undef, %alice)->status, 200, "page: a GET of $path with the password is answered");
}
is_problem(post('1'), 401, 'unauthorized', 'page: a message without a password');
$nginx->configure(http => $http);

# ---- an authentication service: sessions by a cookie, tokens with HS256
sub token {
    my ($claims, $key) = @_;
    my $text = join '.', map { encode_base64url($_) } '{"alg":"HS256","typ":"JWT"}', $claims;
    return $text . '.' . encode_base64url(hmac_sha256($text, $key // $secret));
}

sub verify {
    my ($text, $signature) = ($_[0] // '') =~ /^Bearer ([\w-]+\.[\w-]+)\.([\w-]+)$/ or return '401 no token';
    my ($head, $claims) = map { eval { JSON::PP::decode_json(decode_base64url($_)) } || {} } split /\./, $text;
    return '401 signature' if ($head->{alg} // '') ne 'HS256' || $signature ne encode_base64url(hmac_sha256($text, $secret));
    return '401 expired' if ($claims->{exp} // 0) < time;
    return "200 $claims->{sub}";
}

sub serve {
    my ($listen, $log) = @_;
    my %session = (good => '200 OK', evil => '403 Forbidden', odd => '302 Found', silent => '');

    while (my $client = $listen->accept) {
        my $request = '';
        sysread $client, $request, 65536, length $request or last while $request !~ /\r\n\r\n/;
        open my $out, '>>', $log or die "$log: $!\n";
        print {$out} $request =~ s/\r\n/|/gr, "\n";
        close $out;

        my %header = map { /^([^:]+): (.*)$/ ? (lc $1 => $2) : () } split /\r\n/, $request;
        my $reply = $request =~ m{^\w+ /verify } ? verify($header{authorization})
            : $session{ ($header{cookie} // '') =~ /session=(\w+)/ ? $1 : '' } // '401 Unauthorized';
        if (!$reply) {
            1 while sysread $client, my $end, 1;    # until nginx's timeout
            next;
        }
        my ($code, $words) = split / /, $reply, 2;
        print {$client} "HTTP/1.1 $code X\r\nContent-Length: 0\r\nConnection: close\r\n",
            $code == 200 ? "X-Subject: $words\r\n" : qq(WWW-Authenticate: Bearer error="$words"\r\n), "\r\n";
        close $client;
    }
}

my $seen   = $nginx->dir . '/identity';
my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 20, ReuseAddr => 1) or die "port $port: $!\n";
defined(my $service = fork) or die "fork: $!\n";
if (!$service) {
    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
    eval { serve($listen, $seen) };
    POSIX::_exit(0);
}
close $listen;

start_with('', 'subrequest');
is(post('1', Cookie => 'session=good')->status, 202, 'subrequest: a message with a session is accepted');
is(post('"' . 'x' x 300_000 . '"', Cookie => 'session=good')->status, 202, 'subrequest: a message that is written to disk is accepted');
is(Pgq::Client->new($nginx)->post_chunked('/post', [ '"ch', 'unks"' ], Cookie => 'session=good')->status, 202, 'subrequest: a chunked message is accepted');
is_problem(post('1'), 401, 'unauthorized', 'subrequest: a message without a session');
is_problem(post('1', Cookie => 'session=evil'), 403, 'forbidden', 'subrequest: a message with a session that is not allowed');
is_problem(post('1', Cookie => 'session=odd'), 500, 'internal_error', 'subrequest: an unexpected answer of the service');
is_problem(post('1', Cookie => 'session=silent'), 500, 'internal_error', 'subrequest: a service that does not answer');
is(expecting(), 401, 'subrequest: a message is refused without 100 Continue');
is(expecting(Cookie => 'session=good'), '100 202', 'subrequest: 100 Continue is sent with a session');
is(Pgq::Client->new($nginx)->get('/get')->status, 200, 'subrequest: a GET needs no session');
is($pg->count_posts, 8, 'subrequest: no refused message is a post');
my @requests = split /\n/, Pgq::Host::slurp($seen);
is(@requests, 9, 'subrequest: the service is asked once for each POST');
is((grep { m{^GET /session HTTP/1\.1\|X-Original-Method: POST\|X-Original-URI: /post\|} && /\|\|$/ } @requests), 9,
    'subrequest: the service receives the headers of the POST without its body') or diag(@requests);

# ---- tokens, and scripts of other origins
$nginx->configure(http => "$http log_format subject '\$status [\$subject]';");
start_with('access_log subject.log subject;', 'cors', 'jwt');
$nginx->configure(http => $http);
my %good = (Authorization => 'Bearer ' . token('{"sub":"bob","exp":' . (time + 600) . '}'));
my $answer;
is(post('1', %good)->status, 202, 'jwt: a message with a token is accepted');
my %other = (Authorization => 'Bearer ' . token('{"sub":"eve","exp":' . (time + 600) . '}'));
isnt(post('1', %good, 'Idempotency-Key' => '"k"')->json->{id}, post('1', %other, 'Idempotency-Key' => '"k"')->json->{id}, 'jwt: the same key of another subject is another key');
for my $case (
    [ 'no token',  'jwt: a message without a token' ],
    [ 'signature', 'jwt: a token with a wrong signature', token('{"sub":"bob","exp":9999999999}', 'a guess') ],
    [ 'expired',   'jwt: an expired token', token('{"sub":"bob","exp":1}') ],
    [ 'signature', 'jwt: a token without a signature', encode_base64url('{"alg":"none"}') . '.' . encode_base64url('{"sub":"bob"}') . '.AA' ],
) {
    my ($words, $what, $token) = @$case;
    $answer = post('1', $token ? (Authorization => "Bearer $token") : (), Origin => 'https://app.example.com');
    is_problem($answer, 401, 'unauthorized', $what);
    is($answer->header('www-authenticate'), qq(Bearer error="$words"), "$what: WWW-Authenticate has the error of the service");
    is($answer->header('access-control-allow-origin'), 'https://app.example.com', "$what: a script may read the refusal");
}
is(expecting(), 401, 'jwt: a message is refused without 100 Continue');
is(expecting(%good), '100 202', 'jwt: 100 Continue is sent with a token');
is($pg->count_posts, 12, 'jwt: no refused message is a post');
ok((poll_until { Pgq::Host::slurp($nginx->dir . '/subject.log') =~ /^202 \[bob\]$/m }), 'jwt: the access log has the subject of the token');

my %allowed = (
    'access-control-allow-origin'   => 'https://app.example.com',
    'access-control-allow-methods'  => 'GET, HEAD, POST, PUT, DELETE, OPTIONS',
    'access-control-allow-headers'  => 'Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer',
    'access-control-max-age'        => 600,
    'access-control-expose-headers' => 'ETag, Idempotency-Replayed, Preference-Applied, Retry-After',
);

# Sends a preflight. Returns its status, its CORS headers and the answer.
sub preflight {
    my ($origin, $path) = @_;
    my $answer = Pgq::Client->new($nginx)->method('OPTIONS', $path, undef, Origin => $origin,
        'Access-Control-Request-Method' => 'POST', 'Access-Control-Request-Headers' => 'content-type');
    return ($answer->status, { map { $_ => $answer->header($_) } grep { /^access-control/ } keys %{ $answer->{headers} } }, $answer);
}

sub preflights {
    my ($where) = @_;

    for my $path ('/post', '/get') {
        my ($status, $headers, $answer) = preflight('https://app.example.com', $path);
        is($status, 204, "$where: a preflight of $path is answered with 204");
        is_deeply($headers, \%allowed, "$where: a preflight of $path has the allowed methods and headers");
        is($answer->header('vary'), 'Origin', "$where: a preflight of $path varies with the origin");
    }
    is((preflight('https://www.example.org', '/post'))[1]{'access-control-allow-origin'}, 'https://www.example.org', "$where: a preflight of another allowed origin is answered");
    for my $origin ('https://evil.example.net', 'https://app.example.com.evil.net', 'http://app.example.com', 'null') {
        is_deeply([ (preflight($origin, '/get'))[ 0, 1 ] ], [ 403, {} ], "$where: a preflight of $origin is refused");
    }

    return;
}

preflights('cors with jwt');

kill 'KILL', $service;
waitpid $service, 0;

start_with($plain, 'cors');
preflights('cors');
my %script = (Origin => 'https://app.example.com');
for my $case ([ 202, '1' ], [ 400, '{' ], [ 413, '"' . 'x' x 2_000_000 . '"' ], [ 415, '1', 'Content-Encoding' => 'gzip' ]) {
    my ($status, $body, %headers) = @$case;
    $answer = post($body, %script, %headers);
    is($answer->status, $status, "cors: a script's message is answered with $status");
    is($answer->header('access-control-allow-origin'), 'https://app.example.com', "cors: a script may read the answer $status");
    is($answer->header('access-control-expose-headers'), $allowed{'access-control-expose-headers'}, "cors: a script may read the headers of the answer $status");
    is($answer->header('access-control-allow-methods'), undef, "cors: the answer $status has no headers of a preflight");
}
$answer = post('1', Origin => 'https://evil.example.net');
is_problem($answer, 403, 'foreign_origin', 'cors: a message of a foreign origin');
is($answer->header('access-control-allow-origin'), undef, 'cors: a script of a foreign origin cannot read the refusal');
start_with('', 'cors', 'basic');
is((preflight('https://app.example.com', '/post'))[0], 204, 'cors with basic: a preflight needs no password');
is_problem(post('1', %script), 401, 'unauthorized', 'cors with basic: a message without a password');
$nginx->configure(http => "pgq_ring main; $http");
start_with('', 'cors', 'limit');
is((preflight('https://app.example.com', $_))[1]{'access-control-allow-origin'}, 'https://app.example.com', "cors with limit: a preflight of $_ is answered") for '/post', '/post/orders/eu', '/stream';
$nginx->configure(http => $http);

# ---- access logs
start_with($plain, 'access_log');
my $id = post('"logged"')->json->{id};
post('{"bad');
Pgq::Client->new($nginx)->get('/get?limit=1');
my $log = sub { my ($name) = @_; return map { JSON::PP::decode_json($_) } split /\n/, Pgq::Host::slurp($nginx->dir . "/$name") };
ok((poll_until { $log->('posts.log') == 3 }), 'access_log: each request is a line of JSON');
my ($first, $second, $third) = $log->('posts.log');
is_deeply([ @$first{qw(request status id batch outcome)} ], [ 'POST /post', 202, $id, 1, 'queued' ], 'access_log: a queued message is logged with its id, batch and outcome');
is_deeply([ @$second{qw(request status id outcome)} ], [ 'POST /post', 400, '', 'refused' ], 'access_log: a refused message is logged without an id');
is_deeply([ @$third{qw(request status outcome)} ], [ 'GET /get', 200, '' ], 'access_log: a GET is logged');
post('2', 'Idempotency-Key' => '"twice"') for 1 .. 2;
ok((poll_until { $log->('posts.log') == 5 }), 'access_log: repeated messages are logged');
is(($log->('posts.log'))[4]{outcome}, 'replayed', 'access_log: a repeated key has the outcome replayed');
is_deeply([ map { $_->{status} } $log->('not_queued.log') ], [ 400 ], 'access_log: not_queued.log has only the refused message');

done_testing;
