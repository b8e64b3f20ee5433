# Locations and requests that nginx creates itself: with `if` and `limit_except`, nested locations, subrequests, error_page.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, locations => <<'END')->start;
    location = /if/post    { pgq_post main; if ($http_x) { set $y 1; } }
    location = /if/get     { pgq_get main; if ($http_x) { add_header Y 1; } }
    location = /if/metrics { pgq_metrics; if ($http_x) { set $y 1; } }
    location = /if/return  { pgq_post main; if ($http_x) { return 418; } }
    location = /except/post    { pgq_post main; limit_except OPTIONS { allow 127.0.0.1; deny all; } }
    location = /except/denied  { pgq_post main; limit_except OPTIONS { deny all; } }
    location = /except/get     { pgq_get main; limit_except HEAD { allow all; } }
    location = /except/status  { pgq_status; limit_except HEAD { allow all; } }
    location /around { pgq_post main; location /around/inner { } }

    location = /mirrored { mirror /copy; pgq_post main; }
    location = /copy     { internal; pgq_post main; }
    location = /sampled  { mirror /sample; mirror_request_body off; pgq_post main; }
    location = /sample   { internal; pgq_get main; }
    location = /included { ssi on; ssi_types *; root .; }

    location = /whole { proxy_pass http://127.0.0.1:1; error_page 502 = @queue; }
    location = /parts { proxy_request_buffering off; proxy_pass http://127.0.0.1:1; error_page 502 = @queue; }
    location @queue   { pgq_post main; }
END

sub post { return Pgq::Client->new($nginx)->post(@_, X => 1)->status }
sub get  { return Pgq::Client->new($nginx)->get(@_, X => 1) }

is(post('/if/post', '1'), 202, 'POST is accepted where an if is true');
is(get('/if/get')->status . get('/if/get')->header('y'), '2001', 'GET is answered with the header that an if adds');
like(get('/if/metrics')->body, qr/^pgq_workers 1$/m, 'metrics are answered where an if is true');
is(post('/if/return', '1'), 418, 'an if with return replaces the handler');
is(post('/except/post', '2'), 202, 'POST is accepted within limit_except');
is(post('/except/denied', '2'), 403, 'POST is refused by limit_except');
is(Pgq::Client->new($nginx)->method('OPTIONS', '/except/denied')->status, 204, 'OPTIONS is answered where limit_except denies POST');
is(get('/except/get')->status, 200, 'GET is answered within limit_except');
is(get('/except/status')->status, 200, 'status is answered within limit_except');
is(post('/around/it', '3'), 202, 'POST is accepted by a location that contains others');
is(post('/around/inner', '3'), 404, 'pgq_post is not inherited by nested locations');
is($pg->poll_query_until(q{select string_agg(data::text, ' ' order by id) from posts}, '1 2 3'), 1, 'each accepted message is a post');

for my $size (1, 200_000) {
    is(post('/mirrored', '"' . 'm' x $size . '"'), 202, "a mirrored message of $size bytes is accepted");
    ok($pg->poll_query_until("select count(*) from posts where data::text = '\"' || repeat('m', $size) || '\"'", 2), "a mirrored message of $size bytes is a post twice");
}

Pgq::Host::spew($nginx->dir . '/included', 'a <!--# include virtual="/get?limit=1" --> b');
like(get('/included')->body, qr/\Aa \{"msg":\[\{.*\}\]\} b\z/, 'GET is answered as a subrequest of SSI');

# Posts a body in two parts. Returns the answer.
sub post_in_parts {
    my ($path, $body, %headers) = @_;
    my $client = Pgq::Client->new($nginx);
    my $bytes  = $client->request('POST', $path, body => $body, headers => { 'Content-Type' => 'text/plain', %headers });
    my $length = length($bytes) - length($body) / 2;
    my $before = length $nginx->access_log;
    $client->send(substr $bytes, 0, $length);
    # If nginx waits for the rest of the body, it logs nothing yet.
    poll_until { length $nginx->access_log > $before } 0.5;
    $client->send(substr $bytes, $length);
    return $client->answer;
}

for my $size (10, 200_000) {
    my $body = 'n' x $size;
    is(post_in_parts('/whole', $body)->status, 202, "a message of $size bytes that a proxied server has not accepted is accepted");
    ok($pg->poll_query_until("select count(*) from posts where data #>> '{}' = repeat('n', $size)", 1), "a message of $size bytes that a proxied server has not accepted is complete");
    is(post_in_parts('/parts', $body)->status, 500, "a message of $size bytes that an unbuffered proxy has read in part is refused");
}
$nginx->wait_for_log(qr/pgq endpoint: another handler has read a part of the body/);
is($pg->safe_psql(q{select count(*) from posts where data::text ~ '^"n'}), 2, 'no part of a message is a post');

my @answers = map { post_in_parts('/sampled', 'one message', 'Idempotency-Key' => '"sampled"') } 1, 2;
is(join(' ', map { $_->status . ($_->header('idempotency-replayed') // '') } @answers), '202 202true', 'a request whose body arrives after its subrequest has started keeps its idempotency key');
is($answers[1]->json->{id}, $answers[0]->json->{id}, 'a repeated request gets the id of the first one');

done_testing;
