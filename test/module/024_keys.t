# Idempotency-Key: the same key and message again get the first answer again, and nothing is queued twice.

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

sub posts {
    my ($data) = @_;
    $pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
    return $pg->safe_psql("select count(*) from posts where data::text = \$\$$data\$\$");
}

# ---- the same again
my $first = keyed('"one"', '{"n": 1}');
is($first->{status}, 202, 'a message with a key');
ok(!exists $first->{headers}{'idempotency-replayed'}, 'is new');
my $again = keyed('"one"', '{"n": 1}');
is($again->{status}, 202, 'the same again');
is($again->{body}, $first->{body}, 'the first answer again');
is($again->{headers}{'idempotency-replayed'}, 'true', 'and said so');
is(posts('{"n": 1}'), 1, 'it is there once');
is(keyed('"one"', '{"n": 1}')->{body}, $first->{body}, 'after the move, too');
is(keyed('"one"', " {\"n\": 1}\n")->{body}, $first->{body}, 'white space around the message does not matter');
is(keyed('"one"', '{"n": 1}', Prefer => 'return=minimal')->json->{id}, $first->json->{id}, 'nor does the form of the answer');
like(Pgq::Host::slurp("$nginx->{dir}/keys.log"), qr{^/post 202 \Q@{[ $first->json->{id} ]}\E replayed$}m, 'the log has the first id, and that it was replayed');

my $other = keyed('"one"', '{"n": 2}');
is("$other->{status} $other->{reason}", '422 Unprocessable Content', 'another message');
is($other->json->{code}, 'key_reused', 'is told that the key was used');
is(posts('{"n": 2}'), 0, 'and is not queued');
is(keyed('"two"', '{"n": 1}')->{status}, 202, 'another key, the same message');
is(posts('{"n": 1}'), 2, 'is another message');

# ---- what a key may look like
my $long = 'k' x 255;
for my $case (
    [ 'one',              'one',    'without quotes' ],
    [ '  "one"  ',        'one',    'with spaces around' ],
    [ '"one";a=b',        'one',    'with a parameter' ],
) {
    my ($value, $same, $name) = @$case;
    is(keyed($value, '{"n": 1}')->{body}, $first->{body}, "$name: the same key");
}
is(keyed('"say \"hello\" \\\\ "', '1')->{status}, 202, 'with quotes and backslashes, escaped');
is($pg->safe_psql(q{select count(*) from ngx_pgq.key where digest = sha256(convert_to('say "hello" \\ ', 'UTF8'))}), 1, 'is kept as it is meant');
is(keyed("\"$long\"", '1')->{status}, 202, '255 characters');

for my $bad ('', '""', '"', '"one', 'one two', 'o"ne', '"one"two', '"\\x"', "\"${long}k\"", "k$long", '"gr\xc3\xbcn"', 'a,b', ';a=b', '"a", "b"') {
    my $answer = keyed($bad, '"bad"');
    is($answer->{status}, 400, "no key: $bad");
    is($answer->json->{code}, 'bad_key', 'and said so');
}
$client->send($client->request('POST', '/post', body => '"bad"', headers => { 'Idempotency-Key' => "\"a\"\r\nIdempotency-Key: \"b\"" }));
is($client->answer->json->{code}, 'bad_key', 'nor are two');
is(posts('"bad"'), 0, 'nothing of that is queued');

# ---- the settings
is($client->post('/off', '"off"', 'Idempotency-Key' => '"off"')->{status}, 202, 'off: a key') for 1 .. 2;
is(posts('"off"'), 2, 'means nothing');
is($client->post('/must', '"must"')->json->{code}, 'key_required', 'required: a message without a key is refused');
is($client->post('/must', '"must"', 'Idempotency-Key' => 'must')->{status}, 202, 'one with a key is not');
my %scoped = map { $_ => $client->post("/scoped?who=$_", '"scoped"', 'Idempotency-Key' => 'scoped') } qw(me you);
isnt($scoped{me}->json->{id}, $scoped{you}->json->{id}, 'scopes: keys of two are two');
is($client->post("/scoped?who=me", '"scoped"', 'Idempotency-Key' => 'scoped')->json->{id}, $scoped{me}->json->{id}, 'those of one are one');
is(posts('"scoped"'), 2, 'each is there once');

# ---- what is refused has not used its key
is(keyed('"mended"', '{"n":')->{status}, 400, 'what is no JSON is refused');
is(keyed('"mended"', '{"n": 7}')->{status}, 202, 'and mended under the same key');

# ---- many in one request
my $lines = keyed('"lines"', "1\n2\n3\n", @ndjson);
is($lines->{status}, 202, 'lines with a key');
is(keyed('"lines"', "1\n2\n3\n", @ndjson)->{body}, $lines->{body}, 'again: the same ids');
is(keyed('"lines"', "1\n2\n4\n", @ndjson)->{status}, 422, 'other lines');
is(keyed('"lines"', '1')->{status}, 422, 'one of them alone');
is(keyed('"single"', '"s"')->{status}, 202, 'one message');
is(keyed('"single"', "\"s\"\n", @ndjson)->{status}, 422, 'is not a line of that');

# ---- under way: it waits for its replica, and so does nobody else with that key
my $standby = $pg->standby;
$pg->commits_wait_for('*');
my @waiting = map { Pgq::Client->new($nginx) } 1 .. 2;
$waiting[0]->send($waiting[0]->request('POST', '/post', body => '"flight"', headers => { 'Idempotency-Key' => '"flight"' }));
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'SyncRep'", 1);
$waiting[1]->send($waiting[1]->request('POST', '/post', body => '"flight"', headers => { 'Idempotency-Key' => '"flight"' }));
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'SyncRep'", 2);
$standby->start;
is($waiting[0]->answer->{status}, 202, 'the first is accepted when it is replicated');
my $flight = $waiting[1]->answer;
is($flight->{status}, 409, 'the second was told that the first is under way');
is($flight->json->{code}, 'key_in_flight', 'by its code');
is($flight->{headers}{'retry-after'}, 1, 'and when to come back');
is(keyed('"flight"', '"flight"')->{headers}{'idempotency-replayed'}, 'true', 'then it is told the answer');
is(posts('"flight"'), 1, 'it is there once');
$pg->safe_psql('alter system reset synchronous_standby_names', database => 'postgres');
$pg->safe_psql('select pg_reload_conf()', database => 'postgres');
poll_until { $pg->safe_psql('show synchronous_standby_names') eq '' } 10;
$standby->stop;

# ---- in one batch, with others
my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
my @blocked = map { Pgq::Client->new($nginx) } 1 .. 2;
$_->send($_->request('POST', '/post', body => '"blocked"')) for @blocked;
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 2);
my @mates = map { Pgq::Client->new($nginx) } 1 .. 200;
$mates[$_]->send($mates[$_]->request('POST', '/post', body => '"mate"', headers => { 'Idempotency-Key' => '"mate-' . int($_ / 2) . '"' })) for 0 .. $#mates;
Pgq::Client->new($nginx)->get('/nowhere');
$lock->query('commit');
is((grep { $_->answer->{status} == 202 } @blocked), 2, 'two go before');
my %count;
$count{ $_->answer->{status} }++ for @mates;
is(posts('"mate"'), 100, 'of 200 with 100 keys, in batches of 64 keys at most, 100 are queued') or diag(explain(\%count));
is(($count{202} // 0) + ($count{409} // 0), 200, 'the others are told so, or to come back');
cmp_ok($count{202}, '>=', 100, 'each key has its 202');
ok(!$pg->log_contains(qr/batch has \d+ idempotency keys/), 'nor does a batch have more keys than PostgreSQL takes');

# ---- as many keys as there may be
$pg->safe_psql('alter system set ngx_pgq.max_keys = 1');
$pg->reload;
$pg->poll_query_until('show ngx_pgq.max_keys', 1);
poll_until { keyed('"full ' . ++$key . '"', '"too many"')->{status} == 503 } 10;
for my $case ([ 'a message' => '"too many"' ], [ 'lines' => "1\n2\n", @ndjson ]) {
    my ($name, @request) = @$case;
    my $full = keyed('"above"', @request);
    is($full->{status}, 503, "$name with a new key is refused while there are too many");
    is($full->json->{code}, 'keys_full', 'by its code');
    cmp_ok($full->{headers}{'retry-after'}, '>', 0, 'it may come back');
}
is(keyed('"one"', '{"n": 1}')->{body}, $first->{body}, 'a known key gets its first answer');
is($client->post('/post', '"no key"')->{status}, 202, 'a message without a key is accepted');
$pg->safe_psql('alter system reset ngx_pgq.max_keys');
$pg->reload;
ok((poll_until { keyed('"above"', '"above"')->{status} == 202 } 10), 'and one with a key when there may be more');
is(posts('"above"'), 1, 'it is there once');

my $metrics = $client->get('/metrics')->{body};
like($metrics, qr/reason="$_"\} [1-9]/, "$_ is counted") for qw(bad_key key_in_flight key_required key_reused keys_full);

# ---- it survives nginx and PostgreSQL
$nginx->stop;
$pg->restart('immediate');
$nginx->start;
$client = Pgq::Client->new($nginx);
is(keyed('"one"', '{"n": 1}')->{body}, $first->{body}, 'after a crash of one and a restart of the other: the first answer');
is(posts('{"n": 1}'), 2, 'and nothing more');
$nginx->stop;

# ---- unknown outcomes: sent again, each key is still taken once
my $wire = Pgq::Wire->new($pg)->start;
$nginx  = Pgq::Nginx->new(name => 'wired', pg => $pg, conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=2', timeout => '60s',
    locations => 'pgq_idempotency_scope off;')->start;
$client = Pgq::Client->new($nginx);
poll_until { $wire->clients == 2 } 10;
for my $place ([ before => 'Bind' ], [ after => 'Sync' ], [ before => 'CommandComplete' ], [ before => 'ReadyForQuery' ]) {
    my $name = "cut @$place";
    $wire->plan({ in => 'enqueue_keyed', @$place, do => 'cut' });
    my $answer = keyed("\"$name\"", "\"$name\"");
    is($answer->{status}, 202, "$name: accepted");
    ok($wire->happened, 'although it was');
    ok(!exists $answer->{headers}{'idempotency-replayed'}, 'not as a replay of itself');
    is($pg->safe_psql("select message_id from ngx_pgq.key where digest = sha256('$name')"), $answer->json->{id}, 'the key has its id');
    is(posts("\"$name\""), 1, 'and it is there once');

    $wire->plan({ in => 'enqueue_keyed', @$place, do => 'cut' });
    my $again = keyed("\"$name\"", "\"$name\"");
    is($again->{body}, $answer->{body}, 'the same again, and cut as well: the first answer');
    is($again->{headers}{'idempotency-replayed'}, 'true', 'as a replay');
    is(posts("\"$name\""), 1, 'and nothing more');
    $wire->plan;
}

done_testing;
