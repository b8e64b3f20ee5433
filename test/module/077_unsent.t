# P4: a batch that libpq cannot send, for example for lack of memory, is halved while other batches are committed. A message
# that cannot be sent is answered with 503, the other messages of its batch with 202.

use Pgq;
use Pgq::Host qw(run temp_dir top);

use IO::Select;
use Time::HiRes qw(time);

plan skip_all => 'the library of sanitizers or valgrind must be loaded first' if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};

my $dir = temp_dir('unsent');
chmod 0755, $dir;
my ($status, $out, $err) = run([ 'cc', '-shared', '-fPIC', '-o', "$dir/unsent.so", top() . '/test/tools/unsent.c' ]);
is("$status$out$err", '0', 'the preloaded library is built');

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', timeout => '5s', env => { LD_PRELOAD => "$dir/unsent.so" })->start;

is(Pgq::Client->new($nginx)->post('/post', '"before"')->status, 202, 'a message is accepted by nginx with the preloaded library');
my $worker = join ' ', $nginx->worker_pids;

my ($first, @clients) = $nginx->post_in_one_batch(map { $_ == 7 ? '"this cannot be sent"' : "{\"other\": $_}" } 1 .. 20);
is($first->answer->status, 202, 'the message before the batch is accepted');

my $others     = IO::Select->new(map { $clients[ $_ - 1 ]{socket} } grep { $_ != 7 } 1 .. 20);
my $end        = time + timeout(4);
my %passed;
while (time < $end && (() = $others->can_read(0)) < 19) {
    $passed{ Pgq::Client->new($nginx)->post('/post', '"another"')->status }++;
}
is(join(' ', keys %passed), '202', 'other messages are accepted while the batch is halved');
is(scalar(my @answered = $others->can_read(0)), 19, 'the other messages of the batch are answered before the timeout of the one that cannot be sent');
is(join(' ', map { $_->answer->status } @clients), join(' ', map { $_ == 7 ? 503 : 202 } 1 .. 20), 'the message that cannot be sent is answered with 503, the others with 202');
is(join(' ', $nginx->worker_pids), $worker, 'the worker has not exited');
is(Pgq::Client->new($nginx)->post('/post', '"alone this cannot be sent"')->status, 503, 'a message that cannot be sent is answered with 503 when it is alone');
is(Pgq::Client->new($nginx)->post('/post', '"after"')->status, 202, 'the next message is accepted');

$pg->wait_until_moved;
is($pg->safe_psql("select count(*), count(distinct message_id) from posts where data->>'other' is not null"), '19|19', 'each accepted message of the batch is a post once');
is($pg->safe_psql("select count(*) from posts where data::text like '%cannot be sent%'"), 0, 'no message that could not be sent is a post');

done_testing;
