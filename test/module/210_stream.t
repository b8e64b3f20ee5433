# GET /stream follows docs/http.md: forms, where a reader starts, history from PostgreSQL, resets, topics, limits.

use Pgq;
use Pgq::Stream;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pools     => 'pgq_pool main "' . $pg->conninfo(user => 'ngx_pgq_web') . '"; pgq_ring main posts=100;',
    http      => 'pgq_heartbeat 1s; gzip on; gzip_types text/event-stream; gzip_min_length 1;',
    locations => <<'END',
location /stream { pgq_stream main; }
location /few    { pgq_stream main; pgq_readers 1; }
location /short  { pgq_stream main; pgq_stream_age 1s; }
location /until  { pgq_stream main; pgq_stream_until $arg_until; }
location /rights { pgq_stream main; pgq_topics $arg_rights; }
location /pages  { pgq_stream main; pgq_origins https://page.example; }
location = /metrics { pgq_metrics; }
END
)->start;
my $client = Pgq::Client->new($nginx);

sub reader { return Pgq::Stream->new($nginx, @_) }
sub page { return $client->get("/stream?wait=0&$_[0]")->json }

sub insert {
    my ($count, $data, $topic) = @_;

    $pg->safe_psql("insert into ngx_pgq.queue (data, topic) select $data, " . ($topic // q{''}) . " from generate_series(1, $count) n");
    $pg->wait_until_moved;

    return $pg->safe_psql('select max(id) from posts');
}

# ---- live, without a post

my $live  = reader();
my $lines = reader(form => 'ndjson');
ok(Pgq::Stream->pump(sub { defined $live->last && defined $lines->status }, 10, $live, $lines), 'a stream begins without a post');
is($live->status, 200, 'a stream is answered with 200');
is($live->header('content-type'), 'text/event-stream', 'the default form is server-sent events');
is($lines->header('content-type'), 'application/x-ndjson', 'Accept: application/x-ndjson selects lines');
is($live->header('cache-control'), 'no-store', 'a stream is not stored by caches');
is($live->header('x-accel-buffering'), 'no', 'a stream is not buffered by proxies');
is($live->header('x-content-type-options'), 'nosniff', 'the type of a stream is not guessed');
is($live->last, 0, 'a client gets an id before the first post');
ok($live->retry >= 2000 && $live->retry <= 5000, 'a client is told to wait 2 to 5 s before it connects again');

$client->post('/post', '{"a": 1.10}');
ok($_->wait_for(1), "a new post comes ($_->{form})") for $live, $lines;
is($live->objects->[0]{data}{a}, 1.1, 'a frame has the object of the post');
$pg->safe_psql(qq{insert into ngx_pgq.queue (data) values (E'{"b":\\r\\n 2,\\n"c": "x\\\\ny"}')});
ok($_->wait_for(2), "a post with line breaks comes ($_->{form})") for $live, $lines;
is($_->objects->[1]{data}{c}, "x\ny", "line breaks in JSON are white space ($_->{form})") for $live, $lines;
ok(Pgq::Stream->pump(sub { $live->beats && $lines->beats }, 10, $live, $lines), 'an idle stream has heartbeats');

my $gzip = $client->get('/stream?wait=0&after=0', 'Accept-Encoding' => 'gzip');
is($gzip->status, 200, 'a long poll is answered to a client that accepts gzip');

# ---- where a reader starts, in the ring

my $newest = insert(50, 'to_json(n)');
is($newest, 52, 'there are 52 posts');
for my $form (qw(sse ndjson)) {
    for my $case ([ 'after=50', 51, 52 ], [ 'last_event_id=50', 51, 52 ], [ 'newest=2', 51, 52 ], [ 'after=0', 1 .. 52 ], [ 'newest=1000', 1 .. 52 ]) {
        my ($query, @ids) = @$case;
        my $reader = reader(query => $query, form => $form);
        $reader->wait_for(scalar @ids);
        is($reader->complaint(\@ids), '', "$query ($form) starts there");
    }
}
my $reader = reader(query => 'after=0', headers => { 'Last-Event-ID' => 50 });
$reader->wait_for(2);
is($reader->complaint([ 51, 52 ]), '', 'Last-Event-ID is stronger than after');

# ---- long polls

is_deeply([ map { $_->{id} } @{ page('after=50')->{msg} } ], [ 51, 52 ], 'a long poll returns the posts after an id');
is(page('after=50')->{next}, 52, 'next is the last id of a long poll');
is(page('after=50&limit=1')->{next}, 51, 'a long poll has at most limit posts');
is_deeply(page('after=52'), { msg => [], next => 52 }, 'a long poll without posts has an empty list');
my $poll = Pgq::Client->new($nginx)->send_get('/stream?wait=30&after=52');
not_blocked($nginx, 'while a long poll waits');
$client->post('/post', '"poll"');
is($poll->answer->json->{msg}[0]{data}, 'poll', 'a long poll that waits is answered by a new post');
is(Pgq::Client->new($nginx)->get('/stream', Prefer => 'wait=0')->json->{next}, 53, 'Prefer: wait selects a long poll');
for my $query ('wait=61', 'wait=x', 'wait=1&limit=0', 'limit=1001', 'newest=-1', 'newest=1001', 'newest=x', 'since=now', 'since=', 'since=%', 'since=1h') {
    is_problem($client->get("/stream?$query"), 400, 'bad_argument', $query);
}

# ---- cursors that are no ids

for my $case ([ 'x', 'unknown' ], [ '-1', 'unknown' ], [ '99999999999999999999', 'unknown' ], [ '9223372036854775807', 'ahead' ], [ '54', 'ahead' ]) {
    my ($id, $reason) = @$case;
    my %reset = (reason => $reason, oldest => 1, newest => 53);
    $reader = reader(headers => { 'Last-Event-ID' => $id });
    Pgq::Stream->pump(sub { @{ $reader->resets } }, 10, $reader);
    is_deeply($reader->resets, [ \%reset ], "the id $id is answered with a reset");
    is($reader->last, 53, "after the reset for $id the client has the newest id");
    is_deeply(page("after=$id"), { msg => [], next => 53, reset => \%reset }, "a long poll after $id has a reset");
}

# ---- history from PostgreSQL: the ring has 100 posts

$newest = insert(2500, q{to_json(repeat('x', 100))});
for my $form (qw(sse ndjson)) {
    for my $case ([ 'after=0', 1 ], [ 'after=1000', 1001 ], [ 'newest=1000', $newest - 999 ]) {
        my ($query, $first) = @$case;
        $reader = reader(query => $query, form => $form);
        $reader->wait_until_id($newest, 20);
        is($reader->complaint([ $first .. $newest ]), '', "$query ($form) is read from PostgreSQL and then from the ring");
    }
}
$pg->safe_psql('select ngx_pgq.time_index()');
$reader = reader(query => 'since=1h');
$reader->wait_until_id($newest, 20);
is($reader->complaint([ 1 .. $newest ]), '', 'since=1h starts an hour ago');
$reader = reader(query => 'since=2000-01-01T00:00:00%2B01:00');
$reader->wait_until_id($newest, 20);
is($reader->complaint([ 1 .. $newest ]), '', 'since takes a time with an offset');
is_problem($client->get('/stream?since=2000-99-01'), 400, 'bad_argument', 'a time that does not exist');

my $huge = insert(1, q{to_json(repeat('y', 6 * 1024 * 1024))});
$newest = insert(3, 'to_json(n)');
$reader = reader(query => 'after=' . ($huge - 1));
$reader->wait_until_id($newest, 30);
is($reader->complaint([ $huge .. $newest ]), '', 'a post that is too large for the ring is read from PostgreSQL');
ok($live->wait_until_id($newest, 30), 'an old stream gets it as well');
is($live->complaint([ 1 .. $newest ]), '', 'a live stream has got each post once and in order');

# ---- topics and rights

my $first = $newest + 1;
$newest = insert(300, 'to_json(n)', q{(array['a', 'a/b', 'c/d/e'])[1 + n % 3]});
my %topic = ('a' => 0, 'a/b' => 1, 'c/d/e' => 2);
for my $case ([ 'topic=a', 'a' ], [ 'topic=a,a/b', 'a', 'a/b' ], [ 'topic=**', keys %topic ], [ 'topic=*/**', 'a/b', 'c/d/e' ]) {
    my ($query, @topics) = @$case;
    my %in = map { $topic{$_} => 1 } @topics;
    my @ids = grep { $in{ ($_ - $first + 1) % 3 } } $first .. $newest;
    $reader = reader(query => "$query&after=0");
    $reader->wait_for(scalar @ids, 20);
    is($reader->complaint(\@ids), '', "$query has only posts with these topics, from PostgreSQL and the ring");
}
$reader = reader(path => '/stream/c/d/e', query => 'newest=5');
$reader->wait_for(5);
is($reader->complaint([ grep { ($_ - $first + 1) % 3 == 2 } $newest - 14 .. $newest ]), '', 'the path names a topic, and newest counts its posts');
$reader = reader(path => '/rights', query => 'rights=a&after=0');
$reader->wait_for(100, 20);
is($reader->complaint([ grep { ($_ - $first + 1) % 3 == 0 } $first .. $newest ]), '', 'pgq_topics limits what a stream shows');
is_problem($client->get('/rights?rights=a&topic=c/d/e'), 403, 'forbidden_topic', 'a topic that is not permitted');

# ---- limits

my $answer = Pgq::Client->new($nginx)->get('/few?wait=0');
is_problem($answer, 503, 'readers_full', 'a stream above pgq_readers');
ok($answer->header('retry-after'), 'it says when to try again');
$reader = reader(path => '/short');
ok($reader->wait_for_end(5), 'a stream ends at pgq_stream_age');
ok($reader->whole, 'its response is complete');
$reader = reader(path => '/until', query => 'until=' . (time + 2));
ok($reader->wait_for_end(5), 'a stream ends at pgq_stream_until');
is($client->get('/until?until=x')->status, 500, 'a pgq_stream_until that is no time refuses a stream');

# ---- origins and methods

$client = Pgq::Client->new($nginx);
is($client->method('OPTIONS', '/stream')->header('allow'), 'GET, HEAD, OPTIONS', 'OPTIONS is answered with the methods of a stream');
is($client->method('HEAD', '/stream')->header('content-type'), 'text/event-stream', 'HEAD is answered without a stream');
is_problem($client->get('/stream', Origin => 'https://other.example'), 403, 'foreign_origin', 'a page of another origin');
$reader = reader(path => '/pages', headers => { Origin => 'https://page.example' });
Pgq::Stream->pump(sub { defined $reader->last }, 10, $reader);
is($reader->header('access-control-allow-origin'), 'https://page.example', 'an origin of pgq_origins may read a stream');

# ---- retention

$pg->set('ngx_pgq.keep_posts' => 50);
ok($pg->poll_query_until('select count(*) <= 50 from posts', 't'), 'retention deletes posts');
$reader = reader(query => 'after=10');
Pgq::Stream->pump(sub { @{ $reader->resets } }, 10, $reader);
is($reader->resets->[0]{reason}, 'expired', 'a reader that has missed deleted posts is told so');
is($reader->resets->[0]{newest}, $newest, 'the reset has the newest id');
is($reader->resets->[0]{oldest}, $newest - 49, 'the reset has the oldest id');
$reader = reader(query => 'after=0');
$reader->wait_until_id($newest);
is($reader->complaint([ $newest - 49 .. $newest ]), '', 'after=0 starts at the oldest post that is kept');

# ---- metrics

$_->cut for $live, $lines;
ok((poll_until { $nginx->metric('pgq_frames_total') > 1000 }), 'the posts that were sent are counted');
cmp_ok($nginx->metric('pgq_reader_ends_total{reason="client"}'), '>', 0, 'clients that leave are counted');
cmp_ok($nginx->metric('pgq_resumes_total{from="reset"}'), '>', 0, 'resets are counted');

is_problem(Pgq::Client->new($nginx)->get($_), 404, 'not_found', "a location does not serve a longer name: $_") for '/streamer', '/stream.x?wait=0';

done_testing;
