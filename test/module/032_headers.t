# Header fields are read by their grammar (RFC 9110 5.5 and 5.6, RFC 7240, RFC 8941): optional white space, several lines,
# lists, quoted strings, parameters, and the case of letters.

use Pgq;

my $pg     = Pgq::Postgres->new->start;
my $nginx  = Pgq::Nginx->new(pg => $pg)->start;
my $client = Pgq::Client->new($nginx);

# The answer to a POST with these lines of a header, in their order.
sub post {
    my ($body, @lines) = @_;

    $client->send(join "\r\n", 'POST /post HTTP/1.1', 'Host: x', @lines, 'Content-Length: ' . length $body, '', $body);

    return $client->answer;
}

# What a body became: "text" when it is a string, "json" when it is as it came, a number when it became so many messages.
sub taken {
    my ($body, @lines) = @_;
    my $answer = post($body, @lines);

    return "$answer->{status} " . $answer->json->{code} if $answer->{status} != 202;

    my $json = $answer->json;

    return $json->{ids} ? scalar @{ $json->{ids} } : ref $json->{msg} ? 'json' : 'text';
}

# ---- Content-Type: white space, parameters, the case of letters
for my $type (
    'application/x-ndjson', "\tapplication/x-ndjson", " \t application/x-ndjson\t ", 'APPLICATION/X-NDJSON', 'application/x-ndjson;',
    "application/x-ndjson\t;\tcharset=UTF-8", 'application/x-ndjson;charset="utf\-8"', 'application/x-ndjson;x=";charset=latin1"',
    'application/x-ndjson; header=present; charset=us-ascii; ;',
    # other names of the same
    'application/ndjson', 'application/jsonl', 'application/x-jsonl', 'application/jsonlines', 'application/x-jsonlines',
    'application/json-lines', 'application/x-ldjson', 'text/x-ndjson', 'text/jsonl',
) {
    is(taken("[1]\n[2]\n[3]\n", "Content-Type:$type"), 3, "\"$type\" is a message a line");
}

for my $type ("application/json\t", 'text/json', 'application/x-json', 'text/x-json', 'application/vnd.a.b+json', 'image/x+JSON',
    'application/json; profile="a,b"')
{
    is(taken('{"a":1}', "Content-Type:\t$type"), 'json', "\"$type\" is JSON");
    is(taken('{"a":1,}', "Content-Type:\t$type"), '400 not_json', "\"$type\": what is no JSON is refused");
}

is(taken('[1]', "Content-Type:\t$_"), 'text', "\"$_\" is text") for "text/plain\t;\tcharset=utf8", 'TEXT/Plain';

is(taken('[1]', 'Content-Type: text/plain', $_), '415 unsupported_type', "\"$_\" is not supported")
    for "Content-Encoding:\tgzip", 'Content-Encoding: identity, gzip', "Content-Encoding: identity\r\nContent-Encoding: gzip",
    'Content-Encoding: identity;q=1', 'Content-Encoding: "identity"';

is(taken('[1]', $_), 'json', "\"$_\" changes nothing")
    for "Content-Encoding:\tIdentity\t", 'Content-Encoding:', 'Content-Encoding: , identity,,identity', 'Prefer: a b', 'Prefer: =';

is(taken('[1]', "Content-Type: $_"), '415 unsupported_type', "\"$_\": only UTF-8 is supported")
    for 'application/json; charset=latin1', "text/plain;charset=\"iso-8859-1\"", 'text/csv; charset=""', 'application/x-ndjson; charset=utf-16',
    'text/plain; charset=utf-8; charset=latin1', 'text/plain; CharSet="latin\1"';

# ---- a Content-Type that is malformed is refused: it is not the same as none
for my $type (
    '', ';', 'json', 'application/', '/json', 'application /json', 'application/json,', 'application/json, application/json',
    'application/x-ndjson, application/x-ndjson', 'application/json charset=utf-8', 'application/json; charset', 'application/json; charset=',
    'application/json; charset = utf-8', 'application/json; charset="utf-8', "application/json; x=\"\x01\"", "application/js\xc3\xb6n",
    '"application/json"', 'application/json; charset=utf-8x"',
) {
    is(taken("[1]\n[2]", "Content-Type: $type"), '400 bad_type', "\"$type\" is malformed");
}

is(taken('[1]', 'Content-Type: application/json', "content-type: $_"), '400 bad_type', 'two Content-Types are malformed, ' . ($_ ? 'other ones' : 'the same'))
    for 'application/json', 'text/plain';
is($pg->safe_psql(q(select count(*) from posts where data::text ~ '^".*2')), 0, 'nothing of that is a post');

# ---- Prefer; what is applied and not the default is said
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

    is($answer->{status}, 202, "Prefer: $value is no obstacle");
    is(exists $answer->json->{msg}, !$minimal, $minimal ? 'is minimal' : 'is not minimal');
    is($answer->header('Preference-Applied') // '', $applied, 'and what was applied is said');
}

# ---- Idempotency-Key: the first of these is new, all others are the same key
my $first = post('[9]', 'Idempotency-Key: "the key"');

is(post('[9]', "Idempotency-Key:$_")->{body}, $first->{body}, "Idempotency-Key:$_ is the same key")
    for "\t\"the key\"\t", ' "the key";a', " \"the key\"\t;\ta=\"b;c\";d=1.5;e=?0;f=:YQ==:";

is(taken('[9]', "Idempotency-Key: $_"), '400 bad_key', "Idempotency-Key: $_ is malformed")
    for '"the key", "the key"', "\"the key\"\r\nIdempotency-Key: \"the key\"", "\"the key\"\r\nIdempotency-Key:", '"the key";', '"the key";a="b',
    '"the key"; a b', "\"the\tkey\"";

done_testing;
