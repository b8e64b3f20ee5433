# P4: a batch that libpq does not send, as when no memory is left, is halved while others are committed: one message that
# cannot be sent gets 503, and its neighbours get their 202.

use Pgq;
use Pgq::Host qw(run temp_dir top);

use IO::Select;
use Time::HiRes qw(time);

plan skip_all => 'another library wants to be loaded first' if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};

my $dir = temp_dir('unsent');
chmod 0755, $dir;
my ($status, $out, $err) = run([ 'cc', '-shared', '-fPIC', '-o', "$dir/unsent.so", top() . '/test/tools/unsent.c' ]);
is("$status$out$err", '0', 'the library that sends not everything is built');

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', timeout => '5s', env => { LD_PRELOAD => "$dir/unsent.so" })->start;

sub post_later {
    my ($message) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', '/post', body => $message, headers => { 'Content-Type' => 'application/json' }));
    return $client;
}

is(Pgq::Client->new($nginx)->post('/post', '"before"')->status, 202, 'a message is accepted');
my $worker = join ' ', $nginx->worker_pids;

# the only lane is held up until all of them wait, so that they travel in one batch
my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
my $first = post_later('"first"');
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
my @clients = map { post_later($_ == 7 ? '"this cannot be sent"' : "{\"neighbour\": $_}") } 1 .. 20;
Pgq::Client->new($nginx)->get('/nowhere');
$lock->query('commit');
$lock->quit;
is($first->answer->status, 202, 'the message before them is accepted');

my $neighbours = IO::Select->new(map { $clients[ $_ - 1 ]{socket} } grep { $_ != 7 } 1 .. 20);
my $end        = time + timeout(4);
my %passed;
while (time < $end && (() = $neighbours->can_read(0)) < 19) {
    $passed{ Pgq::Client->new($nginx)->post('/post', '"passes by"')->status }++;
}
is(join(' ', keys %passed), '202', 'other messages are accepted meanwhile');
is(scalar(my @answered = $neighbours->can_read(0)), 19, 'the neighbours are answered before the deadline of the one that cannot be sent');
is(join(' ', map { $_->answer->status } @clients), join(' ', map { $_ == 7 ? 503 : 202 } 1 .. 20), 'it gets 503, its neighbours 202');
is(join(' ', $nginx->worker_pids), $worker, 'the worker is the same');
is(Pgq::Client->new($nginx)->post('/post', '"alone this cannot be sent"')->status, 503, 'such a message alone gets 503');
is(Pgq::Client->new($nginx)->post('/post', '"after"')->status, 202, 'the next message is accepted');

$pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
is($pg->safe_psql("select count(*), count(distinct message_id) from posts where data->>'neighbour' is not null"), '19|19', 'what was accepted is in posts once');
is($pg->safe_psql("select count(*) from posts where data::text like '%cannot be sent%'"), 0, 'what was not sent is not');

done_testing;
