# Header fields are parsed by their grammar (RFC 9110 5.5 and 5.6, RFC 7240, RFC 8941): optional white space, several field
# lines, lists, quoted strings, parameters, case.

use Pgq;

my $pg     = Pgq::Postgres->new->start;
my $nginx  = Pgq::Nginx->new(pg => $pg)->start;
my $client = Pgq::Client->new($nginx);

# Sends a POST with these header lines, in this order. Returns the answer.
sub post {
    my ($body, @lines) = @_;

    $client->send(join "\r\n", 'POST /post HTTP/1.1', 'Host: x', @lines, 'Content-Length: ' . length $body, '', $body);

    return $client->answer;
}

# Posts a body. Returns what it became: "text" for a string, "json" for any other value, the number of messages for NDJSON;
# if it is refused, the status and the code.
sub became {
    my ($body, @lines) = @_;
    my $answer = post($body, @lines);

    return "$answer->{status} " . $answer->json->{code} if $answer->{status} != 202;

    my $json = $answer->json;

    return $json->{ids} ? scalar @{ $json->{ids} } : ref $json->{msg} ? 'json' : 'text';
}

# ---- Content-Type: white space, parameters, case
for my $type (
    'application/x-ndjson', "\tapplication/x-ndjson", " \t application/x-ndjson\t ", 'APPLICATION/X-NDJSON', 'application/x-ndjson;',
    "application/x-ndjson\t;\tcharset=UTF-8", 'application/x-ndjson;charset="utf\-8"', 'application/x-ndjson;x=";charset=latin1"',
    'application/x-ndjson; header=present; charset=us-ascii; ;',
    # other names of NDJSON
    'application/ndjson', 'application/jsonl', 'application/x-jsonl', 'application/jsonlines', 'application/x-jsonlines',
    'application/json-lines', 'application/x-ldjson', 'text/x-ndjson', 'text/jsonl',
) {
    is(became("[1]\n[2]\n[3]\n", "Content-Type:$type"), 3, "\"$type\" is NDJSON");
}

for my $type ("application/json\t", 'text/json', 'application/x-json', 'text/x-json', 'application/vnd.a.b+json', 'image/x+JSON',
    'application/json; profile="a,b"')
{
    is(became('{"a":1}', "Content-Type:\t$type"), 'json', "\"$type\" is JSON");
    is(became('{"a":1,}', "Content-Type:\t$type"), '400 not_json', "\"$type\": a body that is not JSON is refused");
}

is(became('[1]', "Content-Type:\t$_"), 'text', "\"$_\" is text") for "text/plain\t;\tcharset=utf8", 'TEXT/Plain';

is(became('[1]', 'Content-Type: text/plain', $_), '415 unsupported_type', "\"$_\" is not supported")
    for "Content-Encoding:\tgzip", 'Content-Encoding: identity, gzip', "Content-Encoding: identity\r\nContent-Encoding: gzip",
    'Content-Encoding: identity;q=1', 'Content-Encoding: "identity"';

is(became('[1]', $_), 'json', "\"$_\" does not change the meaning of a body")
    for "Content-Encoding:\tIdentity\t", 'Content-Encoding:', 'Content-Encoding: , identity,,identity', 'Prefer: a b', 'Prefer: =';

is(became('[1]', "Content-Type: $_"), '415 unsupported_type', "\"$_\": a charset other than UTF-8 is not supported")
    for 'application/json; charset=latin1', "text/plain;charset=\"iso-8859-1\"", 'text/csv; charset=""', 'application/x-ndjson; charset=utf-16',
    'text/plain; charset=utf-8; charset=latin1', 'text/plain; CharSet="latin\1"';

# ---- malformed types: they are refused, unlike a missing type
for my $type (
    '', ';', 'json', 'application/', '/json', 'application /json', 'application/json,', 'application/json, application/json',
    'application/x-ndjson, application/x-ndjson', 'application/json charset=utf-8', 'application/json; charset', 'application/json; charset=',
    'application/json; charset = utf-8', 'application/json; charset="utf-8', "application/json; x=\"\x01\"", "application/js\xc3\xb6n",
    '"application/json"', 'application/json; charset=utf-8x"',
) {
    is(became("[1]\n[2]", "Content-Type: $type"), '400 bad_type', "\"$type\" is malformed");
}

is(became('[1]', 'Content-Type: application/json', "content-type: $_"), '400 bad_type', "a second Content-Type, $_, is refused")
    for 'application/json', 'text/plain';
is($pg->safe_psql(q(select count(*) from posts where data::text ~ '^".*2')), 0, 'no message with an unsupported or malformed type is a post');

# ---- Prefer
for my $case (
    [ 1, 'return=minimal' ], [ 1, "\treturn=minimal\t" ], [ 1, 'RETURN=Minimal' ], [ 1, 'return = "minimal"' ], [ 1, 'return="mini\mal";a=b' ],
    [ 1, 'respond-async, return=minimal' ], [ 1, ',a="b,c";d; e = "f" ,, return=minimal,' ], [ 1, "a\r\nPrefer: return=minimal" ],
    [ 1, "return=minimal\r\nPrefer: return=representation" ],
    [ 0, 'return=minimalist' ], [ 0, 'x-return=minimal' ], [ 0, 'return=representation' ], [ 0, 'return' ], [ 0, 'return=""' ],
    [ 0, 'a="return=minimal"' ], [ 0, 'a="b, return=minimal"' ], [ 0, 'a; return=minimal' ], [ 0, 'return=representation, return=minimal' ],
    [ 0, "return=representation\r\nPrefer: return=minimal" ], [ 0, 'return=minimal x' ], [ 0, 'return=minimal, a=b/c' ], [ 0, 'return=minimal, "' ],
    [ 0, 'return==minimal' ], [ 0, 'return=(minimal)' ],
) {
    my ($minimal, $value) = @$case;
    my $applied = $minimal ? 'return=minimal' : $value =~ /^return=representation/ ? 'return=representation' : '';
    my $answer = post('[1]', "Prefer: $value");

    is($answer->{status}, 202, "Prefer: $value is accepted");
    is(exists $answer->json->{msg}, !$minimal, "Prefer: $value: the answer has " . ($minimal ? 'no message' : 'the message'));
    is($answer->header('Preference-Applied') // '', $applied, "Prefer: $value: the answer names the applied preference");
}

# ---- Idempotency-Key: spellings of the first key
my $first = post('[9]', 'Idempotency-Key: "the key"');

is(post('[9]', "Idempotency-Key:$_")->{body}, $first->{body}, "Idempotency-Key:$_ is the same key")
    for "\t\"the key\"\t", ' "the key";a', " \"the key\"\t;\ta=\"b;c\";d=1.5;e=?0;f=:YQ==:";

is(became('[9]', "Idempotency-Key: $_"), '400 bad_key', "Idempotency-Key: $_ is malformed")
    for '"the key", "the key"', "\"the key\"\r\nIdempotency-Key: \"the key\"", "\"the key\"\r\nIdempotency-Key:", '"the key";', '"the key";a="b',
    '"the key"; a b', "\"the\tkey\"";

done_testing;
