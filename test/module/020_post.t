# POST as the HTTP contract has it: which bodies are messages, and what is answered.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg)->start;
my $client = Pgq::Client->new($nginx);
my $uuid   = qr/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/;

# Posts it and returns the message as it is in posts.
sub stored {
    my ($body, %headers) = @_;
    my $answer = $client->post('/post', $body, %headers);

    is($answer->{status}, 202, "202 for $body") or return diag($answer->{body});

    my ($id) = $answer->{body} =~ /"id":"($uuid)"/;
    $pg->poll_query_until("select count(*) from posts where message_id = '$id'", 1);

    return $pg->safe_psql("select data from posts where message_id = '$id'");
}

my $answer = $client->post('/post', '{"a": 1.10}');
is($answer->{status}, 202, 'a message is accepted');
is($answer->{headers}{'content-type'}, 'application/json', 'the answer is JSON');
like($answer->{body}, qr/\A\{"status":"queued","id":"$uuid","msg":\{"a": 1\.10\}\}\z/, 'it says the id and the message');

for my $json ('1', '-0', '1.000', '1e400', '123456789012345678901234567890.10', '"text"', 'true', 'null', '[]',
    '{"a":1,"a":2}', '{ "z" : 1,  "a":[ 1 ,2 ] }', '"\u00e4\ud83d\ude00"', '"ä😀"')
{
    is(stored($json), $json, "$json comes back to the letter");
}

is(stored(" \t\r\n[1, 2]\n"), '[1, 2]', 'white space around a message is no part of it');
is(stored('[1,2]', 'Content-Type' => 'application/vnd.thing+json; charset=utf-8'), '[1,2]', 'a type that ends with +json is JSON');

is(stored('[1,2', 'Content-Type' => 'text/plain'), '"[1,2"', 'a text is a string');
is(stored('[1,2]', 'Content-Type' => 'text/plain; charset=UTF-8'), '"[1,2]"', 'a text is a string even if it could be JSON');
is(stored(qq{a "b"\\\n\x01\t}, 'Content-Type' => 'text/plain'), '"a \"b\"\\\\\n\u0001\t"', 'a text is escaped');
is(stored('{"a":1}', 'Content-Type' => 'application/x-www-form-urlencoded'), '{"a":1}', 'what curl -d sends is JSON if it is JSON');
is(stored('a=1&b=2', 'Content-Type' => 'application/x-www-form-urlencoded'), '"a=1&b=2"', 'what curl -d sends is a string if not');
is(stored('{"a":1}', 'Content-Type' => undef), '{"a":1}', 'a body without a type is JSON if it is JSON');
is(stored('hello', 'Content-Type' => undef), '"hello"', 'a body without a type is a string if not');

$answer = $client->post('/post', '[7]', Prefer => 'wait=1, return=minimal');
is($answer->{status}, 202, 'a preference is no obstacle');
like($answer->{body}, qr/\A\{"status":"queued","id":"$uuid"\}\z/, 'return=minimal leaves the message out');
is($answer->{headers}{'preference-applied'}, 'return=minimal', 'and says so');

$answer = $client->method('OPTIONS', '/post');
is($answer->{status}, 204, 'OPTIONS is answered without a body');
is($answer->{headers}{allow}, 'POST, OPTIONS', 'OPTIONS says what is allowed');

for my $method (qw(GET HEAD PUT DELETE PATCH)) {
    $answer = $client->method($method, '/post', $method =~ /^P/ ? '{}' : undef);
    is($answer->{status}, 405, "$method is not allowed");
    is($answer->{headers}{allow}, 'POST, OPTIONS', "$method: what is, is said");
    is($answer->{headers}{'content-type'}, 'application/problem+json', "$method: as a problem");
}

for my $case (
    [ 'gzip',      'Content-Encoding' => 'gzip' ],
    [ 'latin 1',   'Content-Type' => 'text/plain; charset=iso-8859-1' ],
    [ 'a charset that begins like ours', 'Content-Type' => 'text/plain; charset=utf-8x' ],
) {
    my ($name, @headers) = @$case;
    $answer = $client->post('/post', '{}', @headers);
    is($answer->{status}, 415, "$name is not supported");
    is($answer->{headers}{'accept-post'}, 'application/json, text/plain, application/x-ndjson', "$name: what is, is said");
    is($answer->json->{code}, 'unsupported_type', "$name: as a problem");
}

is($client->post('/post', '{}', 'Content-Encoding' => 'identity')->{status}, 202, 'the identity coding is none');

$answer = $client->post('/nowhere', '{}');
is($answer->{status}, 404, "nginx's own refusals have their status");
is($answer->json->{status}, 404, 'and are problems, too');

is($pg->safe_psql('select count(*) - count(distinct message_id) from posts'), 0, 'no message is there twice');

done_testing;
