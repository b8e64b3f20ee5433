# GET with after= and topic= follows docs/http.md: new posts in their order, a cursor to continue with, topics and rights.

use Pgq;
use Pgq::Wire;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'lanes=1',
    http      => 'gzip on; gzip_types application/json; gzip_min_length 1;',
    locations => 'location ^~ /get/ { pgq_get main; } location = /rights { pgq_get main; pgq_topics $http_topics; }'
        . ' location = /none { pgq_get main; pgq_topics ""; } location ~ ^/shop/(?<shop>[^/]+)$ { pgq_get main; pgq_topic shops/$shop; }',
)->start;
my $client = Pgq::Client->new($nginx);

sub ids { return join ' ', map { $_->{id} } @{ $_[0]->json->{msg} } }

sub next_of { return $_[0]->json->{next} }

# ---- after=
is($client->get('/get?after=0')->body, '{"msg":[],"next":0}', 'after=0 without posts returns an empty list and the same cursor');
my $empty = $client->get('/get?after=0')->header('ETag');

$pg->safe_psql('insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 1500) n');
$pg->poll_query_until('select count(*) from posts', 1500);

my $answer = $client->get('/get?after=0', 'If-None-Match' => $empty);
is($answer->status, 200, 'the ETag of an empty list is not that of a list with posts');
is(ids($answer), join(' ', 1 .. 100), 'after=0 returns the 100 oldest posts, the oldest first');
is(next_of($answer), 100, 'next is the id of the last post');
is(ids($client->get('/get?after=100&limit=3')), '101 102 103', 'after returns the posts with greater ids');
is(ids($client->get('/get?limit=1000&after=1498')), '1499 1500', 'after returns all posts that there are');
is($client->get('/get?after=1500')->body, '{"msg":[],"next":1500}', 'after the newest post there is an empty list, and next is after');
is($client->get('/get?after=1501')->body, '{"msg":[],"next":1501}', 'after an id that does not exist yet, next is after');
is($client->get('/get?after=9223372036854775807')->body, '{"msg":[],"next":9223372036854775807}', 'after accepts the largest bigint');

is_problem($client->get("/get?$_"), 400, 'bad_argument', $_)
    for 'after=', 'after=x', 'after=-1', 'after=1.5', 'after=%31', 'after=9223372036854775808', 'after=1&before=2', 'before=2&after=0', 'after=1&limit=0';
is($client->get('/get?before=4&after=2')->json->{detail}, 'before and after cannot be combined.', 'the detail names both arguments if they are combined');
like($client->get('/get?limit=0')->json->{detail}, qr/^limit must be /, 'the detail says what is valid if an argument is not');

my ($cursor, @seen) = (0);
while (1) {
    my $page = $client->get("/get?after=$cursor&limit=400")->json;
    push @seen, map { $_->{id} } @{ $page->{msg} };
    last if !@{ $page->{msg} };
    $cursor = $page->{next};
}
is("@seen", join(' ', 1 .. 1500), 'following next returns each post once, in order');

# ---- HEAD, ETag and other header fields
$answer = $client->get('/get?after=1400');
my $etag = $answer->header('ETag');
is($client->get('/get?after=1400', 'If-None-Match' => $etag)->status, 304, 'an answer with after is not sent again while it is the same');
is($client->get('/get?after=1400', 'If-None-Match' => $etag, 'If-Modified-Since' => 'Thu, 01 Jan 2026 00:00:00 GMT')->status, 304,
    'If-Modified-Since makes no difference to If-None-Match');
is($client->get('/get?after=1400', 'If-Modified-Since' => 'Fri, 01 Jan 2100 00:00:00 GMT')->status, 200, 'If-Modified-Since alone is ignored');
my $head = $client->method('HEAD', '/get?after=1400');
is($head->header('ETag') . $head->header('Content-Length'), $etag . length $answer->body, 'HEAD has the ETag and the Content-Length of GET with after');
my $part = $client->get('/get?after=1400', Range => 'bytes=0-9');
is($part->status, 200, 'a range of an answer is not sent');
is($part->body, $answer->body, 'the answer to a request for a range is complete');
is($client->get('/get?after=1400', 'Accept-Encoding' => 'gzip')->header('ETag'), "W/$etag", 'a compressed answer has the ETag as a weak one');

# ---- a limit of bytes
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(repeat('x', 400000)) from generate_series(1, 5)});
$pg->poll_query_until('select count(*) from posts', 1505);
$answer = $client->get('/get?after=1500');
is(ids($answer), '1501 1502', 'an answer has the posts after an id that fit into answer_size');
is(next_of($answer), 1502, 'next is the last post that fitted into answer_size');
is(ids($client->get('/get?after=1502')), '1503 1504', 'next of a limited answer leads to the following posts');

# ---- a reader polls while posts arrive
{
    my $producer = Pgq::Producer->new($pg);
    my ($from, $at, %times, @order) = (1505, 1505);

    poll_until {
        my $page = $client->get("/get?after=$at&limit=50")->json;
        push @order, map { $_->{id} } @{ $page->{msg} };
        $at = $page->{next};
        @order > 500;
    };
    $producer->stop;
    $pg->wait_until_moved;
    my $rows = $pg->safe_psql("select string_agg(id::text, ' ' order by id) from posts where id > $from and id <= $at");
    cmp_ok(scalar @order, '>', 500, 'a reader polls while posts arrive');
    is("@order", $rows, 'a reader that follows next sees each post once and in order while posts arrive');
}

# ---- topics
my $base = $pg->safe_psql('select max(id) from posts');
$pg->safe_psql(q{insert into posts (at, message_id, data, topic) select now(), gen_random_uuid(), to_json(topic), topic
    from unnest(array['', 'orders/eu', 'orders/us', 'status', 'orders/eu/1', '', 'shops/1', 'bad"topic', '_bad/x', 'orders/eu']) topic});
my %id = map { $_ => $base + $_ } 1 .. 10;

# The numbers of the posts in an answer.
sub numbers { return join ' ', map { $_->{id} - $base } @{ $_[0]->json->{msg} } }

my %filter = (
    '/get?after=%d'                             => '1 2 3 4 5 6 7 8 9 10',
    '/get?after=%d&topic=orders/eu'             => '2 10',
    '/get/orders/eu?after=%d'                   => '2 10',
    '/get?after=%d&topic='                      => '1 2 3 4 5 6 7 8 9 10',
    '/get/?after=%d'                            => '1 2 3 4 5 6 7 8 9 10',
    '/get?after=%d&topic=orders%%2Feu%%2C+status' => undef,
    '/get?after=%d&topic=orders%%2Feu%%2C%%20status' => '2 4 10',
    '/get?after=%d&topic=status,shops/1'        => '4 7',
    '/get/status?after=%d&topic=shops/1'        => '4 7',
    '/get?after=%d&topic=orders/*'              => '2 3 10',
    '/get/orders/*?after=%d'                    => '2 3 10',
    '/get?after=%d&topic=orders/**'             => '2 3 5 10',
    '/get?after=%d&topic=**'                    => '2 3 4 5 7 10',
    '/get?after=%d&topic=orders/*/*,status'     => '4 5',
    '/get?after=%d&topic=none'                  => '',
    '/get?after=%d&topic=orders/*&limit=2'      => '2 3',
    '/shop/1?after=%d'                          => '7',
    '/get?topic=orders/**&limit=3'              => '10 5 3',
    '/get/orders/**?before=%d'                  => '',
);
for my $path (sort keys %filter) {
    my $got = $client->get($path =~ s/%d/$base/r =~ s/%%/%/gr);
    defined $filter{$path} ? is(numbers($got), $filter{$path}, "$path returns the posts that match")
        : is_problem($got, 400, 'bad_topic', "$path: a plus sign is no space");
}

$answer = $client->get("/get?after=$base");
is(join(' ', map { $_->{topic} // '-' } @{ $answer->json->{msg} }), '- orders/eu orders/us status orders/eu/1 - shops/1 - - orders/eu',
    'a post shows its topic, if it has a valid one');
like($answer->body, qr/"at":"[^"]+","topic":"orders\/us"\}/, 'the topic follows the time');
$answer = $client->get("/get?after=$base&topic=none");
is(next_of($answer), $base, 'next is after if no post matches');
isnt($client->get("/get?after=$base&topic=orders/eu")->header('ETag'), $client->get("/get?after=$base&topic=orders/us")->header('ETag'),
    'answers with different posts have different ETags');
$answer = $client->get("/get?after=$base&topic=orders/*&limit=1");
is($client->get('/get?topic=orders/*&limit=1&after=' . $base, 'If-None-Match' => $answer->header('ETag'))->status, 304, 'an answer with topics has an ETag');
is(ids($client->get("/get?topic=orders/*&limit=1&after=" . next_of($answer))), $id{3}, 'a filtered reader continues with next');
is_problem($client->get($_), 400, 'bad_topic', $_)
    for '/get?topic=,', '/get?topic=a/', '/get?topic=_a', '/get?topic=a*', '/get?topic=**/a', '/get/a/', '/get?topic=' . join(',', ('a') x 65);

# ---- rights
is(numbers($client->get("/rights?after=$base", Topics => 'orders/*, status')), '2 3 4 10', 'a reader sees the topics of pgq_topics');
is(numbers($client->get("/rights?after=$base&topic=orders/**", Topics => 'orders/*/*, status')), '5', 'a pattern is restricted to the topics of pgq_topics');
is(numbers($client->get("/rights?after=$base&topic=orders/eu,status", Topics => '**')), '2 4 10', 'exact topics that are permitted are returned');
is_problem($client->get("/rights?after=$base&topic=status,orders/eu", Topics => 'status'), 403, 'forbidden_topic', 'one of two topics is not permitted');
is_problem($client->get("/rights?after=$base"), 403, 'forbidden_topic', 'an empty value of pgq_topics');
is_problem($client->get('/none'), 403, 'forbidden_topic', 'an empty list of pgq_topics');
is($client->get('/rights', Topics => 'status')->header('Cache-Control'), 'private, no-cache', 'an answer that depends on rights is private');
is($client->get('/get')->header('Cache-Control'), 'no-cache', 'an answer that does not depend on rights is not private');

$nginx->stop;

subtest 'equal reads share a call, others do not' => sub {
    my $wire    = Pgq::Wire->new($pg)->start;
    my $shared  = Pgq::Nginx->new(conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=1')->start;
    my @paths   = ("/get?after=$base", "/get?before=$base", "/get?after=$base&topic=status", "/get?after=$base&topic=status,shops/1");
    my @readers = map { Pgq::Client->new($shared) } 1 .. 9;

    is(Pgq::Client->new($shared)->get('/get')->status, 200, 'the lane of reads is connected');
    $wire->plan({ in => 'recent', before => 'BindComplete', do => 'hold' });
    $readers[8]->send_get('/get');
    poll_until { $wire->happened };
    $readers[$_]->send_get($paths[ $_ % 4 ]) for 0 .. 7;
    $shared->wait_until_received;
    $wire->plan;

    my @answers = map { $_->answer } @readers;
    is(join(' ', map { $_->status } @answers), join(' ', (200) x 9), 'all reads are answered');
    is($answers[$_]->body, $answers[ $_ + 4 ]->body, "$paths[$_]: equal reads get the same answer") for 0 .. 3;
    is(scalar(my @sent = $wire->sent), 4, 'each different read that waited has one call');
    is(join(' ', map { scalar @{ $_->json->{msg} } } @answers[ 0 .. 3 ]), '10 100 1 2', 'each read gets its own posts');
    $shared->stop;
    $wire->stop;
};

done_testing;
