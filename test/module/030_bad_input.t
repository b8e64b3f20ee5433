# Bad messages: each is refused with a 400 that says where, its neighbours are accepted, and nothing of it is kept.

use Pgq;

my $pg     = Pgq::Postgres->new->start;
my $nginx  = Pgq::Nginx->new(pg => $pg, server => 'client_max_body_size 4m;')->start;
my $client = Pgq::Client->new($nginx);

# [name, body, offset of the first wrong byte, words]
my @refused = (
    [ 'an empty body',             '',                         0,  qr/empty/ ],
    [ 'white space alone',         "  \n",                     3,  qr/./ ],
    [ 'a truncated object',        '{"a":1',                   6,  qr/unfinished/ ],
    [ 'a truncated string',        '"abc',                     4,  qr/unfinished/ ],
    [ 'two values',                '1 2',                      2,  qr/./ ],
    [ 'a trailing comma',          '[1,]',                     3,  qr/./ ],
    [ 'a bare word',               'hello',                    0,  qr/./ ],
    [ 'a leading zero',            '01',                       1,  qr/./ ],
    [ 'a lone minus',              '-',                        1,  qr/./ ],
    [ 'a lone dot',                '1.',                       2,  qr/./ ],
    [ 'a plus',                    '+1',                       0,  qr/./ ],
    [ 'NaN',                       'NaN',                      0,  qr/./ ],
    [ 'single quotes',             "{'a':1}",                  1,  qr/./ ],
    [ 'a comment',                 '[1/*2*/]',                 2,  qr/./ ],
    [ 'a byte order mark',         "\xef\xbb\xbf{}",           0,  qr/./ ],
    [ 'a control character',       "\"a\nb\"",                 2,  qr/control/ ],
    [ 'an unknown escape',         '"\x41"',                   2,  qr/./ ],
    [ 'the character U+0000',      '{"a":"\u0000"}',           6,  qr/u0000/i ],
    [ 'a lone high surrogate',     '"\ud83d"',                 1,  qr/surrogate/ ],
    [ 'a lone low surrogate',      '"\ude00"',                 1,  qr/surrogate/ ],
    [ 'surrogates in wrong order', '"\ude00\ud83d"',           1,  qr/surrogate/ ],
    [ 'a byte that is not UTF-8',  "\"a\xffb\"",               2,  qr/UTF-8/ ],
    [ 'an overlong form',          "\"\xc0\xaf\"",             1,  qr/UTF-8/ ],
    [ 'a surrogate in UTF-8',      "\"\xed\xa0\x80\"",         1,  qr/UTF-8/ ],
    [ 'beyond U+10FFFF',           "\"\xf4\x90\x80\x80\"",     1,  qr/UTF-8/ ],
    [ 'a zero byte',               "[1,\0]",                   3,  qr/./ ],
    [ '10,000 levels',             '[' x 10_000 . ']' x 10_000, 1000, qr/deeply/ ],
);

for my $case (@refused) {
    my ($name, $body, $offset, $words) = @$case;
    my $position = $nginx->log_position;
    my $answer   = $client->post('/post', $body);

    is($answer->{status}, 400, "$name is refused") or next;
    is($answer->{headers}{'content-type'}, 'application/problem+json', "$name: as a problem");

    my $problem = $answer->json;
    is($problem->{offset}, $offset, "$name: the place is named");
    like($problem->{detail}, $words, "$name: the reason is named");
    is(() = $nginx->log_since($position) =~ /pgq enqueue: refused/g, 1, "$name: one log line");

    is($client->post('/post', '"next"')->{status}, 202, "$name: the next message is accepted");
}

for my $case ([ 'a zero byte', "a\0b", 1 ], [ 'a byte that is not UTF-8', "a\x80", 1 ]) {
    my ($name, $body, $offset) = @$case;

    for my $type ('text/plain', undef, 'image/png') {
        my $answer = $client->post('/post', $body, 'Content-Type' => $type);
        is($answer->{status}, 400, "$name is no text either, as " . ($type // 'no type'));
        is($answer->json->{offset}, $offset, "$name: the place is named");
    }
}

# What looks bad and is JSON, to be kept to the letter.
my %kept = (
    'a string of 1 MB'          => '"' . 'x' x 1_000_000 . '"',
    'a number of 1,000 digits'  => '1' . '0123456789' x 100,
    '1,000 digits after a dot'  => '0.' . '0123456789' x 100,
    'keys that repeat'          => '{"a":1,"a":2,"a":{}}',
    '1,000 levels'              => '[' x 1000 . ']' x 1000,
    'empty keys'                => '{"":{"":[]}}',
    'U+10FFFF'                  => "\"\xf4\x8f\xbf\xbf\"",
);

for my $name (sort keys %kept) {
    my $answer = $client->post('/post', $kept{$name});
    is($answer->{status}, 202, "$name is accepted") or diag($answer->{body});
    is(($answer->{body} =~ /"msg":(.*)\}\z/s)[0], $kept{$name}, "$name is answered as it came");

    my ($id) = $answer->{body} =~ /"id":"([^"]+)"/;
    $pg->poll_query_until("select count(*) from posts where message_id = '$id'", 1);
    my ($newest) = $client->get('/get?limit=1')->{body} =~ /"data":(.*),"at"/s;
    is($newest, $kept{$name}, "$name comes back as it came");
}

my $answer = $client->post('/post', '"' . 'x' x (4 * 1024 * 1024) . '"');
is($answer->{status}, 413, 'a message that is too long is refused');
is($answer->json->{code}, 'too_large', 'too long: as a problem');

$answer = Pgq::Client->new($nginx)->post_chunked('/post', [ '"', ('x' x 1048576) x 4, '"' ]);
is($answer->{status}, 413, 'a message that is too long is refused when it says no length');

is($pg->safe_psql("select count(*) from posts where data::text <> '\"next\"'") + 0, scalar keys %kept, 'nothing refused is kept');

done_testing;
