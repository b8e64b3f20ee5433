# Under load new messages wait while a batch of the worker is in flight, and for some turns of the event loop, to become one
# larger batch. They do not wait for a batch that hangs, nor when there are few clients, when commits are slow, or when they
# did not fit into the batch.

use Pgq;
use Pgq::Wire;

use List::Util qw(min);
use Pgq::Host qw(build_dir run);
use Time::HiRes qw(time);

my $late  = 0.05;    # NGX_PGQ_GATHER_LATE
my $pg    = Pgq::Postgres->new->start;
my $wire  = Pgq::Wire->new($pg)->start;
my $nginx = Pgq::Nginx->new(pg => $pg, conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=2 answer_timeout=60s',
    timeout => '60s', http => 'add_header X-Batch $pgq_batch always;')->start;

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

# nginx accepts one connection in a turn of its event loop: each turn brings a message. Returns the messages of the first batch.
sub messages_of_many_turns {
    my ($worker) = $nginx->worker_pids;

    kill 'STOP', $worker;
    my @clients = map { Pgq::Client->new($nginx)->send_post('/post', '"turn"') } 1 .. 100;
    kill 'CONT', $worker;

    return (map { $_->answer->header('X-Batch') } @clients)[0];
}

# The lines of a request, which are a batch of their own, and a message arrive together. The database does not answer the lines.
# Returns the seconds until the message and until a later one is answered.
sub seconds_of_messages_that_do_not_fit {
    my ($worker) = $nginx->worker_pids;
    my ($lines, $second, $third) = map { my $client = Pgq::Client->new($nginx); $client->post('/post', '"connects"'); $client } 1 .. 3;

    $wire->plan({ in => 'enqueue_all', before => 'ReadyForQuery', do => 'hold' });
    kill 'STOP', $worker;
    $lines->send_post('/post', "1\n2\n", 'Content-Type' => 'application/x-ndjson');
    $second->send_post('/post', '"second"');
    kill 'CONT', $worker;

    my $start  = time;
    my @status = $second->answer->status;
    my @times  = time - $start;

    push @status, $third->post('/post', '"third"')->status;
    push @times, time - $start;
    $wire->plan;
    push @status, $lines->answer->status;
    die "not accepted: @status" if "@status" ne '202 202 202';

    return @times;
}

# ---- few clients: each time a new worker, which has had no batches
cmp_ok(min(map { $nginx->reload; seconds_with_a_batch_in_flight() } 1 .. 5), '<', $late * 0.8,
    'a message does not wait for the batch in flight when there are few clients');

# ---- load
my $time;
ok((poll_until { load(); ($time = seconds_with_a_batch_in_flight()) >= $late * 0.9 } 60),
    'a message waits for the batch in flight after large batches');
cmp_ok($time, '<', timeout(5), 'a message does not wait for a batch that hangs');

my $messages;
ok((poll_until { load(); ($messages = messages_of_many_turns()) >= 5 } 60), 'after large batches messages wait for turns of the event loop that bring more');
cmp_ok($messages, '<', 12, 'messages wait for at most eight turns');

# the median of three times; new messages are waiting if the third one did
my @seconds;
poll_until { load(); my ($second, $third) = seconds_of_messages_that_do_not_fit(); push @seconds, $second if $third >= $late * 0.9; @seconds == 3 } 60;
cmp_ok((sort { $a <=> $b } @seconds)[1] // 60, '<', $late * 0.8, 'a message that did not fit into the batch in flight is sent at once');

# ---- slow commits: the batches before took longer than 50 ms
cmp_ok(min(map { seconds_with_a_batch_in_flight() } 1 .. 3), '<', $late * 0.8,
    'a message does not wait for the batch in flight when commits are slow');

ok($pg->wait_until_moved, 'each message is moved');

done_testing;
