# Idempotency-Key: a request with the key and message of an earlier one gets the earlier answer, and no message is queued twice.

use Pgq;
use Pgq::Wire;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'lanes=2',
    timeout   => '60s',
    http      => 'log_format pgq "$request_uri $status $pgq_id $pgq_outcome";',
    locations => 'pgq_idempotency_scope off; location = /off { pgq_post main; pgq_idempotency off; } location = /must { pgq_post main; pgq_idempotency required; }'
        . ' location = /scoped { pgq_post main; pgq_idempotency_scope $arg_who; } location = /hasty { pgq_post main; pgq_timeout 500ms; }'
        . ' location = /metrics { pgq_metrics; }',
);
$nginx->configure(server => "access_log $nginx->{dir}/keys.log pgq;");
$nginx->start;
my $client = Pgq::Client->new($nginx);
my @ndjson = ('Content-Type' => 'application/x-ndjson');
my $key    = 0;

sub keyed { my ($value, $body, @headers) = @_; return $client->post('/post', $body, 'Idempotency-Key' => $value, @headers) }

# ---- the same key and message
my $first = keyed('"one"', '{"n": 1}');
is($first->{status}, 202, 'a message with a key is accepted');
ok(!exists $first->{headers}{'idempotency-replayed'}, 'the answer to a new key is not a replay');
my $again = keyed('"one"', '{"n": 1}');
is($again->{status}, 202, 'the same message with the same key is answered with 202');
is($again->{body}, $first->{body}, 'the same message with the same key gets the first answer');
is($again->{headers}{'idempotency-replayed'}, 'true', 'the answer to a repeated key says that it is a replay');
is($pg->count_posts('{"n": 1}'), 1, 'a message that was sent twice with one key is a post once');
is(keyed('"one"', '{"n": 1}')->{body}, $first->{body}, 'a message that is a post already gets the first answer');
is(keyed('"one"', " {\"n\": 1}\n")->{body}, $first->{body}, 'white space around a repeated message does not matter');
is(keyed('"one"', '{"n": 1}', Prefer => 'return=minimal')->json->{id}, $first->json->{id}, 'return=minimal does not change the id of a replay');
like(Pgq::Host::slurp("$nginx->{dir}/keys.log"), qr{^/post 202 \Q@{[ $first->json->{id} ]}\E replayed$}m, 'the access log has the first id and the outcome replayed');

my $other = keyed('"one"', '{"n": 2}');
is("$other->{status} $other->{reason}", '422 Unprocessable Content', 'another message with a used key is answered with 422');
is($other->json->{code}, 'key_reused', 'another message with a used key has the code key_reused');
is($pg->count_posts('{"n": 2}'), 0, 'another message with a used key is not queued');
is(keyed('"two"', '{"n": 1}')->{status}, 202, 'the same message with another key is accepted');
is($pg->count_posts('{"n": 1}'), 2, 'the same message with another key is queued again');

# ---- the syntax of a key
my $long = 'k' x 255;
for my $case (
    [ 'one',              'without quotes' ],
    [ '  "one"  ',        'with spaces around' ],
    [ '"one";a=b',        'with a parameter' ],
) {
    my ($value, $name) = @$case;
    is(keyed($value, '{"n": 1}')->{body}, $first->{body}, "a key $name is the same key");
}
is(keyed('"say \"hello\" \\\\ "', '1')->{status}, 202, 'a key with escaped quotes and backslashes is accepted');
is($pg->safe_psql(q{select count(*) from ngx_pgq.key where digest = sha256(convert_to('say "hello" \\ ', 'UTF8'))}), 1, 'escapes of a key are decoded');
is(keyed("\"$long\"", '1')->{status}, 202, 'a key of 255 characters is accepted');

for my $bad ('', '""', '"', '"one', 'one two', 'o"ne', '"one"two', '"\\x"', "\"${long}k\"", "k$long", '"gr\xc3\xbcn"', 'a,b', ';a=b', '"a", "b"') {
    is_problem(keyed($bad, '"bad"'), 400, 'bad_key', "a message with the key $bad");
}
$client->send_post('/post', '"bad"', 'Idempotency-Key' => "\"a\"\r\nIdempotency-Key: \"b\"");
is($client->answer->json->{code}, 'bad_key', 'two Idempotency-Key fields are refused');
is($pg->count_posts('"bad"'), 0, 'messages with invalid keys are not queued');

# ---- pgq_idempotency
is($client->post('/off', '"off"', 'Idempotency-Key' => '"off"')->{status}, 202, 'pgq_idempotency off: a message with a key is accepted') for 1 .. 2;
is($pg->count_posts('"off"'), 2, 'pgq_idempotency off: a repeated key is ignored');
is($client->post('/must', '"must"')->json->{code}, 'key_required', 'pgq_idempotency required: a message without a key is refused');
is($client->post('/must', '"must"', 'Idempotency-Key' => 'must')->{status}, 202, 'pgq_idempotency required: a message with a key is accepted');
my %scoped = map { $_ => $client->post("/scoped?who=$_", '"scoped"', 'Idempotency-Key' => 'scoped') } qw(me you);
isnt($scoped{me}->json->{id}, $scoped{you}->json->{id}, 'a key in two scopes is two keys');
is($client->post("/scoped?who=me", '"scoped"', 'Idempotency-Key' => 'scoped')->json->{id}, $scoped{me}->json->{id}, 'a key that is repeated in its scope gets the first answer');
is($pg->count_posts('"scoped"'), 2, 'the messages of two scopes are queued once each');

# ---- a refused message does not use its key
is(keyed('"corrected"', '{"n":')->{status}, 400, 'a message that is not JSON is refused');
is(keyed('"corrected"', '{"n": 7}')->{status}, 202, 'a corrected message is accepted with the key of the refused one');

# ---- NDJSON
my $lines = keyed('"lines"', "1\n2\n3\n", @ndjson);
is($lines->{status}, 202, 'NDJSON with a key is accepted');
is(keyed('"lines"', "1\n2\n3\n", @ndjson)->{body}, $lines->{body}, 'the same lines with the same key get the first ids');
is(keyed('"lines"', "1\n2\n4\n", @ndjson)->{status}, 422, 'other lines with a used key are answered with 422');
is(keyed('"lines"', '1')->{status}, 422, 'one message with the key of several lines is answered with 422');
is(keyed('"single"', '"s"')->{status}, 202, 'one message with a key is accepted');
is(keyed('"single"', "\"s\"\n", @ndjson)->{status}, 422, 'a line with the key of a single message is answered with 422');

# ---- a key whose first request still waits for its replica
my $standby = $pg->standby;
$pg->commits_wait_for('*');
my @waiting = Pgq::Client->new($nginx)->send_post('/post', '"flight"', 'Idempotency-Key' => '"flight"');
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'SyncRep'", 1);
push @waiting, Pgq::Client->new($nginx)->send_post('/post', '"flight"', 'Idempotency-Key' => '"flight"');
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'SyncRep'", 2);
$standby->start;
is($waiting[0]->answer->{status}, 202, 'the first request with a key is accepted when it is replicated');
my $second = $waiting[1]->answer;
is_problem($second, 409, 'key_in_flight', 'a second request with a key whose first request is not committed');
is($second->{headers}{'retry-after'}, 1, 'the answer for a key in progress has Retry-After');
is(keyed('"flight"', '"flight"')->{headers}{'idempotency-replayed'}, 'true', 'a key whose request was committed is answered with a replay');
is($pg->count_posts('"flight"'), 1, 'a message whose key was repeated while it was not committed is queued once');
$pg->commits_wait_for('');
$standby->stop;

# ---- the same keys within a batch
my $lock = $pg->lock_table;
my @blocked = map { Pgq::Client->new($nginx)->send_post('/post', '"blocked"') } 1 .. 2;
$pg->wait_for_lock(2);
my @repeated = map { Pgq::Client->new($nginx)->send_post('/post', '"repeated"', 'Idempotency-Key' => '"repeated-' . int($_ / 2) . '"') } 0 .. 199;
$nginx->wait_until_received;
$lock->release;
is((grep { $_->answer->{status} == 202 } @blocked), 2, 'the requests that hold the lanes are accepted');
my %count;
$count{ $_->answer->{status} }++ for @repeated;
is($pg->count_posts('"repeated"'), 100, 'of 200 messages with 100 keys, in batches of at most 64 keys, 100 are queued') or diag(explain(\%count));
is(($count{202} // 0) + ($count{409} // 0), 200, 'each message with a key that is repeated in its batch is answered with 202 or 409');
cmp_ok($count{202}, '>=', 100, 'each key of a batch is accepted at least once');
ok(!$pg->log_contains(qr/batch has \d+ idempotency keys/), 'no batch has more keys than PostgreSQL accepts');

# ---- the limit of keys
$pg->set('ngx_pgq.max_keys' => 1);
$pg->poll_query_until('show ngx_pgq.max_keys', 1);
poll_until { keyed('"full ' . ++$key . '"', '"too many"')->{status} == 503 } 10;
for my $case ([ 'a message' => '"too many"' ], [ 'lines' => "1\n2\n", @ndjson ]) {
    my ($name, @request) = @$case;
    my $full = keyed('"above"', @request);
    is_problem($full, 503, 'keys_full', "$name with a new key, while there are too many keys,");
    cmp_ok($full->{headers}{'retry-after'}, '>', 0, "$name: the answer to too many keys has Retry-After");
}
is(keyed('"one"', '{"n": 1}')->{body}, $first->{body}, 'a known key gets its first answer while there are too many keys');
is($client->post('/post', '"no key"')->{status}, 202, 'a message without a key is accepted while there are too many keys');
$pg->set('ngx_pgq.max_keys' => undef);
ok((poll_until { keyed('"above"', '"above"')->{status} == 202 } 10), 'a new key is accepted when the limit is raised');
is($pg->count_posts('"above"'), 1, 'a key that was refused because of the limit is queued once');

my $metrics = $client->get('/metrics')->{body};
like($metrics, qr/reason="$_"\} [1-9]/, "the problem $_ is counted in the metrics") for qw(bad_key key_in_flight key_required key_reused keys_full);

# ---- restarts
$nginx->stop;
$pg->restart('immediate');
$nginx->start;
$client = Pgq::Client->new($nginx);
is(keyed('"one"', '{"n": 1}')->{body}, $first->{body}, 'a key gets its first answer after a crash of PostgreSQL and a restart of nginx');
is($pg->count_posts('{"n": 1}'), 2, 'a replay after a restart queues nothing');
$nginx->stop;

# ---- an unknown outcome: the batch is sent again, and each key is used once
my $wire = Pgq::Wire->new($pg)->start;
$nginx  = Pgq::Nginx->new(name => 'wired', pg => $pg, conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=2', timeout => '60s',
    locations => 'pgq_idempotency_scope off;')->start;
$client = Pgq::Client->new($nginx);
poll_until { $wire->clients == 2 } 10;
for my $place ([ before => 'Bind' ], [ after => 'Sync' ], [ before => 'CommandComplete' ], [ before => 'ReadyForQuery' ]) {
    my $name = "cut @$place";
    $wire->plan({ in => 'enqueue_keyed', @$place, do => 'cut' });
    my $answer = keyed("\"$name\"", "\"$name\"");
    is($answer->{status}, 202, "$name: a message with a key is accepted");
    ok($wire->happened, "$name: the connection of a new key was cut");
    ok(!exists $answer->{headers}{'idempotency-replayed'}, "$name: the answer to the batch that was sent again is not a replay");
    is($pg->safe_psql("select message_id from ngx_pgq.key where digest = sha256('$name')"), $answer->json->{id}, "$name: the key has the id of the answer");
    is($pg->count_posts("\"$name\""), 1, "$name: the message is queued once");

    $wire->plan({ in => 'enqueue_keyed', @$place, do => 'cut' });
    my $again = keyed("\"$name\"", "\"$name\"");
    is($again->{body}, $answer->{body}, "$name: a repeated key gets the first answer");
    is($again->{headers}{'idempotency-replayed'}, 'true', "$name: a repeated key is answered with a replay");
    is($pg->count_posts("\"$name\""), 1, "$name: a repeated key queues nothing");
    $wire->plan;
}

done_testing;
