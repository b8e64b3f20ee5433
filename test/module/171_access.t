# The examples of access, as they stand: passwords, a service that says who is welcome, tokens, other origins, access
# logs. Who is refused is refused before the body is read, as a problem; nothing of it is queued.

use Pgq;

use Digest::SHA qw(hmac_sha256);
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64 encode_base64url decode_base64url);
use POSIX ();

my $examples = Pgq::Host::top() . '/ngx_pgq_module/examples';
my $port     = Pgq::Host::free_port();
my $secret   = 'only the two of us know';
my $pg       = Pgq::Postgres->new->start;
my $plain    = 'location = /post { pgq_post main; } location = /get { pgq_get main; }';
my $http     = "include $examples/http.conf; upstream identity { server 127.0.0.1:$port; }";
my $nginx    = Pgq::Nginx->new(pg => $pg, http => $http, doors => '');

# Runs it with these examples in its server block, and other lines.
sub with {
    my ($lines, @names) = @_;
    $nginx->stop if $nginx->running;
    $nginx->configure(doors => join ' ', $lines, map { "include $examples/$_.conf;" } 'problem', @names);
    $nginx->start;
    return;
}

sub post {
    my ($body, %headers) = @_;
    return Pgq::Client->new($nginx)->post('/post', $body, %headers);
}

# A request whose body is sent only when nginx asks for it: the statuses it answers.
sub hesitant {
    my (%headers) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', '/post', headers => { 'Content-Length' => 3, Expect => '100-continue', %headers }));
    my $first = $client->answer(interim => 1)->status;
    return $first if $first != 100;
    $client->send('"h"');
    return "100 " . $client->answer->status;
}

sub problem {
    my ($answer, $status, $code, $what) = @_;
    is($answer->status, $status, "$what: $status");
    is($answer->header('content-type') . ' ' . $answer->json->{code}, "application/problem+json $code", 'as a problem');
    return;
}

sub posts {
    $pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
    return $pg->safe_psql('select count(*) from posts');
}

# ---- names and passwords

with('', 'basic');
my $wonder = `openssl passwd -apr1 -salt 12345678 wonder`;
Pgq::Host::spew($nginx->dir . '/posters', "alice:${wonder}carol:$wonder");
my %alice = (Authorization => 'Basic ' . encode_base64('alice:wonder', ''));
my %wrong = (Authorization => 'Basic ' . encode_base64('alice:land', ''));

is(post('1', %alice)->status, 202, 'basic: with the password');
problem(post('1'), 401, 'unauthorized', 'without one');
problem(post('1', %wrong), 401, 'unauthorized', 'with a wrong one');
is(post('1')->header('www-authenticate'), 'Basic realm="posts"', 'which says what is wanted');
is(hesitant(), 401, 'the body is not asked for');
is(hesitant(%alice), '100 202', 'but of who is welcome');
is(Pgq::Client->new($nginx)->method('OPTIONS', '/post')->status, 204, 'a preflight needs none');
is(Pgq::Client->new($nginx)->get('/get')->status, 200, 'nor does GET');
is(posts(), 2, 'who was refused posted nothing');
my %carol = (Authorization => 'Basic ' . encode_base64('carol:wonder', ''));
my @keyed = map { post('1', %$_, 'Idempotency-Key' => '"mine"')->json->{id} } \%alice, \%alice, \%carol;
is($keyed[0], $keyed[1], 'a key of hers is hers');
isnt($keyed[0], $keyed[2], "another's is another");

# ---- the identity service: sessions in a cookie, tokens of HS256

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
        my $said = $request =~ m{^\w+ /verify } ? verify($header{authorization})
            : $session{ ($header{cookie} // '') =~ /session=(\w+)/ ? $1 : '' } // '401 Unauthorized';
        if (!$said) {
            1 while sysread $client, my $end, 1;    # until nginx loses patience
            next;
        }
        my ($code, $words) = split / /, $said, 2;
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

with('', 'subrequest');
is(post('1', Cookie => 'session=good')->status, 202, 'subrequest: with a session');
is(post('"' . 'x' x 300_000 . '"', Cookie => 'session=good')->status, 202, 'a message that is written to disk');
is(Pgq::Client->new($nginx)->post_chunked('/post', [ '"ch', 'unks"' ], Cookie => 'session=good')->status, 202, 'one in chunks');
problem(post('1'), 401, 'unauthorized', 'without one');
problem(post('1', Cookie => 'session=evil'), 403, 'forbidden', 'with one that may not');
problem(post('1', Cookie => 'session=odd'), 500, 'internal_error', 'when the service says something else');
problem(post('1', Cookie => 'session=silent'), 500, 'internal_error', 'when it says nothing');
is(hesitant(), 401, 'the body is not asked for');
is(hesitant(Cookie => 'session=good'), '100 202', 'but of who is welcome');
is(Pgq::Client->new($nginx)->get('/get')->status, 200, 'GET needs none');
is(posts(), 8, 'who was refused posted nothing');
my @requests = split /\n/, Pgq::Host::slurp($seen);
is(@requests, 9, 'each POST was asked about once');
is((grep { m{^GET /session HTTP/1\.1\|X-Original-Method: POST\|X-Original-URI: /post\|} && /\|\|$/ } @requests), 9,
    'with its headers and without its body') or diag(@requests);

# ---- tokens, and scripts of other origins

$nginx->configure(http => "$http log_format subject '\$status [\$subject]';");
with('access_log subject.log subject;', 'cors', 'jwt');
$nginx->configure(http => $http);
my %good = (Authorization => 'Bearer ' . token('{"sub":"bob","exp":' . (time + 600) . '}'));
my $answer;
is(post('1', %good)->status, 202, 'jwt: with a token');
my %other = (Authorization => 'Bearer ' . token('{"sub":"eve","exp":' . (time + 600) . '}'));
isnt(post('1', %good, 'Idempotency-Key' => '"k"')->json->{id}, post('1', %other, 'Idempotency-Key' => '"k"')->json->{id}, 'keys are those of the subject');
for my $case (
    [ 'no token',  'none' ],
    [ 'signature', 'one that somebody else signed', token('{"sub":"bob","exp":9999999999}', 'a guess') ],
    [ 'expired',   'one that is too old', token('{"sub":"bob","exp":1}') ],
    [ 'signature', 'one without a signature', encode_base64url('{"alg":"none"}') . '.' . encode_base64url('{"sub":"bob"}') . '.AA' ],
) {
    my ($words, $what, $token) = @$case;
    $answer = post('1', $token ? (Authorization => "Bearer $token") : (), Origin => 'https://app.example.com');
    problem($answer, 401, 'unauthorized', $what);
    is($answer->header('www-authenticate'), qq(Bearer error="$words"), 'with what the service said');
    is($answer->header('access-control-allow-origin'), 'https://app.example.com', 'which the script may read');
}
is(hesitant(), 401, 'the body is not asked for');
is(hesitant(%good), '100 202', 'but of who is welcome');
is(posts(), 12, 'who was refused posted nothing');
ok((poll_until { Pgq::Host::slurp($nginx->dir . '/subject.log') =~ /^202 \[bob\]$/m }), 'the name in the token can be logged');

my %allowed = (
    'access-control-allow-origin'   => 'https://app.example.com',
    'access-control-allow-methods'  => 'GET, HEAD, POST, OPTIONS',
    'access-control-allow-headers'  => 'Authorization, Content-Type, Idempotency-Key, Prefer',
    'access-control-max-age'        => 600,
    'access-control-expose-headers' => 'ETag, Idempotency-Replayed, Preference-Applied, Retry-After',
);

# What a browser asks first, and the headers of CORS in the answer.
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
        is($status, 204, "$where: a preflight of $path");
        is_deeply($headers, \%allowed, 'is told what is allowed');
        is($answer->header('vary'), 'Origin', 'for this origin');
    }
    is((preflight('https://www.example.org', '/post'))[1]{'access-control-allow-origin'}, 'https://www.example.org', 'another origin');
    for my $origin ('https://evil.example.net', 'https://app.example.com.evil.net', 'http://app.example.com', 'null') {
        is_deeply([ (preflight($origin, '/get'))[ 0, 1 ] ], [ 403, {} ], "$origin is refused");
    }

    return;
}

preflights('cors, with tokens');

kill 'KILL', $service;
waitpid $service, 0;

with($plain, 'cors');
preflights('cors');
my %script = (Origin => 'https://app.example.com');
for my $case ([ 202, '1' ], [ 400, '{' ], [ 413, '"' . 'x' x 2_000_000 . '"' ], [ 415, '1', 'Content-Encoding' => 'gzip' ]) {
    my ($status, $body, %headers) = @$case;
    $answer = post($body, %script, %headers);
    is($answer->status, $status, "a script posts: $status");
    is($answer->header('access-control-allow-origin'), 'https://app.example.com', 'and may read the answer');
    is($answer->header('access-control-expose-headers'), $allowed{'access-control-expose-headers'}, 'with its headers');
    is($answer->header('access-control-allow-methods'), undef, 'which are not a preflight\'s');
}
$answer = post('1', Origin => 'https://evil.example.net');
problem($answer, 403, 'foreign_origin', 'one of another origin');
is($answer->header('access-control-allow-origin'), undef, 'which may not even read that');
with('', 'cors', 'basic');
is((preflight('https://app.example.com', '/post'))[0], 204, 'with passwords, too, a preflight needs none');
problem(post('1', %script), 401, 'unauthorized', 'a script without a password');
with('', 'cors', 'limit');
is((preflight('https://app.example.com', '/post'))[1]{'access-control-allow-origin'}, 'https://app.example.com', 'it goes with limits');

# ---- access logs

with($plain, 'access_log');
my $id = post('"logged"')->json->{id};
post('{"bad');
Pgq::Client->new($nginx)->get('/get?limit=1');
my $log = sub { my ($name) = @_; return map { JSON::PP::decode_json($_) } split /\n/, Pgq::Host::slurp($nginx->dir . "/$name") };
ok((poll_until { $log->('posts.log') == 3 }), 'access_log: each request has a line of JSON');
my ($first, $second, $third) = $log->('posts.log');
is_deeply([ @$first{qw(request status id batch outcome)} ], [ 'POST /post', 202, $id, 1, 'queued' ], 'a message that was queued');
is_deeply([ @$second{qw(request status id outcome)} ], [ 'POST /post', 400, '', 'refused' ], 'one that was not');
is_deeply([ @$third{qw(request status outcome)} ], [ 'GET /get', 200, '' ], 'a GET');
post('2', 'Idempotency-Key' => '"twice"') for 1 .. 2;
ok((poll_until { $log->('posts.log') == 5 }), 'and a message that came twice');
is(($log->('posts.log'))[4]{outcome}, 'replayed', 'is said to be replayed');
is_deeply([ map { $_->{status} } $log->('not_queued.log') ], [ 400 ], 'what was not queued is there once more, alone');

done_testing;
