# GET follows docs/http.md: posts, arguments, ETag, answers of limited size.

use Pgq;

my $pg     = Pgq::Postgres->new->start;
my $nginx  = Pgq::Nginx->new(pg => $pg, http => 'gzip on; gzip_types application/json; gzip_min_length 1;')->start;
my $client = Pgq::Client->new($nginx);

my $answer = $client->get('/get');
is($answer->{status}, 200, 'GET without posts is answered with 200');
is($answer->{headers}{'content-type'}, 'application/json', 'the answer to GET is JSON');
is($answer->{body}, '{"msg":[]}', 'GET without posts is answered with an empty list');

$pg->safe_psql('insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 1500) n');
$pg->poll_query_until('select count(*) from posts', 1500);

my @posts = @{ $client->get('/get')->json->{msg} };
is(scalar @posts, 100, 'GET without a limit returns 100 posts');
is($posts[0]{id}, 1500, 'the newest post comes first');
is($posts[99]{id}, 1401, 'the posts are in descending order');
is($posts[0]{data}, 1500, 'a post has the data of its message');
like($posts[0]{at}, qr/\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\z/, 'a post has its time in UTC');

is(scalar @{ $client->get('/get?limit=1')->json->{msg} }, 1, 'limit=1 returns one post');
is(scalar @{ $client->get('/get?limit=1000')->json->{msg} }, 1000, 'limit=1000 returns 1000 posts');
is($client->get('/get?before=1401')->json->{msg}[0]{id}, 1400, 'before returns the posts with smaller ids');
is($client->get('/get?limit=2&before=3')->json->{msg}[1]{id}, 1, 'limit and before can be combined');
is(scalar @{ $client->get('/get?before=1')->json->{msg} }, 0, 'no post is before the first one');
is($client->get('/get?before=9223372036854775807')->{status}, 200, 'before accepts the largest bigint');

for my $query ('limit=0', 'limit=1001', 'limit=', 'limit=x', 'limit=-1', 'before=0', 'before=x', 'before=99999999999999999999') {
    is_problem($client->get("/get?$query"), 400, 'bad_argument', $query);
}

$answer = $client->get('/get');
my $etag = $answer->{headers}{etag};
ok($etag, 'the answer to GET has an ETag');
is($client->get('/get', 'If-None-Match' => $etag)->{status}, 304, 'GET is answered with 304 when there is no new post');
is($client->method('HEAD', '/get')->{headers}{etag}, $etag, 'HEAD has the ETag of GET');
is($client->method('HEAD', '/get')->{headers}{'content-length'}, length $answer->{body}, 'HEAD has the Content-Length of GET');

$client->post('/post', '"new"');
$pg->poll_query_until('select count(*) from posts', 1501);
is($client->get('/get', 'If-None-Match' => $etag)->{status}, 200, 'GET with an old ETag is answered with 200 after a new post');

$answer = $client->get('/get', 'Accept-Encoding' => 'gzip');
is($answer->{headers}{'content-encoding'}, 'gzip', 'the answer to GET is compressed by gzip');
like($answer->{headers}{etag}, qr/^W\//, 'a compressed answer has a weak ETag');

is($client->method('OPTIONS', '/get')->{headers}{allow}, 'GET, HEAD, OPTIONS', 'OPTIONS is answered with the methods of GET');
is($client->method('POST', '/get', '{}')->{status}, 405, 'POST to the location of GET is not allowed');

# The size of an answer is limited. The next requests read the remaining posts.
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(repeat('x', 10000)) from generate_series(1, 1000)});
$pg->poll_query_until('select count(*) from posts', 2501);
my ($before, @ids) = ('');
do {
    my $page = $client->get("/get?limit=1000$before")->json;
    push @ids, map { $_->{id} } @{ $page->{msg} };
    $before = $page->{next} ? "&before=$page->{next}" : '';
} while $before && @ids < 10_000;
is("@ids[ 0 .. 103 ]", join(' ', reverse 2398 .. 2501), 'an answer has the newest posts that fit into answer_size');
cmp_ok(scalar @ids, '>', 1900, 'next leads to all posts');
is("@ids", join(' ', reverse $ids[-1] .. 2501), 'each post is returned once when next is followed');

# libpq needs several reads for a large answer.
$nginx->configure(pool => 'answer_size=16m');
$nginx->reload;
my $whole = Pgq::Client->new($nginx)->get('/get?limit=1000');
ok(length $whole->{body} > 10_000_000, 'an answer of 10 MB is complete if answer_size allows it');
is($whole->json->{next}, undef, 'a complete answer has no next');

done_testing;
