# POST follows docs/http.md: which bodies are messages, and how they are answered.

use Pgq;

my $pg     = Pgq::Postgres->new->start;
my $nginx  = Pgq::Nginx->new(pg => $pg)->start;
my $client = Pgq::Client->new($nginx);
my $uuid   = qr/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/;

# Posts the body. Returns the data of its row in posts.
sub stored {
    my ($body, %headers) = @_;
    my $answer = $client->post('/post', $body, %headers);

    is($answer->{status}, 202, "$body is accepted") or return diag($answer->{body});

    my ($id) = $answer->{body} =~ /"id":"($uuid)"/;
    $pg->poll_query_until("select count(*) from posts where message_id = '$id'", 1);

    return $pg->safe_psql("select data from posts where message_id = '$id'");
}

my $answer = $client->post('/post', '{"a": 1.10}');
is($answer->{status}, 202, 'a JSON message is accepted');
is($answer->{headers}{'content-type'}, 'application/json', 'the answer is JSON');
like($answer->{body}, qr/\A\{"status":"queued","id":"$uuid","msg":\{"a": 1\.10\}\}\z/, 'the answer has the id and the message');

for my $json ('1', '-0', '1.000', '1e400', '123456789012345678901234567890.10', '"text"', 'true', 'null', '[]',
    '{"a":1,"a":2}', '{ "z" : 1,  "a":[ 1 ,2 ] }', '"\u00e4\ud83d\ude00"', '"ä😀"')
{
    is(stored($json), $json, "$json is stored unchanged");
}

is(stored(" \t\r\n[1, 2]\n"), '[1, 2]', 'white space around a message is not stored');
is(stored('[1,2]', 'Content-Type' => 'application/vnd.thing+json; charset=utf-8'), '[1,2]', 'a body of a type that ends with +json is JSON');

is(stored('[1,2', 'Content-Type' => 'text/plain'), '"[1,2"', 'a body of text/plain becomes a JSON string');
is(stored('[1,2]', 'Content-Type' => 'text/plain; charset=UTF-8'), '"[1,2]"', 'a body of text/plain becomes a JSON string even if it is valid JSON');
is(stored(qq{a "b"\\\n\x01\t}, 'Content-Type' => 'text/plain'), '"a \"b\"\\\\\n\u0001\t"', 'characters of a text are escaped in its JSON string');
is(stored('{"a":1}', 'Content-Type' => 'application/x-www-form-urlencoded'), '{"a":1}', 'a body of the type that curl -d sends is JSON if it is valid JSON');
is(stored('a=1&b=2', 'Content-Type' => 'application/x-www-form-urlencoded'), '"a=1&b=2"', 'a body of the type that curl -d sends becomes a JSON string if it is not valid JSON');
is(stored('{"a":1}', 'Content-Type' => undef), '{"a":1}', 'a body without a type is JSON if it is valid JSON');
is(stored('hello', 'Content-Type' => undef), '"hello"', 'a body without a type becomes a JSON string if it is not valid JSON');

$answer = $client->post('/post', '[7]', Prefer => 'wait=1, return=minimal');
is($answer->{status}, 202, 'a request with preferences is accepted');
like($answer->{body}, qr/\A\{"status":"queued","id":"$uuid"\}\z/, 'return=minimal leaves the message out of the answer');
is($answer->{headers}{'preference-applied'}, 'return=minimal', 'Preference-Applied names return=minimal');

$answer = $client->method('OPTIONS', '/post');
is($answer->{status}, 204, 'OPTIONS is answered with 204');
is($answer->{headers}{allow}, 'POST, OPTIONS', 'OPTIONS is answered with the allowed methods');

for my $method (qw(GET HEAD PUT DELETE PATCH)) {
    $answer = $client->method($method, '/post', $method =~ /^P/ ? '{}' : undef);
    is($answer->{status}, 405, "$method is not allowed");
    is($answer->{headers}{allow}, 'POST, OPTIONS', "$method is answered with the allowed methods");
    is($answer->{headers}{'content-type'}, 'application/problem+json', "$method is answered with a problem document");
}

for my $case (
    [ 'a gzip body', 'Content-Encoding' => 'gzip' ],
    [ 'a body of ISO 8859-1', 'Content-Type' => 'text/plain; charset=iso-8859-1' ],
    [ 'a charset that begins with utf-8', 'Content-Type' => 'text/plain; charset=utf-8x' ],
) {
    my ($name, @headers) = @$case;
    $answer = $client->post('/post', '{}', @headers);
    is_problem($answer, 415, 'unsupported_type', $name);
    is($answer->{headers}{'accept-post'}, 'application/json, text/plain, application/x-ndjson', "$name is answered with the supported types");
}

is($client->post('/post', '{}', 'Content-Encoding' => 'identity')->{status}, 202, 'a body with the coding identity is accepted');

$answer = $client->post('/nowhere', '{}');
is($answer->{status}, 404, "POST to an unknown path is answered with 404");
is($answer->json->{status}, 404, 'POST to an unknown path is answered with a problem document');

is($pg->safe_psql('select count(*) - count(distinct message_id) from posts'), 0, 'each message is in posts once');

done_testing;
