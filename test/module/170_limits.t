# The example of limits, as it stands: what is too much of one address is refused as a problem with Retry-After, before
# its body is read, and is never queued; what is not is accepted.

use Pgq;

my $examples = Pgq::Host::top() . '/ngx_pgq_module/examples';
my $pg       = Pgq::Postgres->new->start;
my $nginx    = Pgq::Nginx->new(
    pg        => $pg,
    http      => "include $examples/http.conf;",
    doors     => join(' ', map { "include $examples/$_.conf;" } qw(problem limit)),
    locations => 'location = /metrics { pgq_metrics; }',
)->start;

sub metric {
    my ($name) = @_;
    return Pgq::Client->new($nginx)->get('/metrics')->body =~ /^\Q$name\E (\d+)$/m ? $1 : 0;
}

sub too_many {
    my ($answer, $what) = @_;
    is($answer->status, 429, "$what is refused");
    is($answer->header('content-type'), 'application/problem+json', 'as a problem');
    is($answer->json->{code}, 'too_many_requests', 'with a code');
    is($answer->header('retry-after'), 1, 'and Retry-After');
    return;
}

# ---- waiting at the same time

my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
my @waiting = map { my $c = Pgq::Client->new($nginx); $c->send($c->request('POST', '/post', body => "\"waits $_\"")); $c } 1 .. 50;
ok((poll_until { metric('pgq_waiting_tickets{pool="main"}') == 50 }), '50 wait');
my $client = Pgq::Client->new($nginx);
$client->send($client->request('POST', '/post', headers => { 'Content-Length' => 8, Expect => '100-continue' }));
too_many($client->answer(interim => 1), 'one more, whose body is not asked for,');
is(Pgq::Client->new($nginx)->get('/nowhere')->status, 404, 'nothing else is');
$lock->query('commit');
$lock->quit;
is((grep { $_->answer->status == 202 } @waiting), 50, 'the others are accepted');

# ---- the rate: by 4 clients that send 100 each without waiting, far more than 100 a second

poll_until { Pgq::Client->new($nginx)->post('/post', '"room again"')->status == 202 };
my $rejects = metric('pgq_rejects_total{reason="too_many_requests"}');
my %status;
my @clients = map { Pgq::Client->new($nginx) } 1 .. 4;
for my $n (0 .. 3) {
    $clients[$n]->send(join '', map { $clients[$n]->request('POST', '/post', body => qq("rate $n-$_")) } 1 .. 100);
}
for my $client (@clients) {
    for (1 .. 100) {
        my $answer = $client->answer;
        too_many($answer, 'what is past the rate') if $answer->status != 202 && !$status{429};
        $status{ $answer->status }++;
    }
}
is(join(' ', sort keys %status), '202 429', 'no other answer') or diag(explain(\%status));
diag("of 400: $status{202} accepted");
$pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
is($pg->safe_psql(q{select count(*) from posts where data::text like '"rate %'}), $status{202}, 'what was accepted is a post, and nothing else');
is(metric('pgq_rejects_total{reason="too_many_requests"}') - $rejects, $status{429}, 'each refusal is counted');

# ---- sizes

ok((poll_until { Pgq::Client->new($nginx)->post('/post', '"rested"')->status == 202 }), 'a client that has waited may go on');

for my $case ([ '/post', 65_536 ], [ '/post/long', 1_000_000 ]) {
    my ($path, $size) = @$case;
    my $body = '"' . 's' x ($size - 2) . '"';
    ok((poll_until { Pgq::Client->new($nginx)->post($path, $body)->status == 202 }), "$size bytes to $path");
}

for my $case ([ '/post', 65_537 ], [ '/post/long', 16_777_217 ]) {
    my ($path, $size) = @$case;
    my $answer;
    poll_until {
        my $large = Pgq::Client->new($nginx);
        $large->send($large->request('POST', $path, headers => { 'Content-Length' => $size }));
        $answer = $large->answer;
        return $answer->status != 429;
    };
    is($answer->status, 413, "$size bytes are too many for $path");
    is($answer->json->{code}, 'too_large', 'as a problem');
}

is(scalar(() = $nginx->log_since(0) =~ /client request body is buffered to a temporary file/g), 1, 'only the long message was on disk');

done_testing;
