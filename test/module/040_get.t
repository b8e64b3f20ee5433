# GET as the HTTP contract has it.

use Pgq;

my $pg     = Pgq::Postgres->new->start;
my $nginx  = Pgq::Nginx->new(pg => $pg, http => 'gzip on; gzip_types application/json; gzip_min_length 1;')->start;
my $client = Pgq::Client->new($nginx);

my $answer = $client->get('/get');
is($answer->{status}, 200, 'nothing to see is no error');
is($answer->{headers}{'content-type'}, 'application/json', 'the answer is JSON');
is($answer->{body}, '{"msg":[]}', 'an empty list');

$pg->safe_psql('insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 1500) n');
$pg->poll_query_until('select count(*) from posts', 1500);

my @posts = @{ $client->get('/get')->json->{msg} };
is(scalar @posts, 100, '100 posts if not said otherwise');
is($posts[0]{id}, 1500, 'the newest first');
is($posts[99]{id}, 1401, 'and then downwards');
is($posts[0]{data}, 1500, 'with their message');
like($posts[0]{at}, qr/\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\z/, 'with their time, in UTC');

is(scalar @{ $client->get('/get?limit=1')->json->{msg} }, 1, 'limit=1');
is(scalar @{ $client->get('/get?limit=1000')->json->{msg} }, 1000, 'limit=1000');
is($client->get('/get?before=1401')->json->{msg}[0]{id}, 1400, 'before goes on downwards');
is($client->get('/get?limit=2&before=3')->json->{msg}[1]{id}, 1, 'both together');
is(scalar @{ $client->get('/get?before=1')->json->{msg} }, 0, 'nothing is before the first');
is($client->get('/get?before=9223372036854775807')->{status}, 200, 'before may be the greatest number there is');

for my $query ('limit=0', 'limit=1001', 'limit=', 'limit=x', 'limit=-1', 'before=0', 'before=x', 'before=99999999999999999999') {
    $answer = $client->get("/get?$query");
    is($answer->{status}, 400, "$query is refused");
    is($answer->json->{code}, 'bad_argument', "$query: as a problem");
}

$answer = $client->get('/get');
my $etag = $answer->{headers}{etag};
ok($etag, 'there is an ETag');
is($client->get('/get', 'If-None-Match' => $etag)->{status}, 304, '304 when nothing is new');
is($client->method('HEAD', '/get')->{headers}{etag}, $etag, 'HEAD says the same');
is($client->method('HEAD', '/get')->{headers}{'content-length'}, length $answer->{body}, 'HEAD says the length');

$client->post('/post', '"new"');
$pg->poll_query_until('select count(*) from posts', 1501);
is($client->get('/get', 'If-None-Match' => $etag)->{status}, 200, '200 when something is');

$answer = $client->get('/get', 'Accept-Encoding' => 'gzip');
is($answer->{headers}{'content-encoding'}, 'gzip', 'gzip as nginx does');
like($answer->{headers}{etag}, qr/^W\//, 'with a weak ETag then');

is($client->method('OPTIONS', '/get')->{headers}{allow}, 'GET, HEAD, OPTIONS', 'OPTIONS says what is allowed');
is($client->method('POST', '/get', '{}')->{status}, 405, 'POST is not');

# Bytes are limited, too: what does not fit comes with the next request.
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(repeat('x', 10000)) from generate_series(1, 1000)});
$pg->poll_query_until('select count(*) from posts', 2501);
my ($before, @ids) = ('');
do {
    my $page = $client->get("/get?limit=1000$before")->json;
    push @ids, map { $_->{id} } @{ $page->{msg} };
    $before = $page->{next} ? "&before=$page->{next}" : '';
} while $before && @ids < 10_000;
is("@ids[ 0 .. 103 ]", join(' ', reverse 2398 .. 2501), 'an answer has as many posts as fit into answer_size');
cmp_ok(scalar @ids, '>', 1900, 'next leads through all of them');
is("@ids", join(' ', reverse $ids[-1] .. 2501), 'each of which comes once');

# A big answer does not fit into one read of libpq's.
$nginx->configure(pool => 'answer_size=16m');
$nginx->reload;
my $whole = Pgq::Client->new($nginx)->get('/get?limit=1000');
ok(length $whole->{body} > 10_000_000, '10 MB come whole where they are allowed');
is($whole->json->{next}, undef, 'and nothing is next');

done_testing;
