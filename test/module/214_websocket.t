# GET /stream by WebSocket: the handshake, posts, control frames, and the Close frame for each error.

use Pgq;
use Pgq::Stream;
use Pgq::WebSocket;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pools     => 'pgq_pool main "' . $pg->conninfo(user => 'ngx_pgq_web') . '"; pgq_ring main posts=100;',
    http      => 'pgq_heartbeat 1s; gzip on; client_max_body_size 100k; lingering_timeout 1s;'
        . ' log_format readers "$status $pgq_frames $pgq_cursor";',
    locations => <<'END',
location /stream { pgq_stream main; access_log %%PREFIX%%/readers.log readers; }
location /few    { pgq_stream main; pgq_readers 0; }
location /short  { pgq_stream main; pgq_stream_age 1s; }
location /until  { pgq_stream main; pgq_stream_until $arg_until; }
location /rights { pgq_stream main; pgq_topics $arg_rights; }
location /pages  { pgq_stream main; pgq_origins https://page.example; }
location = /metrics { pgq_metrics; }
END
)->start;

sub socket { return Pgq::WebSocket->new($nginx, @_) }
sub reader { return Pgq::Stream->new($nginx, form => 'websocket', @_) }

sub insert {
    my ($count, $data, $topic) = @_;

    $pg->safe_psql("insert into ngx_pgq.queue (data, topic) select $data, " . ($topic // q{''}) . " from generate_series(1, $count) n");
    $pg->wait_until_moved;

    return $pg->safe_psql('select max(id) from posts');
}

# ---- the handshake

my $answer = main::socket('/stream')->handshake;
is($answer->status, 101, 'a handshake is answered with 101');
is($answer->header('sec-websocket-accept'), 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=', 'Sec-WebSocket-Accept is that of the example in RFC 6455 1.3');
is(lc $answer->header('upgrade'), 'websocket', 'the answer has Upgrade');
is(lc $answer->header('connection'), 'upgrade', 'the answer has Connection: upgrade');
is($answer->header($_), undef, "the answer has no $_")
    for qw(sec-websocket-extensions sec-websocket-protocol transfer-encoding content-length content-type content-encoding);

for my $case (
    [ 'names in other case',        Upgrade    => 'WebSocket', Connection => 'UPGRADE' ],
    [ 'lists',                      Upgrade    => 'h2c, websocket', Connection => 'keep-alive, Upgrade' ],
    [ 'extensions and subprotocols', 'Sec-WebSocket-Extensions' => 'permessage-deflate', 'Sec-WebSocket-Protocol' => 'chat' ],
    [ 'the origin of the host',     Origin     => 'http://localhost' ],
    [ 'wait=',                      Prefer     => 'wait=5' ],
    [ 'a body of no bytes',         'Content-Length' => 0 ],
) {
    my ($name, %headers) = @$case;
    is(main::socket('/stream?wait=0', headers => \%headers)->status, 101, "a handshake with $name is accepted");
}

for my $case (
    [ 'without Connection',    Connection => undef ],
    [ 'with Connection: close', Connection => 'close' ],
    [ 'without a key',         'Sec-WebSocket-Key' => undef ],
    [ 'with a short key',      'Sec-WebSocket-Key' => 'AAAAAAAAAAAAAAAAAAAA' ],
    [ 'with a long key',       'Sec-WebSocket-Key' => 'AAAAAAAAAAAAAAAAAAAAAAAA' ],
    [ 'with a key that is not base64', 'Sec-WebSocket-Key' => '*AAAAAAAAAAAAAAAAAAAAA==' ],
    [ 'with two keys',         'Sec-WebSocket-Key' => "AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==" ],
    [ 'without a version',     'Sec-WebSocket-Version' => undef ],
    [ 'with two versions',     'Sec-WebSocket-Version' => "13\r\nSec-WebSocket-Version: 13" ],
    [ 'with a body',           'Content-Length' => 2 ],
    [ 'with a chunked body',   'Transfer-Encoding' => 'chunked' ],
) {
    my ($name, %headers) = @$case;
    is_problem(main::socket('/stream', headers => \%headers, more => $name =~ /chunked/ ? "0\r\n\r\n" : $name =~ /body/ ? '{}' : '')->answer,
        400, 'bad_handshake', "a handshake $name");
}

for my $version (0, 8, 12, 14, '13, 14', 'x') {
    $answer = main::socket('/stream', headers => { 'Sec-WebSocket-Version' => $version })->answer;
    is_problem($answer, 426, 'upgrade_required', "a handshake of version $version");
    is($answer->header('sec-websocket-version'), 13, "the refusal of version $version names 13");
    is($answer->header('upgrade'), 'websocket', "the refusal of version $version has Upgrade");
}

for my $origin ('https://other.example', 'http://localhost.example', 'null', 'http://localhost:1') {
    is_problem(main::socket('/stream', headers => { Origin => $origin })->answer, 403, 'foreign_origin', "a page of $origin");
}
is_problem(main::socket('/stream', headers => { 'Sec-Fetch-Site' => 'cross-site' })->answer, 403, 'foreign_origin', 'a page of another site');
is(main::socket('/pages', headers => { Origin => 'https://page.example' })->status, 101, 'a page of pgq_origins is accepted');
is_problem(main::socket('/few')->answer, 503, 'readers_full', 'a WebSocket above pgq_readers');
is_problem(main::socket('/stream?newest=x')->answer, 400, 'bad_argument', 'a handshake with an invalid argument');
is_problem(main::socket('/rights?rights=a&topic=b')->answer, 403, 'forbidden_topic', 'a handshake for a topic that is not permitted');

my $client = Pgq::Client->new($nginx);
$client->send("GET /stream HTTP/1.0\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
is($client->answer(head => 1)->header('content-type'), 'text/event-stream', 'Upgrade is ignored over HTTP/1.0');
is(Pgq::Client->new($nginx)->method('HEAD', '/stream', undef, Upgrade => 'websocket', Connection => 'Upgrade')->status, 200, 'Upgrade is ignored with HEAD');
is(Pgq::Client->new($nginx)->method('POST', '/stream', '{}', Upgrade => 'websocket')->status, 405, 'a handshake with POST is refused');

# ---- posts

my $live = reader();
ok(Pgq::Stream->pump(sub { defined $live->status }, 10, $live), 'a WebSocket opens without a post');
$client = Pgq::Client->new($nginx);
$client->post('/post', '{"a": 1.10}');
ok($live->wait_for(1), 'a new post comes');
is_deeply([ sort keys %{ $live->objects->[0] } ], [qw(at data id)], 'a message has the object of the post');
is($live->objects->[0]{data}{a}, 1.1, 'a message has the data of the post');
ok(Pgq::Stream->pump(sub { $live->beats > 1 }, 10, $live), 'an idle WebSocket gets a Ping each pgq_heartbeat');

my $newest = insert(51, 'to_json(n)');
for my $case ([ 'after=50', 51, 52 ], [ 'last_event_id=50', 51, 52 ], [ 'newest=2', 51, 52 ], [ 'after=0', 1 .. 52 ]) {
    my ($query, @ids) = @$case;
    my $reader = reader(query => $query);
    $reader->wait_for(scalar @ids);
    is($reader->complaint(\@ids), '', "$query starts there");
}
for my $case ([ 'x', 'unknown' ], [ '99', 'ahead' ]) {
    my ($id, $reason) = @$case;
    my $ws = main::socket("/stream?after=$id");
    is($ws->next->{payload}, qq({"reset":{"reason":"$reason","oldest":1,"newest":52}}), "the id $id is answered with a reset, as a line has it");
}

# Posts of each form of the length, from the ring and from PostgreSQL.
insert(1, "to_json(repeat('x', $_))") for 1 .. 100, 65_000 .. 65_010, 5_000_000;
$newest = insert(200, q{to_json(repeat('y', 300))});
my $all = reader(query => 'after=0');
$all->wait_until_id($newest, 30);
is($all->complaint([ 1 .. $newest ]), '', 'history is read from PostgreSQL and then from the ring');
my $ws = main::socket('/stream?after=51');
my @texts = map { $ws->next_of(1)->{payload} } 1 .. 2;
my @lines = $pg->safe_psql('select data from posts where id in (52, 53) order by id') =~ /(.+)/g;
like($texts[$_], qr/^\{"id":@{[ 52 + $_ ]},"data":\Q$lines[$_]\E,"at":"[^"]+"\}$/, 'a text is the object as GET shows it') for 0, 1;

my $first = $newest + 1;
$newest = insert(300, 'to_json(n)', q{(array['a', 'a/b', 'c'])[1 + n % 3]});
my @of_a = grep { ($_ - $first + 1) % 3 == 0 } $first .. $newest;
for my $case ([ '/stream', 'topic=a&after=0' ], [ '/stream/a', 'after=0' ], [ '/rights', 'rights=a&after=0' ]) {
    my ($path, $query) = @$case;
    my $reader = reader(path => $path, query => $query);
    $reader->wait_for(100, 20);
    is($reader->complaint(\@of_a), '', "$path?$query has only posts with the topic a");
}

# ---- control frames

$ws = main::socket('/stream');
for my $payload ('', 'a', 'b' x 125) {
    $ws->ping($payload);
    is_deeply($ws->next_of(10), { fin => 1, reserved => 0, opcode => 10, masked => 0, payload => $payload }, 'a Ping of ' . length($payload) . ' bytes is answered with the same bytes');
}
$ws->send($ws->frame(10, 'unasked') . $ws->frame(9, 'one') . $ws->frame(9, 'two'));
is($ws->next_of(10)->{payload}, $_, "the Ping $_ of one segment is answered") for qw(one two);
for my $byte (split //, $ws->frame(9, 'slowly')) {
    $ws->send($byte);
    not_blocked($nginx, 'between two bytes of a frame') if $byte eq 'y';
}
is($ws->next_of(10)->{payload}, 'slowly', 'a Ping that comes byte by byte is answered');
is(main::socket('/stream', more => $ws->frame(9, 'early'))->next_of(10)->{payload}, 'early', 'a Ping in the segment of the handshake is answered');

for my $case ([ 'a code', 1000, 1000 ], [ 'a code and a text', 1001, 1001, 'bye' ], [ 'a code of an application', 4999, 4999 ], [ 'no code', undef, 1000 ]) {
    my ($name, $code, $answer, $text) = @$case;
    $ws = main::socket('/stream');
    $ws->send_close($code, $text);
    $ws->send($ws->frame(9, 'after') . "\xff" x 100);
    is($ws->close_code, $answer, "a Close frame with $name is answered with $answer");
    ok($ws->closed, "the connection ends after a Close frame with $name, and what follows is ignored");
}
ok((poll_until { ($nginx->metric('pgq_reader_ends_total{reason="client"}') // 0) >= 4 }), 'a WebSocket that its client closes is counted');

# ---- errors

sub refused {
    my ($name, $code, $bytes) = @_;
    my $ws = main::socket('/stream');
    is($ws->status, 101, "$name: the WebSocket opens");
    $ws->send($bytes);
    is($ws->close_code, $code, "$name is answered with $code");
    ok($ws->closed, "$name ends the connection");
    return;
}

my $of = 'Pgq::WebSocket';
refused('a frame without a mask', 1002, $of->frame(9, 'x', mask => undef));
refused("reserved bits $_", 1002, $of->frame(9, 'x', reserved => $_)) for 1, 2, 4, 7;
refused("the opcode $_", 1002, $of->frame($_, '')) for 3 .. 7, 11 .. 15;
refused('a control frame of 126 bytes', 1002, $of->frame(9, 'x' x 126));
refused('a fragmented control frame', 1002, $of->frame(9, 'x', fin => 0));
refused('a continuation without a beginning', 1002, $of->frame(0, 'x'));
refused('a length that is longer than needed', 1002, $of->frame(1, 'x', length => 16));
refused('a Close frame of one byte', 1002, $of->frame(8, 'x'));
refused("a Close frame with the code $_", 1002, $of->frame(8, pack 'n', $_)) for 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535;
refused('a Close frame whose text is not UTF-8', 1007, $of->frame(8, pack('n', 1000) . "\xff"));
refused('a text that is not UTF-8', 1007, $of->frame(1, "\xc3("));
refused('a binary message', 1003, $of->frame(2, 'x'));
refused('a text', 1008, $of->frame(1, '{"post":1}'));
refused('the first frame of a text', 1008, $of->frame(1, '{"p', fin => 0));
refused('the header of a message above client_max_body_size', 1009, $of->frame(1, '', size => 102_401));
refused('the header of a message of 2^62 bytes', 1009, $of->frame(1, '', size => 2**62, length => 64));
cmp_ok($nginx->metric('pgq_reader_ends_total{reason="refused"}'), '>=', 30, 'WebSockets that end by an error are counted');
ok($nginx->log_contains(qr/pgq socket: closed with 1002: invalid frame/), 'an error is in the log');

# ---- the end

$ws = main::socket('/short');
is($ws->close_code, 1001, 'pgq_stream_age ends a WebSocket with 1001');
is($ws->close_text, 'age', 'its text is the reason');
is(join(' ', map { $ws->send_close(1001) } 1 .. 3), '1 1 1', 'the server reads what the client sends after a Close frame');
ok($ws->closed, 'then the connection ends');
$ws = main::socket('/until?until=' . (time + 1));
is($ws->close_code, 1001, 'pgq_stream_until ends a WebSocket with 1001');
is($ws->close_text, 'until', 'its text is the reason');

cmp_ok($nginx->metric('pgq_open_readers{pool="main",transport="websocket"}'), '>=', 1, 'open WebSockets are counted');
$_->cut for $live, $all;
ok((poll_until { Pgq::Host::slurp($nginx->dir . '/readers.log') =~ /^101 1?\d\d\d \d+$/m }), 'the access log has the status, the number of posts and the cursor');

# ---- a client of another author

{
    require Protocol::WebSocket::Client;
    my $socket = Pgq::Client->new($nginx);
    my $other  = Protocol::WebSocket::Client->new(url => 'ws://localhost:' . $nginx->port . '/stream?newest=1');
    my ($connected, @messages);
    $other->on(connect => sub { $connected = 1 });
    $other->on(write => sub { $socket->send($_[1]) });
    $other->on(read => sub { push @messages, $_[1] });
    $other->on(error => sub { diag("Protocol::WebSocket: $_[1]") });
    $other->connect;
    my $end = Time::HiRes::time() + 10;
    while (!@messages && Time::HiRes::time() < $end && sysread $socket->socket, my $bytes, 65536) {
        $other->read($bytes);
    }
    ok($connected, 'Protocol::WebSocket accepts the handshake');
    like($messages[0], qr/^\{"id":$newest,/, 'Protocol::WebSocket reads a post');
    $other->disconnect;
    1 while sysread $socket->socket, $socket->{buffer}, 65536, length $socket->{buffer};
    my $close = Pgq::WebSocket->take(\$socket->{buffer});
    is($close && $close->{opcode}, 8, 'Protocol::WebSocket closes the WebSocket, and gets a Close frame');
}

# ---- a reload

my @ended = map { main::socket('/stream') } 1 .. 20;
is(scalar(grep { $_->status == 101 } @ended), 20, '20 WebSockets are open');
$nginx->reload;
is(join(' ', map { ($_->close_code(20) // 'none') . ' ' . ($_->close_text // '') } @ended), join(' ', ('1001 drain') x 20), 'a reload ends each WebSocket with 1001');
ok(!(grep { !$_->closed } @ended), 'then the connections end');
ok((poll_until { 1 == $nginx->worker_pids } 20), 'the old worker exits');

# ---- TLS

my $tls = Pgq::Nginx->new(
    pg        => $pg,
    pools     => 'pgq_pool main "' . $pg->conninfo(user => 'ngx_pgq_web') . '"; pgq_ring main;',
    listen    => 'ssl',
    http      => 'ssl_certificate certificate.pem; ssl_certificate_key certificate.key;',
    locations => 'location /stream { pgq_stream main; }',
);
my ($failed, undef, $error) = Pgq::Host::run([
    'openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', 2,
    '-subj', '/CN=localhost', '-keyout', $tls->dir . '/certificate.key', '-out', $tls->dir . '/certificate.pem',
]);
is($failed, 0, 'the certificate is created') or diag($error);
$tls->start;

$ws = Pgq::WebSocket->new($tls, '/stream?newest=3', tls => 1, headers => { Origin => 'https://localhost' });
is($ws->status, 101, 'a handshake over TLS is answered with 101');
is($ws->object->{id}, $newest - $_, "a post comes over TLS ($_)") for 2, 1, 0;
$ws->send($_) for split /(?<=.)/s, $ws->frame(9, 'tls');
is($ws->next_of(10)->{payload}, 'tls', 'a Ping over TLS is answered');
$ws->send($ws->frame(9, 'z' x 125) x 500);
is(scalar(grep { ($ws->next_of(10) // {})->{payload} eq 'z' x 125 } 1 .. 500), 500, '500 Pings over TLS are answered');
$ws->send_close(1000);
is($ws->close_code, 1000, 'a Close frame over TLS is answered');
ok($ws->closed, 'a WebSocket over TLS ends');
is_problem(Pgq::WebSocket->new($tls, '/stream', tls => 1, headers => { Origin => 'http://localhost' })->answer, 403, 'foreign_origin', 'a page without TLS');

done_testing;
