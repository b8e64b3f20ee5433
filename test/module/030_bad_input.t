# An invalid message is refused with 400 and the byte offset of the error, and the next message is accepted.

use Pgq;

use Encode ();

my $pg     = Pgq::Postgres->new->start;
my $nginx  = Pgq::Nginx->new(pg => $pg, server => 'client_max_body_size 4m;')->start;
my $client = Pgq::Client->new($nginx);

# [name, body, byte offset of the error, text of the detail]
my @refused = (
    [ 'an empty body',             '',                         0,  qr/empty/ ],
    [ 'a body of white space',     "  \n",                     3,  qr/./ ],
    [ 'a truncated object',        '{"a":1',                   6,  qr/unfinished/ ],
    [ 'a truncated string',        '"abc',                     4,  qr/unfinished/ ],
    [ 'two values',                '1 2',                      2,  qr/./ ],
    [ 'a trailing comma',          '[1,]',                     3,  qr/./ ],
    [ 'a word without quotes',     'hello',                    0,  qr/./ ],
    [ 'a leading zero',            '01',                       1,  qr/./ ],
    [ 'a minus sign alone',        '-',                        1,  qr/./ ],
    [ 'a number that ends with a dot', '1.',                       2,  qr/./ ],
    [ 'a plus sign',               '+1',                       0,  qr/./ ],
    [ 'NaN',                       'NaN',                      0,  qr/./ ],
    [ 'single quotes',             "{'a':1}",                  1,  qr/./ ],
    [ 'a comment',                 '[1/*2*/]',                 2,  qr/./ ],
    [ 'a byte order mark',         "\xef\xbb\xbf{}",           0,  qr/./ ],
    [ 'a line feed in a string',   "\"a\nb\"",                 2,  qr/control/ ],
    [ 'an unknown escape',         '"\x41"',                   2,  qr/./ ],
    [ 'the character U+0000',      '{"a":"\u0000"}',           6,  qr/u0000/i ],
    [ 'a lone high surrogate',     '"\ud83d"',                 1,  qr/surrogate/ ],
    [ 'a lone low surrogate',      '"\ude00"',                 1,  qr/surrogate/ ],
    [ 'surrogates in wrong order', '"\ude00\ud83d"',           1,  qr/surrogate/ ],
    [ 'a byte that is not UTF-8',  "\"a\xffb\"",               2,  qr/UTF-8/ ],
    [ 'an overlong UTF-8 sequence', "\"\xc0\xaf\"",             1,  qr/UTF-8/ ],
    [ 'a surrogate in UTF-8',      "\"\xed\xa0\x80\"",         1,  qr/UTF-8/ ],
    [ 'a character above U+10FFFF', "\"\xf4\x90\x80\x80\"",     1,  qr/UTF-8/ ],
    [ 'a zero byte',               "[1,\0]",                   3,  qr/./ ],
    [ '10,000 levels',             '[' x 10_000 . ']' x 10_000, 1000, qr/deeply/ ],
);

for my $case (@refused) {
    my ($name, $body, $offset, $words) = @$case;
    my $position = $nginx->log_position;
    my $answer   = $client->post('/post', $body);

    is($answer->{status}, 400, "$name is refused") or next;
    is($answer->{headers}{'content-type'}, 'application/problem+json', "$name is answered with a problem document");

    my $problem = $answer->json;
    is($problem->{offset}, $offset, "$name: the problem has the byte offset of the error");
    like($problem->{detail}, $words, "$name: the detail describes the error");
    is(() = $nginx->log_since($position) =~ /pgq enqueue: refused/g, 1, "$name: nginx logs one line");

    is($client->post('/post', '"next"')->{status}, 202, "$name: the next message is accepted");
}

for my $case ([ 'a zero byte', "a\0b", 1 ], [ 'a byte that is not UTF-8', "a\x80", 1 ]) {
    my ($name, $body, $offset) = @$case;

    for my $type ('text/plain', undef, 'image/png') {
        my $answer = $client->post('/post', $body, 'Content-Type' => $type);
        is($answer->{status}, 400, "$name is refused in a body with " . ($type // 'no type'));
        is($answer->json->{offset}, $offset, "$name in a body with @{[ $type // 'no type' ]}: the problem has the byte offset of the error");
    }
}

# A body that matches the grammar of JSON is JSON for every type except text/plain. Where PostgreSQL cannot store it, it is
# refused and does not become a string. Any other body becomes a string.
my @types = (undef, 'application/x-www-form-urlencoded', 'image/png', 'text/csv');

for my $case (
    [ 'the character U+0000',        '{"a":"x\u0000y"}',             7 ],
    [ 'U+0000 in a key',             '{"\u0000":1}',                 2 ],
    [ 'a lone high surrogate',       '["\ud83d"]',                   2 ],
    [ 'a lone low surrogate',        '"\ude00\ud83d"',               1 ],
    [ '1,001 levels',                '[' x 1001 . ']' x 1001,        1000 ],
    [ '10,000 levels',               '[' x 10_000 . ']' x 10_000,    1000 ],
    [ 'a byte order mark',           "\xef\xbb\xbf{\"a\":1}",        0 ],
    [ 'a byte order mark before white space', "\xef\xbb\xbf \n[1]\n",         0 ],
) {
    my ($name, $body, $offset) = @$case;

    for my $type (@types) {
        my $as     = $type // 'no type';
        my $answer = $client->post('/post', $body, 'Content-Type' => $type);
        is($answer->{status}, 400, "$name is refused in a body with $as") or next;
        is($answer->json->{code}, 'not_json', "$name in a body with $as has the code not_json");
        is($answer->json->{offset}, $offset, "$name in a body with $as: the problem has the byte offset of the error");
    }
}

for my $text ('{"a":"\u0000"', '"\u0000" and more', '"\ud800\x"', '[[link]] and more', "\xef\xbb\xbfhello",
    '{"a":1,}', "{'a':1}", '[1] [2]', 'NaN')
{
    for my $type (@types) {
        my $answer = $client->post('/post', $text, 'Content-Type' => $type);
        is($answer->{status}, 202, "$text is accepted as a body with " . ($type // 'no type')) or next;
        is($answer->json->{msg}, Encode::decode('UTF-8', $text), "$text becomes a JSON string unchanged");
    }
}

is($client->post('/post', '"\u0000"', 'Content-Type' => 'text/plain')->json->{msg}, '"\u0000"', 'a body of text/plain with \u0000 becomes a JSON string');
$pg->wait_until_moved;
$pg->safe_psql(q{delete from posts where data::text <> '"next"'});

# Unusual but valid JSON.
my %kept = (
    'a string of 1 MB'          => '"' . 'x' x 1_000_000 . '"',
    'a number of 1,000 digits'  => '1' . '0123456789' x 100,
    '1,000 decimal digits'      => '0.' . '0123456789' x 100,
    'an object with repeated keys' => '{"a":1,"a":2,"a":{}}',
    'an array of 1,000 levels'  => '[' x 1000 . ']' x 1000,
    'an object with empty keys' => '{"":{"":[]}}',
    'the character U+10FFFF'    => "\"\xf4\x8f\xbf\xbf\"",
);

for my $name (sort keys %kept) {
    my $answer = $client->post('/post', $kept{$name}, Prefer => 'return=representation');
    is($answer->{status}, 202, "$name is accepted") or diag($answer->{body});
    is(($answer->{body} =~ /"msg":(.*)\}\z/s)[0], $kept{$name}, "$name is answered unchanged");

    my ($id) = $answer->{body} =~ /"id":"([^"]+)"/;
    $pg->poll_query_until("select count(*) from posts where message_id = '$id'", 1);
    my ($newest) = $client->get('/get?limit=1')->{body} =~ /"data":(.*),"at"/s;
    is($newest, $kept{$name}, "$name is stored unchanged");
}

my $answer = $client->post('/post', '"' . 'x' x (4 * 1024 * 1024) . '"');
is_problem($answer, 413, 'too_large', 'a message of more than client_max_body_size');

$answer = Pgq::Client->new($nginx)->post_chunked('/post', [ '"', ('x' x 1048576) x 4, '"' ]);
is($answer->{status}, 413, 'a chunked message of more than client_max_body_size is refused');

# The size limit of a text applies to the JSON string that it becomes, which can be six times as long.
for my $case ([ "\x01", 699_050, 6 ], [ "\n", 2_097_151, 2 ], [ '"', 2_097_151, 2 ], [ 'x', 4_194_302, 1 ], [ "\xc3\xa4", 2_097_151, 2 ]) {
    my ($character, $most, $size) = @$case;
    my $name = sprintf 'the byte %s', join ' ', map { sprintf '%02x', ord } split //, $character;

    for my $type ('text/plain', undef) {
        my $client = Pgq::Client->new($nginx);
        $answer = $client->post('/post', $character x ($most + 1), 'Content-Type' => $type);
        is_problem($answer, 413, 'too_large', "$name: a text whose string exceeds 4 MB");
    }

    $answer = Pgq::Client->new($nginx)->post('/post', $character x $most, 'Content-Type' => 'text/plain', Prefer => 'return=minimal');
    is($answer->{status}, 202, "$name: a text whose string has 4 MB is accepted");
    $pg->wait_until_moved;
    is($pg->safe_psql("delete from posts where message_id = '@{[ $answer->json->{id} ]}' returning length(data #>> '{}') * $size + 2 > 4194290"), 't',
        "$name: a text whose string has 4 MB is stored completely");
}

is($pg->safe_psql("select count(*) from posts where data::text <> '\"next\"'") + 0, scalar keys %kept, 'no refused message is a post');

done_testing;
