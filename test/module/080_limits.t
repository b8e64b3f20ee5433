# P5: what waits is bounded in number, bytes and age; beyond that it is 503 with Retry-After, or 504 when the
# message was sent and nobody knows.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 tickets=10 size=10k', timeout => '30s')->start;

sub waiting {
    my ($message) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', '/post', body => $message, headers => { 'Content-Type' => 'application/json' }));
    return $client;
}

sub blocked {
    return $pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
}

my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');

my @waiting = waiting('"first"');
blocked();
push @waiting, map { waiting("\"$_\"") } 2 .. 10;
Pgq::Client->new($nginx)->get('/nowhere');

my $answer = Pgq::Client->new($nginx)->post('/post', '"one too many"');
is($answer->{status}, 503, 'one ticket too many is refused at once');
is($answer->json->{code}, 'queue_full', 'as a problem');
like($answer->{headers}{'retry-after'}, qr/^[1-9]$/, 'with Retry-After');
is(Pgq::Client->new($nginx)->get('/get')->{status}, 200, 'a GET is answered all the same: it has lanes and a count of its own');

$lock->query('commit');
is((grep { $_->answer->{status} == 202 } @waiting), 10, 'those who waited are accepted');
is(Pgq::Client->new($nginx)->post('/post', '"again"')->{status}, 202, 'then there is room again');

$lock->query('begin; lock table ngx_pgq.batch');
@waiting = waiting('"' . 'x' x 5000 . '"');
blocked();
push @waiting, waiting('"' . 'y' x 5000 . '"');
Pgq::Client->new($nginx)->get('/nowhere');
is(Pgq::Client->new($nginx)->post('/post', '"' . 'z' x 5000 . '"')->{status}, 503, 'so many bytes are too many');
is(scalar(grep { $_ } map { $_->close } @waiting), 0, 'who waits may leave');
$lock->query('commit');
ok((poll_until { Pgq::Client->new($nginx)->post('/post', '"' . 'z' x 5000 . '"')->{status} == 202 }), 'and makes room');

# age: sent and not answered is unknown (never sent is 503: 060_database.t)
$nginx->configure(pool => 'lanes=1', timeout => '1s');
$nginx->reload;
$lock->query('begin; lock table ngx_pgq.batch');
my $sent = waiting('"sent"');
blocked();

$answer = $sent->answer;
is($answer->{status}, 504, 'sent and not answered in time: nobody knows');
is($answer->json->{code}, 'outcome_unknown', 'and that is said');

$lock->query('commit');
$lock->quit;
ok((poll_until { Pgq::Client->new($nginx)->post('/post', '"later"')->{status} == 202 }), 'it goes on afterwards');
$pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
cmp_ok($pg->safe_psql(q{select count(*) from posts where data::text = '"sent"'}), '<=', 1, 'what was sent appears at most once');

done_testing;
