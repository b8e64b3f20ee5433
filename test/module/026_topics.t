# Topics of messages: POST /post/<topic> and pgq_topic. Each post has the topic that its request named, a malformed topic is
# refused, and a batch that is sent again keeps its topics.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'lanes=1',
    timeout   => timeout(20) . 's',
    http      => 'log_format topic "$request_uri $status [$pgq_topic]";',
    locations => 'pgq_idempotency_scope off; location ^~ /post/ { pgq_post main; }'
        . ' location /plain { pgq_post main; } location = /variable { pgq_post main; pgq_topic $arg_topic; }'
        . ' location ~ ^/user/(?<who>[^/]+)/(?<rest>.*)$ { pgq_post main; pgq_topic user/$who/$rest; }'
        . ' location ~ ^/regex { pgq_post main; } location = /fixed/ { pgq_post main; pgq_topic a/fixed.one; }'
        . ' location ^~ /fixed/path/ { pgq_post main; pgq_topic ""; }'
        . ' location ^~ /if/ { pgq_post main; if ($http_x) { set $y 1; } }',
);
$nginx->configure(server => "access_log $nginx->{dir}/topics.log topic;");
$nginx->start;
my $client = Pgq::Client->new($nginx);
my @ndjson = ('Content-Type' => 'application/x-ndjson');
my $n      = 0;

# Posts a message of its own and returns the answer and the message.
sub post {
    my ($path, @headers) = @_;
    my $message = '"message ' . ++$n . '"';
    return (Pgq::Client->new($nginx)->post($path, $message, @headers), $message);
}

sub topic_of { $pg->wait_until_moved; return $pg->safe_psql("select topic from posts where data::text = '$_[0]'") }

sub has_topic {
    my ($path, $topic, $name, @headers) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my ($answer, $message) = post($path, @headers);
    is($answer->status, 202, "$name: the message is accepted");
    is(topic_of($message), $topic, $name);
    return $answer;
}

sub is_bad {
    my ($path, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my ($answer, $message) = post($path);
    is_problem($answer, 400, 'bad_topic', $name);
    return;
}

# ---- the topic is the URI after the location's name
has_topic('/post', '', 'a message to /post has no topic');
has_topic('/post/', '', 'a message to /post/ has no topic');
my $answer = has_topic('/post/orders', 'orders', 'a message to /post/orders has the topic orders');
is(join(' ', sort keys %{ $answer->json }), 'id msg status', 'the answer to a message with a topic has no further members');
has_topic('/post/orders/2026/eu-west.1~x_y', 'orders/2026/eu-west.1~x_y', 'a topic may have several segments');
has_topic('/post/orders?topic=other', 'orders', 'the query of a POST is no topic');
has_topic('/plain', '', 'a location without a slash at its end: its name alone is no topic');
has_topic('/plain/a/b', 'a/b', 'a location without a slash at its end: the topic follows a slash');
has_topic('/regex/a', '', 'a regex location has no topic from the URI');
has_topic('/if/a/b', 'a/b', 'an if block keeps the topic of its location', X => 1);
has_topic('/if/a/b', 'a/b', 'an if block that is not entered keeps the topic of its location');

# ---- what nginx does with the path before the module sees it
has_topic('/post/a/../b', 'b', 'nginx removes a segment before two dots');
has_topic('/post/a/./b', 'a/b', 'nginx removes a segment of one dot');
has_topic('/post/a/%2e%2E/b', 'b', 'nginx removes a segment before two encoded dots');
has_topic('/post/a/..', '', 'a path that two dots reduce to its location has no topic');
has_topic('/post//a///b', 'a/b', 'nginx merges slashes');
has_topic('/post/a%2Fb', 'a/b', 'an encoded slash separates segments');
has_topic('/post/%61%7e', 'a~', 'encoded letters are decoded');
has_topic('/post/...', '...', 'three dots are a segment');
has_topic('/post/a#b', 'a', 'nginx removes a fragment');
is((post('/post/../other'))[0]->status, 404, 'a path that leaves the location by two dots is another location');
is((post('/post/%'))[0]->status, 400, 'an incomplete escape is refused by nginx');

# ---- malformed topics
is_bad('/post/a/', 'a topic with a slash at its end');
is_bad('/post/_a', 'a topic that begins with an underscore');
has_topic('/post/a/_b', 'a/_b', 'a later segment may begin with an underscore');
is_bad('/post/*', 'an asterisk');
is_bad('/post/a/**', 'two asterisks');
is_bad('/post/a,b', 'two topics');
has_topic('/post/' . 'x' x 255, 'x' x 255, 'a topic may have 255 bytes');
is_bad('/post/' . 'x' x 256, 'a topic of 256 bytes');
is_bad('/post/' . 'x/' x 3000 . 'x', 'a topic of 6001 bytes');

for my $byte (0 .. 255) {
    my $char   = chr $byte;
    my $good   = $char =~ m{[A-Za-z0-9._~/-]};
    my $status = (post(sprintf '/post/byte/%d/a%%%02xb', $byte, $byte))[0]->status;
    is($status, $good ? 202 : 400, sprintf('a topic with the encoded byte 0x%02x is %s', $byte, $good ? 'accepted' : 'refused'));
    next if $char =~ /[%?# \r\n]/ || $good;

    my $raw = Pgq::Client->new($nginx);
    $raw->send("POST /post/raw/a${char}b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1");
    is($raw->answer->status, 400, sprintf('a topic with the byte 0x%02x as it is, is refused', $byte));
}
$pg->wait_until_moved;
is($pg->safe_psql(q{select count(*) from posts where topic like 'byte/%'}), 67, 'each of the 67 permitted bytes is in the topic of a post');
is($pg->safe_psql(q{select count(*) from posts where topic like 'raw/%'}), 0, 'no message with another byte in its topic is a post');
is($pg->safe_psql(q{select count(*) from posts where topic !~ '^([A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*)?$' or topic ~ '^_' or length(topic) > 255}), 0,
    'each post has a well-formed topic');

# ---- pgq_topic
has_topic('/variable?topic=a/b', 'a/b', 'pgq_topic is the topic');
has_topic('/variable?topic=', '', 'an empty value of pgq_topic means no topic');
has_topic('/variable', '', 'a variable that is not set means no topic');
is_bad('/variable?topic=a b' =~ s/ /%20/r, 'an escape in the value of a variable');
is_bad('/variable?topic=/a', 'a value of pgq_topic that begins with a slash');
has_topic('/variable?topic=..', '..', 'two dots in a value are a segment');
has_topic('/user/ann/x/y', 'user/ann/x/y', 'pgq_topic may have captures');
has_topic('/fixed/', 'a/fixed.one', 'pgq_topic may be a constant');
has_topic('/fixed/path/a', '', 'pgq_topic overrides the path');

# ---- the log
ok((poll_until { Pgq::Host::slurp("$nginx->{dir}/topics.log") =~ m{^/fixed/path/a 202 \[-\]$}m }), 'the access log has no topic of a message without one');
my $log = Pgq::Host::slurp("$nginx->{dir}/topics.log");
like($log, qr{^/user/ann/x/y 202 \[user/ann/x/y\]$}m, 'the access log has the topic of a message');
like($log, qr{^/post/\* 400 \[-\]$}m, 'the access log has no malformed topic');

# ---- batches
# Sends requests, each a path, a body and headers, so that they are in one batch. Returns their clients.
sub together {
    my (@requests) = @_;
    my $lock  = $pg->lock_table;
    my $first = Pgq::Client->new($nginx)->send_post('/post', '"first"');
    $pg->wait_for_lock;
    my @clients = map { Pgq::Client->new($nginx)->send_post(@$_) } @requests;
    $nginx->wait_until_received;
    $lock->release;
    is($first->answer->status, 202, 'the message before the batch is accepted');
    return @clients;
}

sub topics { $pg->wait_until_moved; return $pg->safe_psql("select string_agg(topic, ' ' order by id) from posts where data::text ~ '$_[0]'") }

my @clients = together(map { [ $_ % 3 ? "/post/batch/$_" : '/post', "\"mixed $_\"", $_ % 2 ? ('Idempotency-Key' => "\"mixed-$_\"") : () ] } 1 .. 12);
is(join(' ', map { $_->answer->status } @clients), join(' ', (202) x 12), 'a batch with topics, keys, both and neither is accepted');
is(topics('^"mixed '), join(' ', map { $_ % 3 ? "batch/$_" : '' } 1 .. 12), 'each message of a batch has its own topic or none');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"first"' and topic <> ''}), 0, 'a message in a batch without topics has no topic');

# ---- keys
my $first = $client->post('/post/keyed/a', '1', 'Idempotency-Key' => '"k"');
is($first->status, 202, 'a message with a key and a topic is accepted');
is($client->post('/post/keyed/a', '1', 'Idempotency-Key' => '"k"')->body, $first->body, 'the same key, message and topic get the first answer');
is_problem($client->post('/post/keyed/b', '1', 'Idempotency-Key' => '"k"'), 422, 'key_reused', 'the same key and message with another topic');
is_problem($client->post('/post', '1', 'Idempotency-Key' => '"k"'), 422, 'key_reused', 'the same key and message without the topic');
is($client->post('/post', '2', 'Idempotency-Key' => '"k2"')->status, 202, 'a message with a key and without a topic is accepted');
is_problem($client->post('/post/keyed/a', '2', 'Idempotency-Key' => '"k2"'), 422, 'key_reused', 'the same key and message with a new topic');

# ---- NDJSON
is($client->post('/post/lines/a', "\"line 1\"\n\"line 2\"\n", @ndjson)->status, 202, 'NDJSON with a topic is accepted');
is(topics('^"line '), 'lines/a lines/a', 'each line of a request has its topic');
$first = $client->post('/post/lines/a', "1\n2\n", @ndjson, 'Idempotency-Key' => '"lines"');
is($client->post('/post/lines/a', "1\n2\n", @ndjson, 'Idempotency-Key' => '"lines"')->body, $first->body, 'NDJSON with the same key and topic gets the first ids');
is_problem($client->post('/post/lines/b', "1\n2\n", @ndjson, 'Idempotency-Key' => '"lines"'), 422, 'key_reused', 'NDJSON with the same key and another topic');
is_problem($client->post($_, '1'), 404, 'not_found', "a location does not serve a longer name: $_") for '/plainer', '/plain-', '/plainer/a';
is_problem($client->post('/post/lines/', "1\n", @ndjson), 400, 'bad_topic', 'NDJSON with a malformed topic');

# ---- a batch that is halved
$pg->safe_psql(q{alter table ngx_pgq.queue add constraint number check ((data->>'number') is null or (data->>'number')::int > 0)});
@clients = together(map { [ "/post/half/$_", $_ == 5 ? '{"number": "five"}' : "\"half $_\"" ] } 1 .. 8);
is(join(' ', map { $_->answer->status } @clients), join(' ', map { $_ == 5 ? 400 : 202 } 1 .. 8), 'one message of a batch with topics is refused');
is(topics('^"half '), join(' ', map { "half/$_" } grep { $_ != 5 } 1 .. 8), 'the other messages of a halved batch keep their topics');
$pg->safe_psql('alter table ngx_pgq.queue drop constraint number');

# ---- a batch of unknown outcome: its commit waits for a standby that does not exist, and its connection is closed
$pg->commits_wait_for('nowhere');
@clients = (Pgq::Client->new($nginx)->send_post('/post/again/1', '"again 1"'));
my $local   = { PGOPTIONS => '-c synchronous_commit=local' };
my $waiting = q{select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'SyncRep'};
$pg->poll_query_until($waiting, 1);
push @clients, map { Pgq::Client->new($nginx)->send_post("/post/again/$_", "\"again $_\"", $_ % 2 ? ('Idempotency-Key' => "\"again-$_\"") : ()) } 2 .. 6;
$nginx->wait_until_received;
my ($lost) = $pg->web_sessions;
$pg->terminate_web_sessions;
ok($pg->poll_query_until("select count(*) > 0 from pg_stat_activity where usename = 'ngx_pgq_web' and pid <> $lost and wait_event = 'SyncRep'", 't'), 'the batch is sent again on another connection');
$pg->commits_wait_for('');
is(join(' ', map { $_->answer->status } @clients), join(' ', (202) x 6), 'messages with topics whose connection was lost are accepted');
is(topics('^"again '), join(' ', map { "again/$_" } 1 .. 6), 'each message of a batch that was sent again is a post once, with its topic');

# ---- many topics
my $count   = 10_000;
my @senders = map { Pgq::Client->new($nginx) } 1 .. 20;
for my $part (0 .. 9) {
    for my $i (0 .. $#senders) {
        my @numbers = map { $part * 1000 + $i * 50 + $_ } 0 .. 49;
        $senders[$i]->send(join '', map { $senders[$i]->request('POST', "/post/many/$_/of", body => "{\"many\": $_}") } @numbers);
    }
    for my $sender (@senders) {
        my @bad = grep { $_ != 202 } map { $sender->answer->status } 1 .. 50;
        fail("a message is answered with @bad") if @bad;
    }
}
$pg->wait_until_moved;
is($pg->safe_psql(q{select count(*), count(distinct topic) from posts where topic = 'many/' || (data->>'many') || '/of'}), "$count|$count", "each of $count messages has its own topic");

done_testing;
