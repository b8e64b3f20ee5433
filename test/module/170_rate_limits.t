# The example of limits: requests above the limits of an address are refused with a problem document and Retry-After, before
# their bodies are read, and are not queued; other requests are accepted.

use Pgq;

my $examples = Pgq::Host::top() . '/ngx_pgq_module/examples';
my $pg       = Pgq::Postgres->new->start;
my $nginx    = Pgq::Nginx->new(
    pg        => $pg,
    ring      => '',
    http      => "include $examples/http.conf;",
    endpoints => join(' ', map { "include $examples/$_.conf;" } qw(problem limit)),
    locations => 'location = /metrics { pgq_metrics; }',
)->start;

sub too_many {
    my ($answer, $what) = @_;
    is_problem($answer, 429, 'too_many_requests', $what);
    is($answer->header('retry-after'), 1, "$what is answered with Retry-After");
    return;
}

# ---- concurrent requests
my $lock = $pg->lock_table;
my @waiting = map { Pgq::Client->new($nginx)->send_post('/post', "\"waits $_\"") } 1 .. 50;
ok((poll_until { $nginx->metric('pgq_waiting_tickets{pool="main"}') == 50 }), '50 requests of an address wait');
for my $path ('/post', '/post/orders/eu') {
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', $path, headers => { 'Content-Length' => 8, Expect => '100-continue' }));
    too_many($client->answer(interim => 1), "a request to $path after 50 that wait, without 100 Continue,");
}
is(Pgq::Client->new($nginx)->get('/nowhere')->status, 404, 'another location is not limited');
$lock->release;
is((grep { $_->answer->status == 202 } @waiting), 50, 'the requests that waited are accepted');

# ---- the rate: 4 clients send 100 requests each without waiting, more than 100 a second
poll_until { Pgq::Client->new($nginx)->post('/post', '"below the limit"')->status == 202 };
my $rejects = $nginx->metric('pgq_rejects_total{reason="too_many_requests"}');
my %status;
my @clients = map { Pgq::Client->new($nginx) } 1 .. 4;
for my $n (0 .. 3) {
    $clients[$n]->send(join '', map { $clients[$n]->request('POST', '/post', body => qq("rate $n-$_")) } 1 .. 100);
}
for my $client (@clients) {
    for (1 .. 100) {
        my $answer = $client->answer;
        too_many($answer, 'a request above the rate') if $answer->status != 202 && !$status{429};
        $status{ $answer->status }++;
    }
}
is(join(' ', sort keys %status), '202 429', 'each request is accepted or refused with 429') or diag(explain(\%status));
diag("of 400: $status{202} accepted");
is($pg->count_posts('"rate %'), $status{202}, 'each accepted message is a post, and no other');
is($nginx->metric('pgq_rejects_total{reason="too_many_requests"}') - $rejects, $status{429}, 'each refusal is counted');

# ---- topics
ok((poll_until { Pgq::Client->new($nginx)->post("/$_/orders/eu", qq("topic $_"))->status == 202 }), "a message with a topic is accepted by /$_") for qw(post long);
ok((poll_until { @{ Pgq::Client->new($nginx)->get('/get/orders/eu')->json->{msg} } == 2 }), '/get/<topic> returns both');
is(@{ Pgq::Client->new($nginx)->get('/stream/orders/eu?wait=0&newest=2')->json->{msg} }, 2, '/stream/<topic> sends both');
is_problem(Pgq::Client->new($nginx)->get('/get/orders//'), 400, 'bad_topic', 'a path that is not a topic');
is_problem(Pgq::Client->new($nginx)->get('/getting'), 404, 'not_found', 'a path that only begins as /get');

# ---- sizes
ok((poll_until { Pgq::Client->new($nginx)->post('/post', '"rested"')->status == 202 }), 'a client may post again after a pause');

for my $case ([ '/post', 65_536 ], [ '/long', 1_000_000 ]) {
    my ($path, $size) = @$case;
    my $body = '"' . 's' x ($size - 2) . '"';
    ok((poll_until { Pgq::Client->new($nginx)->post($path, $body)->status == 202 }), "a message of $size bytes is accepted by $path");
}

for my $case ([ '/post', 65_537 ], [ '/long', 16_777_217 ]) {
    my ($path, $size) = @$case;
    my $answer;
    poll_until {
        my $large = Pgq::Client->new($nginx);
        $large->send($large->request('POST', $path, headers => { 'Content-Length' => $size }));
        $answer = $large->answer;
        return $answer->status != 429;
    };
    is_problem($answer, 413, 'too_large', "a message of $size bytes, sent to $path,");
}

is(scalar(() = $nginx->log_since(0) =~ /client request body is buffered to a temporary file/g), 1, 'only the message of 1 MB was written to disk');

done_testing;
