# Under load new messages wait while a batch of the worker is in flight, to become one larger batch. They do not wait for a
# batch that hangs, nor when there are few clients or when commits are slow.

use Pgq;
use Pgq::Wire;

use List::Util qw(min);
use Pgq::Host qw(build_dir run);
use Time::HiRes qw(time);

my $late  = 0.05;    # NGX_PGQ_GATHER_LATE
my $pg    = Pgq::Postgres->new->start;
my $wire  = Pgq::Wire->new($pg)->start;
my $nginx = Pgq::Nginx->new(pg => $pg, conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=2 answer_timeout=60s',
    timeout => '60s')->start;

# The database does not answer the batch of one message. Returns the seconds until another message is answered meanwhile.
sub seconds_with_a_batch_in_flight {
    $wire->plan({ in => 'enqueue', before => 'ReadyForQuery', do => 'hold' });

    my $first = Pgq::Client->new($nginx)->send_post('/post', '"hangs"');
    poll_until { $wire->happened } 10;

    my $start  = time;
    my $client = Pgq::Client->new($nginx)->send_post('/post', '"other"');
    my $second = $client->answer(timeout => timeout(5));
    my $time   = time - $start;

    $wire->plan;
    $second //= $client->answer;
    die 'a message was not accepted' if $second->status != 202 || $first->answer->status != 202;

    return $time;
}

# The worker has had large batches, and then a few small and quick ones.
sub load {
    run([ build_dir() . '/bench/pgq_load', '--quiet', '--all-ok', '--messages', 4000, '--connections', 64, $nginx->url('/post') ], timeout => timeout(60));
    Pgq::Client->new($nginx)->post('/post', '"quick"') for 1 .. 8;

    return;
}

# ---- few clients: each time a new worker, which has had no batches
cmp_ok(min(map { $nginx->reload; seconds_with_a_batch_in_flight() } 1 .. 5), '<', $late * 0.8,
    'a message does not wait for the batch in flight when there are few clients');

# ---- load
my $time;
ok((poll_until { load(); ($time = seconds_with_a_batch_in_flight()) >= $late * 0.9 } 60),
    'a message waits for the batch in flight after large batches');
cmp_ok($time, '<', timeout(5), 'a message does not wait for a batch that hangs');

# ---- slow commits: the batches before took longer than 50 ms
cmp_ok(min(map { seconds_with_a_batch_in_flight() } 1 .. 3), '<', $late * 0.8,
    'a message does not wait for the batch in flight when commits are slow');

ok($pg->wait_until_moved, 'each message is moved');

done_testing;
