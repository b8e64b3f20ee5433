# pgq_stream_post: posts by WebSocket are checked, queued and answered as those of POST, within limits.

use Pgq;
use Pgq::WebSocket;

my $pg       = Pgq::Postgres->new->start;
my $conninfo = $pg->conninfo(user => 'ngx_pgq_web');
my $nginx    = Pgq::Nginx->new(
    pg        => $pg,
    listen    => 'sndbuf=64k',    # else the kernel may take all answers to a client that does not read
    pools     => qq{pgq_pool main "$conninfo" lanes=2; pgq_ring main posts=100;}
        . qq{ pgq_pool small "$conninfo" tickets=10 size=100k; pgq_ring small posts=100;},
    http      => 'client_max_body_size 100k; lingering_timeout 1s; pgq_drain 100ms; pgq_stream_post on; pgq_idempotency_scope shared;',
    locations => <<'END',
location /stream    { pgq_stream main; }
location /rights    { pgq_stream main; pgq_topics $arg_rights; }
location /required  { pgq_stream main; pgq_idempotency required; }
location /keyless   { pgq_stream main; pgq_idempotency off; }
location /slow      { pgq_stream main; client_body_timeout 1s; }
location /small     { pgq_stream small; client_max_body_size 48k; }
location /whole     { pgq_stream small; client_max_body_size 100k; }
location /impatient { pgq_stream main; pgq_timeout 1s; }
location /silent    { pgq_stream main; pgq_stream_post off; }
location /flat      { pgq_stream main; pgq_depth 2; }
location = /metrics { pgq_metrics; }
END
)->start;

sub socket { return Pgq::WebSocket->new($nginx, @_) }

my $of   = 'Pgq::WebSocket';
my $uuid = qr/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}/;

# The answer to the next message: the next text that is no post.
sub answer {
    my ($ws, $seconds) = @_;

    while (my $frame = $ws->next_of(1, $seconds // 20)) {
        return $frame->{payload} if $frame->{payload} !~ /^\{"id":\d/;
    }
    return 'none';
}

sub ask { my ($ws, $text) = @_; $ws->text($text); return answer($ws) }

sub refused {
    my ($ws, $text, $status, $code, $name) = @_;
    my $answer = ask($ws, $text);

    like($answer, qr/^\{"ref":7,"error":"$code","status":$status,"detail":"[^"]+"\}$/, "$name is refused");
    return $answer;
}

# ---- round trips

my $ws = main::socket('/stream');
my $answer = ask($ws, '{"post":{"price": 2.50, "n":12345678901234567890},"ref":1}');
like($answer, qr/^\{"ref":1,"id":"$uuid"\}$/, 'a post is answered with its ref and its id');
my ($id) = $answer =~ /"id":"([^"]+)"/;
$pg->wait_until_moved;
is($pg->safe_psql("select data from posts where message_id = '$id'"), '{"price": 2.50, "n":12345678901234567890}', 'the post has this id, and its bytes are unchanged');
my $post = main::socket('/stream?after=0')->next_of(1)->{payload};
like($post, qr/^\{"id":1,"data":\{"price": 2.50, "n":12345678901234567890\},/, 'readers get the post');

for my $case (
    [ '{"post":1}',                              qr/^\{"id":"$uuid"\}$/,                  '1',        'a message without ref' ],
    [ '{"post":2,"ref":"a\\"b"}',                qr/^\{"ref":"a\\"b","id":"$uuid"\}$/,    '2',        'a message whose ref is a string' ],
    [ '{"post":3,"ref":-1.5e3}',                 qr/^\{"ref":-1.5e3,"id":"$uuid"\}$/,     '3',        'a message whose ref is a number' ],
    [ qq( {\t"ref" : 1 ,\n"post" : [ 4 , "}" ] } ), qr/^\{"ref":1,"id":"$uuid"\}$/,       '[ 4 , "}" ]', 'a message with white space' ],
    [ '{"post":"\\u00e9 \\\\ \\"}","ref":1}',    qr/^\{"ref":1,"id":"$uuid"\}$/,          '"\\u00e9 \\\\ \\"}"', 'a post with escapes' ],
    [ qq({"post":"\xc3\xa9\xf0\x9f\x98\x80","ref":1}), qr/^\{"ref":1,"id":"$uuid"\}$/,    qq("\xc3\xa9\xf0\x9f\x98\x80"), 'a post in UTF-8' ],
    [ '{"post":null,"ref":1}',                   qr/^\{"ref":1,"id":"$uuid"\}$/,          'null',     'a post that is null' ],
    [ '{"post":"' . 'x' x 90_000 . '","ref":1}', qr/^\{"ref":1,"id":"$uuid"\}$/,          '"' . 'x' x 90_000 . '"', 'a long post' ],
) {
    my ($text, $pattern, $data, $name) = @$case;
    $answer = ask($ws, $text);
    like($answer, $pattern, "$name is accepted");
    ($id) = $answer =~ /"id":"([^"]+)"/;
    $pg->wait_until_moved;
    is($pg->safe_psql("select data from posts where message_id = '$id'"), $data, "$name has the data that was sent");
}

# ---- topics

for my $case ([ '"a/b"', 'a/b' ], [ '"a\\/b"', 'a/b' ], [ '"\\u0061"', 'a' ], [ '""', '' ]) {
    my ($json, $topic) = @$case;
    ($id) = ask($ws, qq({"post":1,"topic":$json})) =~ /"id":"([^"]+)"/;
    $pg->wait_until_moved;
    is($pg->safe_psql("select topic from posts where message_id = '$id'"), $topic, "the topic $json is that of the post");
}
refused($ws, qq({"ref":7,"post":1,"topic":$_}), 400, 'bad_topic', "the topic $_") for '"_a"', '"a b"', '1', 'null', '"a//b"', '"' . 'a' x 256 . '"', '"*"';
my $rights = main::socket('/rights?rights=a,b/*');
like(ask($rights, qq({"post":1,"topic":"$_"})), qr/"id"/, "the topic $_ is permitted") for qw(a b/c);
refused($rights, qq({"ref":7,"post":1,"topic":"$_"}), 403, 'forbidden_topic', "the topic $_") for qw(b c b/c/d);
refused($rights, '{"ref":7,"post":1}', 403, 'forbidden_topic', 'a post without a topic');

# ---- keys

my ($first) = ask($ws, '{"post":"key","key":"k 1","ref":1}') =~ /"id":"([^"]+)"/;
is(ask($ws, '{"post":"key","key":"k 1","ref":2}'), qq({"ref":2,"id":"$first"}), 'a key that is sent again is answered with the first id');
is(ask(main::socket('/stream'), '{"key":"k 1","post":"key"}'), qq({"id":"$first"}), 'the same on another connection');
is(Pgq::Client->new($nginx)->post('/post', '"key"', 'Idempotency-Key' => '"k 1"')->json->{id}, $first, 'the same by POST');
is(ask($ws, '{"post":"key","key":"k\\u00201"}'), qq({"id":"$first"}), 'a key with an escape is the same key');
refused($ws, '{"ref":7,"post":"other","key":"k 1"}', 422, 'key_reused', 'a key with another post');
refused($ws, qq({"ref":7,"post":1,"key":$_}), 400, 'bad_key', "the key $_") for '""', '1', '"\\u00e9"', '"\\n"', '"' . 'k' x 256 . '"', '"' . 'k' x 3000 . '"';
like(ask($ws, '{"post":1,"key":"' . 'k' x 255 . '"}'), qr/"id"/, 'a key of 255 bytes is accepted');
refused(main::socket('/required'), '{"ref":7,"post":1}', 400, 'key_required', 'a post without a required key');
my $keyless = main::socket('/keyless');
isnt(ask($keyless, '{"post":1,"key":"k"}'), ask($keyless, '{"post":1,"key":"k"}'), 'pgq_idempotency off ignores keys');

# ---- messages that are refused

for my $case (
    [ 'an unknown member',       '{"ref":7,"post":1,"topics":"a"}' ],
    [ 'a name with an escape',   '{"ref":7,"\\u0070ost":1}' ],
    [ 'post twice',              '{"post":1,"ref":7,"post":2}' ],
    [ 'no post',                 '{"ref":7}' ],
) {
    refused($ws, $case->[1], 400, 'bad_message', "a message with $case->[0]");
}
like(ask($ws, $_->[1]), qr/^\{"error":"bad_message","status":400,/, "$_->[0] is refused without a ref")
    for [ 'an array', '[{"post":1}]' ], [ 'a string', '"post"' ], [ 'a ref that is an object', '{"post":1,"ref":{}}' ],
    [ 'a ref that is true', '{"post":1,"ref":true}' ], [ 'a ref of 129 bytes', '{"post":1,"ref":"' . 'r' x 127 . '"}' ];
like(ask($ws, '{"post":1,"ref":"' . 'r' x 126 . '"}'), qr/"id"/, 'a ref of 128 bytes is accepted');
like(ask($ws, $_->[0]), qr/^\{"error":"not_json","status":400,"detail":"[^"]*, at byte $_->[1]"\}$/, "$_->[0] is refused, with the offset")
    for [ '{"post":1', 9 ], [ '', 0 ], [ '{"post":01}', 9 ], [ '{"post":"\\u0000"}', 9 ];
my $flat = main::socket('/flat');
like(ask($flat, '{"post":[[1]]}'), qr/"id"/, 'a post of pgq_depth levels is accepted');
like(ask($flat, '{"post":[[[1]]]}'), qr/"not_json"/, 'a post that is deeper is refused');

$pg->safe_psql(q{alter table ngx_pgq.queue add constraint secret_name check (data::text <> '"bad"')});
$answer = refused($ws, '{"ref":7,"post":"bad"}', 400, 'refused', 'a post that the database refuses');
like($answer, qr/23514/, 'its detail has the SQLSTATE');
unlike($answer, qr/secret_name/, 'its detail has no name of the database');
cmp_ok($nginx->metric('pgq_rejects_total{reason="bad_message"}') // 0, '>=', 9, 'refused messages are counted');

# ---- fragments

$ws->send($of->frame(1, '{"post":"frag', fin => 0));
$ws->ping('between');
is($ws->next_of(10)->{payload}, 'between', 'a Ping between fragments is answered');
$ws->send($of->frame(0, '', fin => 0) . $of->frame(0, "ments \xe2\x82", fin => 0));
$ws->send($of->frame(0, "\xac\",\"ref\":1}"));
like(answer($ws), qr/^\{"ref":1,"id":"$uuid"\}$/, 'a fragmented message is accepted, also if it is cut within a character');
is($pg->count_posts(qq{"fragments \xe2\x82\xac"}), 1, 'its post is whole');
for my $byte (split //, $of->frame(1, '{"post":"byte', fin => 0) . $of->frame(0, ' by byte","ref":2}')) {
    $ws->send($byte);
}
like(answer($ws), qr/^\{"ref":2,"id":/, 'a message that comes byte by byte is accepted');
$ws->send($of->frame(1, '', fin => 0) . $of->frame(0, '{"post":5,"ref":3}', fin => 0) . $of->frame(0, ''));
like(answer($ws), qr/^\{"ref":3,"id":/, 'a message with empty fragments is accepted');

my $many = 500;
$ws->send(join '', map { $of->frame(1, qq({"post":"many $_","ref":$_})) } 1 .. $many);
my %refs = map { (answer($ws) =~ /^\{"ref":(\d+),"id":/ ? $1 : 'none') => 1 } 1 .. $many;
is(scalar keys %refs, $many, "$many messages that are sent at once are answered, each once");
is($pg->count_posts('"many %'), $many, 'each is a post');

sub closed_with {
    my ($code, $name, @frames) = @_;
    my $ws = main::socket('/stream');
    $ws->send($_) for @frames;
    is($ws->close_code, $code, "$name is answered with $code");
    ok($ws->closed, "$name ends the connection");
    return;
}

closed_with(1007, 'a text that is not UTF-8 across fragments', $of->frame(1, "{\"post\":\"\xe2\x82", fin => 0), $of->frame(0, '("}'));
closed_with(1007, 'a text that ends within a character', $of->frame(1, "\xe2", fin => 0), $of->frame(0, "\x82"));
closed_with(1002, 'a text within a fragmented message', $of->frame(1, '{', fin => 0), $of->frame(1, '{"post":1}'));
closed_with(1003, 'a binary message', $of->frame(2, '{"post":1}'));
closed_with(1009, 'a message above client_max_body_size', $of->frame(1, '', size => 102_401));
closed_with(1009, 'fragments above client_max_body_size', $of->frame(1, '"' . 'x' x 60_000, fin => 0), $of->frame(0, '', size => 42_400));
$ws = main::socket('/silent');
$ws->text('{"post":1}');
is($ws->close_code, 1008, 'pgq_stream_post off refuses messages');

# ---- random frames, one of two with a wrong byte

my $seed = srand;
diag("seed $seed");
my ($ended, @wrong) = (0);
for my $number (1 .. 300) {
    my $bytes = join '', map {
        my $payload = ('{"post":1}', '', '{"post":"', "\xe2\x82\xac", pack('n', 1000 + rand 20), join '', map { chr rand 256 } 0 .. rand 300)[rand 6];
        $of->frame((1, 1, 0, 9, 10, 8, 2)[rand 7], $payload, fin => rand() < 0.7 ? 1 : 0);
    } 0 .. rand 8;
    substr $bytes, rand length $bytes, 1, chr rand 256 if rand() < 0.5;
    my $ws = main::socket('/stream');
    my $size = 1 + int rand length $bytes;
    $ws->send($_) for unpack "(a$size)*", $bytes;
    shutdown $ws->socket, 1;
    while (my $frame = $ws->next) {
        push @wrong, "$number: $frame->{opcode}" if $frame->{masked} || !$frame->{fin} || $frame->{reserved} || $frame->{opcode} !~ /^(?:1|8|9|10)$/;
    }
    $ended++ if $ws->closed;
}
is($ended, 300, '300 connections with random frames end');
is("@wrong", '', 'what the server sends to them are frames');

# ---- limits

my $lock;
$ws = main::socket('/slow');
$ws->send($of->frame(1, '{"post":', fin => 0));
is($ws->close_code, 1008, 'a message that is not completed within client_body_timeout is answered with 1008');
$ws = main::socket('/slow');
$ws->send($of->frame(1, '{"post":', fin => 0));
for my $byte (split //, $of->frame(0, '1}')) {
    select undef, undef, undef, 0.2;
    $ws->send($byte);
}
like(answer($ws), qr/"id"/, 'client_body_timeout is between two reads');

$lock = $pg->lock_table;
$ws = main::socket('/slow');
$ws->send(join('', map { $of->frame(1, '{"post":"before"}') } 1 .. 70) . $of->frame(1, '{"post":', fin => 0));
ok((poll_until { $nginx->metric('pgq_waiting_tickets{pool="main"}') == 70 }), '70 posts wait, and a message is not complete');
$lock->query('rollback');
is(scalar(grep { answer($ws) =~ /"id"/ } 1 .. 70), 70, 'the posts are answered');
is($ws->close_code, 1008, 'client_body_timeout applies again when the client need no longer wait');

my $length = 95_000;
$ws = main::socket('/whole');
for my $rest (reverse 1 .. 5) {
    $ws->send($of->frame($rest == 5 ? 1 : 0, ($rest == 5 ? '{"post":"' : '') . 'x' x ($length / 5) . ($rest == 1 ? '"}' : ''), fin => $rest == 1));
    $ws->ping("$rest");
    is($ws->next_of(10)->{payload}, $rest, "a part of a message is read, $rest of 5") if $rest > 1;
}
like(answer($ws), qr/"id"/, 'a message of nearly size= is accepted in parts');

my @partial = map { main::socket('/small') } 1 .. 2;
for my $partial (@partial) {
    $partial->send($of->frame(1, '"' . 'x' x 40_000, fin => 0));
    $partial->ping('read');
    is($partial->next_of(10)->{payload}, 'read', 'a message of 40 kB is partly read');
}
$ws = main::socket('/small');
$ws->send($of->frame(1, '"' . 'x' x 40_000, fin => 0));
is($ws->close_code, 1013, 'partial messages that are together above size= are answered with 1013');
$_->close for @partial;
ok((poll_until { my $ws = main::socket('/small'); $ws->send($of->frame(1, '{"post":"' . 'x' x 40_000 . '"', fin => 0) . $of->frame(0, '}')); answer($ws) =~ /"id"/ }), 'when the client has left there is space for another one');

$lock = $pg->lock_table;
$ws = main::socket('/small');
$ws->text(qq({"post":"ticket $_","ref":$_})) for 1 .. 12;
like(answer($ws), qr/^\{"ref":1[12],"error":"queue_full","status":503,/, "post $_ above tickets= is refused") for 1, 2;
$lock->query('rollback');
is(scalar(grep { answer($ws) =~ /"id"/ } 1 .. 10), 10, 'the others are answered when the database goes on');
is($pg->count_posts('"ticket %'), 10, 'each of them is a post');

# ---- a client that sends and does not read

# Writes frames until the server has read nothing for a second; returns their number.
sub flood {
    my ($ws, $frame) = @_;
    my $rest = '';
    my $sent = 0;

    local $SIG{PIPE} = 'IGNORE';
    $ws->socket->blocking(0);
    while (IO::Select->new($ws->socket)->can_write(1)) {
        ($rest, $sent) = ($frame->($sent), $sent + 1) if $rest eq '';
        my $count = syswrite($ws->socket, $rest) // 0;
        substr $rest, 0, $count, '';
        last if $sent == 20_000;
    }
    $ws->socket->blocking(1);

    return ($sent, $rest);
}

$lock = $pg->lock_table;
$ws = main::socket('/stream', buffer => 4096);
my ($sent, $rest) = flood($ws, sub { $of->frame(1, qq({"post":"flood $_[0] @{[ 'x' x 1000 ]}","ref":$_[0]})) });
cmp_ok($sent, '<', 5000, 'a client that sends more than 64 posts without an answer has to wait');
my $waiting = $nginx->metric('pgq_waiting_tickets{pool="main"}');
cmp_ok($waiting, '>=', 64, '64 of its posts wait');
cmp_ok($waiting, '<=', 64 + 17, 'and those that were read together with them');
not_blocked($nginx, 'while a client has to wait');
$lock->query('rollback');
$ws->send($rest);
%refs = map { (answer($ws) =~ /^\{"ref":(\d+),"id":/ ? $1 : 'none') => 1 } 1 .. $sent;
is(scalar keys %refs, $sent, 'then each of its posts is answered');
is($pg->count_posts('"flood %'), $sent, 'each of its posts is there once');

$ws = main::socket('/rights?rights=a', buffer => 4096);
($sent) = flood($ws, sub { $of->frame(1, qq({"post":$_[0],"ref":"@{[ 'r' x 100 ]}"})) });
cmp_ok($sent, '<', 20_000, 'a client that does not read its answers has to wait');
$ws->close;

# ---- ends

$lock = $pg->lock_table;
$ws = main::socket('/stream');
$ws->text('{"post":"gone"}') for 1 .. 10;
ok((poll_until { $nginx->metric('pgq_waiting_tickets{pool="main"}') == 10 }), '10 posts wait');
$ws->close;
ok((poll_until { $nginx->metric('pgq_waiting_tickets{pool="main"}') == 0 }), 'the posts of a client that has left do not wait');
$lock->query('rollback');

$pg->stop;
like(ask(main::socket('/impatient'), '{"post":1,"ref":8}'), qr/^\{"ref":8,"error":"(?:no_database|outcome_unknown)","status":50[34],/, 'without a database a post is answered after pgq_timeout');
$ws = main::socket('/stream');
$ws->text('{"post":"restart","ref":9}');
$pg->start;
like(answer($ws, 60), qr/^\{"ref":9,"id":/, 'a restart of PostgreSQL delays a post');

$lock = $pg->lock_table;
my @open = map { main::socket('/slow') } 1 .. 3;
$_->text('{"post":"reload","ref":10}') for @open;
$open[2]->send($of->frame(1, '{"post":', fin => 0));
ok((poll_until { $nginx->metric('pgq_waiting_tickets{pool="main"}') == 3 }), '3 posts wait');
$nginx->reload;
my $idle = main::socket('/stream');
is($idle->status, 101, 'the new worker answers');
select undef, undef, undef, 1.5;
$lock->query('rollback');
like(answer($_), qr/^\{"ref":10,"id":/, 'a reload waits for the answer to a post, longer than for the rest of a message') for @open;
is($_->close_code, 1001, 'then the connection ends with 1001') for @open;
is($pg->count_posts('"reload"'), 3, 'each of these posts is there once');

$ws = main::socket('/stream');
$ws->text('{"post":"before","ref":11}');
like(answer($ws), qr/"id"/, 'a post is answered');
$ws->send_close(1000);
is($ws->close_code, 1000, 'a client that posts can close');

done_testing;
