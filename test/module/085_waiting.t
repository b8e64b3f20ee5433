# P5: each location has its own patience, and Retry-After tells how fast what waits is drained.

use Pgq;

use Time::HiRes qw(time);

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'lanes=1 batch=1 tickets=31',
    timeout   => '60s',
    locations => 'location = /hasty { pgq_timeout 500ms; pgq_post main; } location = /glance { pgq_timeout 500ms; pgq_get main; }',
)->start;

sub waiting {
    my ($path) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', $path, body => '"x"', headers => { 'Content-Type' => 'application/json' }));
    return $client;
}

# as many as may wait; an answer to another one says that nginx has read them
sub fill {
    my @waiting = map { waiting('/post') } 1 .. 31;
    Pgq::Client->new($nginx)->get('/nowhere');
    return @waiting;
}

sub retry_after { return Pgq::Client->new($nginx)->post('/post', '"one too many"')->{headers}{'retry-after'} }

# ---- who is hasty does not wait behind who is patient
my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch, posts');
my $first = waiting('/post');
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
my $patient = waiting('/post');
Pgq::Client->new($nginx)->get('/nowhere');
my $start  = time;
my $answer = waiting('/hasty')->answer;
is($answer->{status}, 503, 'the hasty one is refused');
cmp_ok(time - $start, '>=', 0.5, 'not before its time');
cmp_ok(time - $start, '<', 20, 'nor with the patient one');
is(Pgq::Client->new($nginx)->get('/glance')->{status}, 503, 'a glance that waits for a lane, too');
$lock->query('commit');
is($first->answer->{status}, 202, 'the first one is accepted');
is($patient->answer->{status}, 202, 'and so is the patient one');

# ---- a statement under way is given up by its client, not by its lane
$lock->query('begin; lock table posts');
$answer = Pgq::Client->new($nginx)->get('/glance');
is($answer->{status}, 503, 'a glance at a table that is locked: 503');
my $pid = $pg->safe_psql("select pid from pg_stat_activity where usename = 'ngx_pgq_web' and state = 'active'");
$lock->query('commit');
is(Pgq::Client->new($nginx)->get('/glance')->{status}, 200, 'and 200 when it is not');
is($pg->safe_psql("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and pid = $pid"), 1, 'by the same lane');

$lock->query('begin; lock table ngx_pgq.batch');
is(waiting('/hasty')->answer->{status}, 504, 'a message that was sent: nobody knows');
$lock->query('commit');

# ---- the pace
$pg->safe_psql(q{create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.5); return null; end';
    create trigger slow after insert on ngx_pgq.queue for each statement execute function slow()});
is(Pgq::Client->new($nginx)->post('/post', '"x"')->{status}, 202, 'two a second') for 1 .. 2;
# the faster seconds before are forgotten
poll_until {
    my @hasty = fill();
    my $after = retry_after();
    $_->close for @hasty;
    return $after >= 8;
} 30;

my @waiting = fill();
my $slow    = retry_after();
cmp_ok($slow, '>=', 31 / 4,           "31 wait, two a second are taken: come back in $slow s");
cmp_ok($slow, '<=', (31 / 1 + 1) * 1.5, 'no later than that');
$pg->safe_psql('drop trigger slow on ngx_pgq.queue');
is((grep { $_->answer->{status} == 202 } @waiting), 31, 'they are accepted');

$lock->query('begin; lock table ngx_pgq.batch');
@waiting = fill();
my $fast = retry_after();
cmp_ok($fast, '<=', 4, "31 wait, as many were taken in a second: come back in $fast s");
$lock->query('commit');
is((grep { $_->answer->{status} == 202 } @waiting), 31, 'they are accepted');

done_testing;
