# P5: waiting tickets are limited in number, bytes and age. A message above the limits is answered with 503 and Retry-After,
# a message that was sent and not answered in time with 504.

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
is($answer->{status}, 503, 'a message above the limit of tickets is refused');
is($answer->json->{code}, 'queue_full', 'a message above the limit of tickets has the code queue_full');
like($answer->{headers}{'retry-after'}, qr/^[1-9]$/, 'a message above the limit of tickets is answered with Retry-After');
is(Pgq::Client->new($nginx)->get('/get')->{status}, 200, 'a GET is answered while the limit of tickets is reached');

$lock->query('commit');
is((grep { $_->answer->{status} == 202 } @waiting), 10, 'the tickets that waited are accepted');
is(Pgq::Client->new($nginx)->post('/post', '"again"')->{status}, 202, 'a message is accepted when no ticket waits');

$lock->query('begin; lock table ngx_pgq.batch');
@waiting = waiting('"' . 'x' x 5000 . '"');
blocked();
push @waiting, waiting('"' . 'y' x 5000 . '"');
Pgq::Client->new($nginx)->get('/nowhere');
is(Pgq::Client->new($nginx)->post('/post', '"' . 'z' x 5000 . '"')->{status}, 503, 'a message above the limit of bytes is refused');
is(scalar(grep { $_ } map { $_->close } @waiting), 0, 'clients of waiting tickets close their connections');
$lock->query('commit');
ok((poll_until { Pgq::Client->new($nginx)->post('/post', '"' . 'z' x 5000 . '"')->{status} == 202 }), 'a message is accepted after the clients of waiting tickets have left');

# age: an unknown outcome; a message that was not sent is answered with 503 (060)
$nginx->configure(pool => 'lanes=1', timeout => '1s');
$nginx->reload;
$lock->query('begin; lock table ngx_pgq.batch');
my $sent = waiting('"sent"');
blocked();

$answer = $sent->answer;
is($answer->{status}, 504, 'a message that was sent and not answered in time is answered with 504');
is($answer->json->{code}, 'outcome_unknown', 'a message that was sent and not answered in time has the code outcome_unknown');

$lock->query('commit');
$lock->quit;
ok((poll_until { Pgq::Client->new($nginx)->post('/post', '"later"')->{status} == 202 }), 'a message is accepted after the lane is free again');
$pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
cmp_ok($pg->safe_psql(q{select count(*) from posts where data::text = '"sent"'}), '<=', 1, 'a message of unknown outcome is a post at most once');

done_testing;
