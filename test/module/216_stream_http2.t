# GET /stream over HTTP/2, TLS, HTTP/1.0 and with gzip: each reader gets each post at once, and a slow one stops no other.

use Pgq;
use Pgq::Host qw(free_port kill_all slurp spawn);
use Pgq::Http2;
use Pgq::Stream;

my $pg = Pgq::Postgres->new->start;
my ($plain2, $tls) = (free_port(), free_port());
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    ring      => 'poll=200ms',
    http      => 'pgq_drain 200ms; gzip on; gzip_types text/event-stream application/x-ndjson; gzip_min_length 1;',
    server    => "listen 127.0.0.1:$plain2 http2; listen 127.0.0.1:$tls ssl http2;"
        . ' ssl_certificate %%PREFIX%%/certificate.pem; ssl_certificate_key %%PREFIX%%/certificate.key;',
    locations => 'location = /stream { pgq_stream main; } location = /one { pgq_stream main; pgq_readers 1; } location = /metrics { pgq_metrics; }',
);
my $dir = $nginx->dir;
my ($failed, undef, $error) = Pgq::Host::run([
    'openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', 2,
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', "$dir/certificate.key", '-out', "$dir/certificate.pem",
]);
is($failed, 0, 'the certificate is created') or diag($error);
$nginx->start;

my $newest = 0;

# Queues posts, and returns the newest id.
sub insert {
    my ($count) = @_;
    $pg->safe_psql("insert into ngx_pgq.queue (data) select to_json(repeat('x', 400)) from generate_series(1, $count)");
    $pg->wait_until_moved;
    return $newest += $count;
}

sub readers { my ($form) = @_; return $nginx->metric(qq(pgq_open_readers{pool="main",transport="$form"})) // 0 }
sub seen    { return join ' ', $_[0] =~ /\{"id":(\d+),/g }

# ---- 50 streams of one HTTP/2 connection
my $client  = Pgq::Http2->new($nginx, port => $plain2, window => 2000);
my @streams = map { $client->request('GET', '/stream?after=0', headers => $_ % 2 ? {} : { accept => 'application/x-ndjson' }) } 1 .. 50;
ok((poll_until { $client->pump(sub { 0 }, 0.05); readers('sse') == 25 && readers('ndjson') == 25 }), '50 streams are open on one connection');
my $slow = $streams[7];
$client->hold($slow);
my $poll = $client->request('GET', '/stream?wait=60&after=0');
insert(1);
ok($client->pump(sub { $client->ended($poll) }), 'a long poll over HTTP/2 ends with a post');
like($client->body($poll), qr/^\{"msg":\[\{"id":1,.*"next":1\}$/s, '... which it has');
insert(19);

my @others = grep { $_ != $slow } @streams;
my $all    = join ' ', 1 .. 20;
ok($client->pump(sub { !grep { seen($client->body($_)) ne $all } @others }), 'each of the other streams gets each post once and in order');
cmp_ok(length $client->body($slow), '<=', 2000, 'a stream whose window is full gets no more than its window');
cmp_ok(length $client->body($others[0]), '>', 8000, '... while the others get far more');

$client->reset($streams[1]);
ok((poll_until { readers('ndjson') + readers('sse') == 49 }), 'a stream that its client resets is no longer counted');
insert(1);
$all .= ' 21';
my @left = grep { $_ != $streams[1] } @others;
ok($client->pump(sub { !grep { seen($client->body($_)) ne $all } @left }), '... and the others go on');

$nginx->reload;
ok($client->pump(sub { !grep { !$client->ended($_) } @left }, 30), 'a reload ends the streams of an HTTP/2 connection');
$client->close;
insert(2);
$client = Pgq::Http2->new($nginx, port => $plain2);
my $resumed = $client->request('GET', '/stream', headers => { 'last-event-id' => 21 });
ok($client->pump(sub { seen($client->body($resumed)) eq '22 23' }), '... and a client resumes where it was');
$client->close;
ok((poll_until { readers('ndjson') + readers('sse') == 0 }), 'no stream is counted when its connection is closed');

# ---- TLS and gzip, by curl
my %curl = map { my ($version, @more) = @$_; ("@$_" => spawn(
    [ 'curl', '-sSN', "--$version", '--cacert', "$dir/certificate.pem", @more, "https://localhost:$tls/stream?after=$newest" ],
    out => "$dir/" . join('.', map { s/[^\w.]//gr } @$_),
)) } [ 'http2' ], [ 'http1.1' ], [ 'http2', '--compressed' ], [ 'http1.1', '--compressed' ], [ 'http1.1', '--compressed', '-HAccept: application/x-ndjson' ];
ok((poll_until { readers('sse') == 4 && readers('ndjson') == 1 }), 'streams over TLS are open');
for my $round (1 .. 3) {
    my $id = insert(1);
    ok((poll_until { slurp("$dir/" . join '.', map { s/[^\w.]//gr } split / (?!appl)/) =~ /\{"id":$id,/ }), "$_: post $round comes at once") for sort keys %curl;
}
kill_all('TERM', values %curl);
ok((poll_until { readers('ndjson') + readers('sse') == 0 }), 'streams over TLS are not counted when their clients have left');

# ---- HTTP/1.0, and requests that follow on the connection
my $old = Pgq::Client->new($nginx);
$old->send("GET /stream?after=" . ($newest - 1) . " HTTP/1.0\r\n\r\n");
my $text = '';
$old->socket->blocking(0);
ok((poll_until { sysread $old->socket, $text, 65536, length $text; $text =~ /\{"id":$newest,.*\n\n/s }), 'a client of HTTP/1.0 gets posts');
unlike($text, qr/^Transfer-Encoding/mi, '... without chunks');
$old->close;

my $next = Pgq::Client->new($nginx);
$next->send(join '', map { "GET $_ HTTP/1.1\r\nHost: localhost\r\n\r\n" } "/stream?wait=60&after=$newest", '/get?limit=1', "/stream?wait=0&after=$newest");
ok((poll_until { readers('page') == 1 }), 'a long poll waits');
insert(1);
is($next->answer->json->{next}, $newest, 'a long poll ends with a post');
is($next->answer->json->{msg}[0]{id}, $newest, '... then a request is answered that was sent with it');
is_deeply($next->answer->json->{msg}, [ { %{ $next->get('/get?limit=1')->json->{msg}[0] } } ], '... and a second one, which finds the post');

# ---- one reader too many
my $only = Pgq::Stream->new($nginx, path => '/one');
Pgq::Stream->pump(sub { defined $only->last }, 10, $only);
my $refused = Pgq::Client->new($nginx)->get('/one?wait=0');
is_problem($refused, 503, 'readers_full', 'a reader above pgq_readers');
like($refused->header('Retry-After'), qr/^[1-9]\d*$/, '... is told when to come again');
$only->cut;
ok((poll_until { Pgq::Client->new($nginx)->get('/one?wait=0')->status == 200 }), '... and gets in when another leaves');

done_testing;
