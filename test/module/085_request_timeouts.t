# P5: each location has its own timeout, and Retry-After depends on the rate at which waiting tickets are answered.

use Pgq;

use Time::HiRes qw(time);

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'lanes=1 batch=1 tickets=31',
    timeout   => '60s',
    locations => 'location = /short { pgq_timeout 500ms; pgq_post main; } location = /get/short { pgq_timeout 500ms; pgq_get main; }',
)->start;

# Posts as many messages as may wait. Returns their clients.
sub fill {
    my @waiting = map { Pgq::Client->new($nginx)->send_post('/post', '"x"') } 1 .. 31;
    $nginx->wait_until_received;
    return @waiting;
}

sub retry_after { return Pgq::Client->new($nginx)->post('/post', '"one too many"')->{headers}{'retry-after'} }

# ---- a short timeout behind a long one
my $lock = $pg->lock_table('ngx_pgq.batch, posts');
my $first = Pgq::Client->new($nginx)->send_post('/post', '"x"');
$pg->wait_for_lock;
my $long = Pgq::Client->new($nginx)->send_post('/post', '"x"');
$nginx->wait_until_received;
my $start  = time;
my $answer = Pgq::Client->new($nginx)->send_post('/short', '"x"')->answer;
is($answer->{status}, 503, 'a message with a short timeout is refused');
cmp_ok(time - $start, '>=', 0.5, 'a message with a short timeout waits until its timeout');
cmp_ok(time - $start, '<', 20, 'a message with a short timeout does not wait for one with a long timeout');
is(Pgq::Client->new($nginx)->get('/get/short')->{status}, 503, 'a GET with a short timeout is refused while it waits for a lane');
$lock->release;
is($first->answer->{status}, 202, 'the message in flight is accepted');
is($long->answer->{status}, 202, 'the message with a long timeout is accepted');

# ---- the timeout of a GET whose statement is in flight
$lock = $pg->lock_table('posts');
$answer = Pgq::Client->new($nginx)->get('/get/short');
is($answer->{status}, 503, 'a GET that waits for a lock is refused after its timeout');
my $pid = $pg->safe_psql("select pid from pg_stat_activity where usename = 'ngx_pgq_web' and state = 'active'");
$lock->release;
is(Pgq::Client->new($nginx)->get('/get/short')->{status}, 200, 'a GET is answered after the lock is released');
is($pg->safe_psql("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and pid = $pid"), 1, 'a GET that was refused after its timeout does not close the lane');

$lock = $pg->lock_table;
is(Pgq::Client->new($nginx)->send_post('/short', '"x"')->answer->{status}, 504, 'a message in flight is answered with 504 after its timeout');
$lock->release;

# ---- Retry-After
$pg->safe_psql(q{create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.5); return null; end';
    create trigger slow after insert on ngx_pgq.queue for each statement execute function slow()});
is(Pgq::Client->new($nginx)->post('/post', '"x"')->{status}, 202, 'a message is accepted while the queue accepts two messages a second') for 1 .. 2;
# Wait until the seconds before the trigger, which were faster, are no longer part of the rate.
poll_until {
    my @waiting = fill();
    my $after = retry_after();
    $_->close for @waiting;
    return $after >= 8;
} 30;

my @waiting = fill();
my $slow    = retry_after();
cmp_ok($slow, '>=', 31 / 4,           "31 tickets at two a second: Retry-After is at least 8 s ($slow s)");
cmp_ok($slow, '<=', (31 / 1 + 1) * 1.5, '31 tickets at two a second: Retry-After is at most 48 s');
$pg->safe_psql('drop trigger slow on ngx_pgq.queue');
is((grep { $_->answer->{status} == 202 } @waiting), 31, 'the tickets that waited at two a second are accepted');

$lock = $pg->lock_table;
@waiting = fill();
my $fast = retry_after();
cmp_ok($fast, '<=', 4, "31 tickets at 31 a second: Retry-After is at most 4 s ($fast s)");
$lock->release;
is((grep { $_->answer->{status} == 202 } @waiting), 31, 'the tickets that waited at 31 a second are accepted');

done_testing;
