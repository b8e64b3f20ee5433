# Consumers by HTTP: PUT, GET, POST and DELETE of /sub/<name>, and how each request is refused.

use Pgq;

my $sites = 'location /sub/ { pgq_subscription main; }';
my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 answer_size=1k', locations => "$sites location = /metrics { pgq_metrics; }")->start;
my $client = Pgq::Client->new($nginx);

sub put { my ($name, $body) = @_; return $client->method('PUT', "/sub/$name", $body, 'Content-Type' => 'application/json') }
sub fetch { return $client->get("/sub/$_[0]") }
sub ack { my ($name, $body) = @_; return $client->post("/sub/$name/ack", $body) }
sub ids { return join ' ', map { $_->{id} } @{ $_[0]->json->{msg} } }

like($client->get('/metrics')->body, qr/^pgq_requests_total\{handler="sub",code="200"\} 0$/m, 'requests are counted from 0');

# ---- a subscription
is(put('jobs', '{"topics":["a","b/c"],"start":0}')->status, 201, 'a subscription is created');
my $again = put('jobs', '{"start":"now","topics":["b/c","a"],"parts":1}');
is($again->status, 204, 'the same subscription again');
is($again->body, '', '... without a body');
is_problem(put('jobs', '{"topics":["a"]}'), 409, 'subscription_differs', 'a subscription with other topics');
is(put('all', undef)->status, 201, 'one without a body');
is(put('late', '')->status, 201, '... or with an empty one');
is($pg->safe_psql(q{select string_agg(concat_ws(' ', name, topics, parts), ', ' order by name) from ngx_pgq.subscription}),
    'all 1, jobs {a,b/c} 1, late 1', 'the database has them');

# ---- posts
my $empty = fetch('jobs');
is($empty->status, 200, 'a subscription without posts');
is($empty->body, '{"msg":[]}', '... has none, and no lease');
is($empty->header('Cache-Control'), 'no-store', '... and is not cached');
is($empty->header('Content-Type'), 'application/json', '... and is JSON');

$pg->safe_psql(q{insert into public.posts (message_id, data, topic, at)
     select gen_random_uuid(), data, topic, at
       from (values ('{"n":1}'::json, 'a', timestamptz '2026-01-02 03:04:05Z'), ('2', '', now()), ('"3"', 'b/c', 'infinity'), ('4', 'a', now())) as t (data, topic, at)});
my $first = fetch('jobs?limit=2');
my ($generation) = $first->body =~ /"generation":(\d+)/;
is($first->body, qq({"msg":[{"id":1,"data":{"n":1},"at":"2026-01-02T03:04:05.000000Z","topic":"a"},{"id":3,"data":"3","at":null,"topic":"b/c"}],"next":3,"generation":$generation,"part":1}),
    'the posts of its topics, with what an acknowledgement needs');
is(ids(fetch('jobs')), '', 'another consumer gets none meanwhile');
is(ids(fetch("jobs?generation=$generation&limit=1")), '1', 'the consumer itself gets them again until it acknowledges them');

my $answer = ack('jobs', qq({"upto":3,"generation":$generation}));
is($answer->status, 204, 'they are acknowledged');
is($answer->body, '', '... without a body');
is(ack('jobs', qq({"upto":3,"generation":$generation}))->status, 204, 'an acknowledgement can be repeated');
is(ids(fetch("jobs?generation=$generation")), '4', 'the next posts');
is(ids(fetch('all')), '1 2 3 4', 'another subscription has its own position, and all topics');
is(ids(fetch('late?lease=1')), '1 2 3 4', '... so has this one');

# ---- fencing
is(ack('jobs', qq({"upto":3,"generation":$generation,"part":1,"release":true}))->status, 204, 'the lease is released');
my $second = fetch('jobs')->json;
is(join(' ', map { $_->{id} } @{ $second->{msg} }), 4, 'another consumer takes the part at once');
isnt($second->{generation}, $generation, '... with another generation');
is_problem(ack('jobs', qq({"upto":4,"generation":$generation})), 409, 'fenced', 'an acknowledgement of the first consumer');
is_problem(fetch("jobs?generation=$generation"), 409, 'fenced', 'a GET of the first consumer');
like(ack('jobs', qq({"upto":4,"generation":$generation}))->json->{detail}, qr/^part 1 of subscription "jobs" was taken by another consumer\.$/, 'the detail says what has happened');
my $nothing = sub { return ack('jobs', qq({"upto":0,"generation":$second->{generation},"release":$_[0]}))->status };
is($nothing->('true'), 204, 'the second consumer acknowledges nothing, and gives its posts back');
is($nothing->('false'), 204, '... and begins its lease again');
is(ids(fetch('jobs')), '', '... so that another consumer gets none');
is($nothing->('true'), 204, '... and gives them back again');
$second = fetch('jobs')->json;
is(join(' ', map { $_->{id} } @{ $second->{msg} }), 4, 'a third consumer gets them');
is(ack('jobs', qq({"upto":4,"generation":$second->{generation}}))->status, 204, '... and acknowledges them');

# ---- sizes
is(put('large', '{"topics":null,"start":0}')->status, 201, 'another one');
$pg->safe_psql(q{insert into public.posts (message_id, at, data) select gen_random_uuid(), now(), to_json(repeat('x', n)) from unnest(array[600, 300, 2000, 100]) as n});
is(ids(fetch('large?lease=1')), '1 2 3 4 5 6', 'posts end before answer_size');
my $large = fetch('late?limit=1000');
ok((poll_until { $large = fetch('late?limit=1000&lease=1000'); ids($large) ne '' }), 'a lease ends');
is(ack('late', sprintf '{"upto":%d,"generation":%d}', 6, $large->json->{generation})->status, 204, 'the posts before the large one');
is(ids(fetch('late?generation=' . $large->json->{generation})), '7', 'one that is larger alone is sent alone');

# ---- parts
is(put('parts', '{"parts":3,"start":0}')->status, 201, 'a subscription in parts');
my @parts = map { fetch('parts') } 1 .. 4;
is(join(' ', sort map { @{ $_->json->{msg} } ? $_->json->{part} : () } @parts),
    $pg->safe_psql(q{select string_agg(distinct ngx_pgq.part(topic, 3)::text, ' ') from public.posts}), 'consumers get different parts');
my ($one) = grep { @{ $_->json->{msg} } } @parts;
is(ack('parts', sprintf '{"upto":1,"generation":%d,"part":%d}', @{ $one->json }{qw(generation part)})->status, 204, 'a part is acknowledged');
is(fetch(sprintf 'parts?part=%d&generation=%d', @{ $one->json }{qw(part generation)})->status, 200, '... and read on');
is_problem(fetch('parts?part=4'), 400, 'bad_argument', 'a part that does not exist');
is_problem(fetch('parts?generation=1'), 400, 'bad_argument', 'a generation without its part');

# ---- DELETE
my $gone = $client->method('DELETE', '/sub/late');
is($gone->status, 204, 'a subscription is deleted');
is($gone->body, '', '... without a body');
is_problem($client->method('DELETE', '/sub/late'), 404, 'no_subscription', 'one that does not exist');
is_problem(fetch('late'), 404, 'no_subscription', 'a GET of it');
is_problem(ack('late', '{"upto":1,"generation":1}'), 404, 'no_subscription', 'an acknowledgement of it');

# ---- bad requests
for my $case (
    [ '{"topic":["a"]}',       qr/^the member "topic" is unknown; there are topics, start, parts\.$/ ],
    [ '{"topics":"a"}',        qr/^topics must be an array of strings\.$/ ],
    [ '{"topics":[]}',         qr/^topics of subscription "bad" are not valid\.$/ ],
    [ '{"topics":[null]}',     qr/are not valid/ ],
    [ '{"topics":["a/"]}',     qr/are not valid/ ],
    [ '{"start":"then"}',      qr/invalid input syntax for type bigint: "then"/ ],
    [ '{"start":1.5}',         qr/invalid input syntax/ ],
    [ '{"start":99}',          qr/^start must be between 0 and the newest post, 8\.$/ ],
    [ '{"start":99999999999999999999}', qr/out of range/ ],
    [ '{"parts":0}',           qr/^number of parts must be between 1 and 64\.$/ ],
    [ '{"parts":65}',          qr/between 1 and 64/ ],
    [ '[]',                    qr/^the request must be a JSON object\.$/ ],
    [ '"x"',                   qr/must be a JSON object/ ],
    [ 'null',                  qr/must be a JSON object/ ],
) {
    my ($body, $detail) = @$case;
    my $problem = put('bad', $body);
    is_problem($problem, 400, 'bad_argument', "PUT of $body");
    like($problem->json->{detail}, $detail, '... and its detail says why');
}
for my $body ('{}', '{"upto":1}', '{"generation":1}', '{"upto":99,"generation":1}', '{"upto":-1,"generation":1}', '{"upto":1,"generation":1,"part":"x"}',
    '{"upto":1,"generation":1,"release":2}', '{"upto":1,"generation":1,"first":1}') {
    is_problem(ack('jobs', $body), 400, 'bad_argument', "an acknowledgement $body");
}
is_problem(ack('jobs', '{"upto":1,"generation":1,"part":2}'), 404, 'no_subscription', 'an acknowledgement of a part that does not exist');
is_problem(ack('jobs', ''), 400, 'empty', 'an acknowledgement without a body');
is_problem(put('bad', '{"topics":'), 400, 'not_json', 'a body that is no JSON');
is_problem(put('bad', "{\"topics\":[\"\xff\"]}"), 400, 'not_json', '... or no UTF-8');
is_problem(put('bad', '{"topics":["' . 'x' x 66000 . '"]}'), 413, 'too_large', 'a body that is too large');
is_problem($client->post_chunked('/sub/jobs/ack', [ '{"upto":1,"x":"' . 'x' x 66000 . '"}' ]), 413, 'too_large', '... also in chunks');
is_problem($client->method('PUT', '/sub/bad', '{}', 'Content-Type' => 'text/plain'), 400, 'bad_argument', 'a text');
is_problem($client->method('PUT', '/sub/bad', '{}', 'Content-Encoding' => 'gzip'), 415, 'unsupported_type', 'a content coding');
for my $argument (qw(wait=-1 wait=61 wait=x limit=0 limit=1001 lease=0 lease=86401 part=0 part=65 generation=0 generation=x)) {
    my $problem = fetch("jobs?$argument");
    is_problem($problem, 400, 'bad_argument', "GET with $argument");
    like($problem->json->{detail}, qr/^@{[ $argument =~ s{=.*}{}r ]} must be a number from \d+ to \d+\.$/, '... and its detail says why');
}
is_problem(put('.bad', '{}'), 400, 'bad_argument', 'a name that is not valid');
is_problem(put("%ff", '{}'), 400, 'bad_argument', 'a name that is no UTF-8');
is_problem(fetch("a'b"), 404, 'no_subscription', 'a name that would have to be quoted');
is_problem(fetch('x' x 64), 404, 'not_found', 'a name that is too long');
is_problem(fetch($_), 404, 'not_found', "GET of /sub/$_") for '', 'a/b', 'a/b/ack';
is($pg->safe_psql(q{select count(*) from ngx_pgq.subscription where name ~ 'bad'}), 0, 'none of these has created one');

# ---- methods
for my $case ([ POST => '/sub/jobs', 'GET, PUT, DELETE, OPTIONS' ], [ HEAD => '/sub/jobs', 'GET, PUT, DELETE, OPTIONS' ], [ GET => '/sub/jobs/ack', 'POST, OPTIONS' ],
    [ DELETE => '/sub/jobs/ack', 'POST, OPTIONS' ], [ PATCH => '/sub/jobs', 'GET, PUT, DELETE, OPTIONS' ]) {
    my ($method, $path, $allow) = @$case;
    my $refused = $client->method($method, $path);
    is($refused->status, 405, "$method $path is refused");
    is($refused->header('Allow'), $allow, '... with the methods that are permitted');
}
is($client->method('OPTIONS', '/sub/jobs')->header('Allow'), 'GET, PUT, DELETE, OPTIONS', 'OPTIONS tells the methods');
is_problem($client->get('/sub/jobs', Origin => 'http://other.example'), 403, 'foreign_origin', 'a page of another site');

# ---- a name is decoded; a chunked body
is($client->method('PUT', '/sub/%6aobs2', undef)->status, 201, 'a name in the URI is decoded');
is(fetch('jobs2')->status, 200, '... and is the same');
is($client->post_chunked('/sub/jobs/ack', [ '{"upto":4,', qq("generation":$second->{generation}}) ])->status, 204, 'a body in chunks');

ok((poll_until { $nginx->metric('pgq_requests_total{handler="sub",code="204"}') > 0 }), 'requests are counted');

# ---- the configuration
for my $case (
    [ 'location = /sub { pgq_subscription main; }',           qr/needs a location whose name is a prefix that ends with "\/"/ ],
    [ 'location ~ ^/sub/ { pgq_subscription main; }',         qr/needs a location whose name is a prefix/ ],
    [ 'location /sub { pgq_subscription main; }',             qr/needs a location whose name is a prefix/ ],
    [ 'location /sub/ { pgq_subscription nowhere; }',         qr/unknown pgq_pool "nowhere"/ ],
    [ 'location /sub/ { pgq_subscription main; pgq_get main; }', qr/is duplicate or conflicts with another handler/ ],
    [ 'location /sub/ { pgq_subscription main; pgq_topics a; }', qr/pgq_subscription in location "\/sub\/" conflicts with pgq_topics/ ],
    [ 'location /sub/ { pgq_subscription main; limit_except GET { deny all; } }', undef ],
) {
    my ($text, $error) = @$case;
    my ($status, $output) = $nginx->configure(locations => $text)->test;
    is($status ? 1 : 0, $error ? 1 : 0, "nginx -t: $text");
    like($output, $error, '... with the reason') if $error;
}

done_testing;
