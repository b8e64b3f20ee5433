# P10: bells tell workers of each new post at once. Without descriptors for bells nginx starts and reloads, and its workers
# notice new posts by polls.

use Pgq;
use Pgq::Host qw(run temp_dir top alive);
use Pgq::Stream;

plan skip_all => 'the library of sanitizers or valgrind must be loaded first' if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};

my $dir = temp_dir('eventfd');
chmod 0755, $dir;
my ($status, $out, $err) = run([ 'cc', '-shared', '-fPIC', '-o', "$dir/eventfd.so", top() . '/test/tools/eventfd.c' ]);
is("$status$out$err", '0', 'the preloaded library is built');

my $pg = Pgq::Postgres->new->start;

# Readers, of which each worker has one at least. The header X-Worker is the pid of a reader's worker.
sub readers {
    my ($nginx) = @_;
    my @readers;

    poll_until {
        push @readers, Pgq::Stream->new($nginx);
        my %pid = map { ($_->header('x-worker') // 0) => 1 } @readers;
        return $nginx->worker_pids == grep { $pid{$_} } $nginx->worker_pids if Pgq::Stream->pump(sub { defined $readers[-1]->last }, 10, @readers);
    } 20;

    return @readers;
}

# ---- bells: a worker that looked only when it polls would need 30 s for a post

my $nginx = Pgq::Nginx->new(pg => $pg, workers => 2, ring => 'poll=30s', locations => 'location = /stream { add_header X-Worker $pid; pgq_stream main; }')->start;
my @readers = readers($nginx);

my $posts = 0;
for (1 .. 10) {
    Pgq::Client->new($nginx)->post('/post', '"a post"');
    Pgq::Stream->pump(sub { !grep { @{ $_->ids } <= $posts } @readers }, 10, @readers) or last;
    $posts++;
}
is($posts, 10, 'the workers notice each of ten posts without a poll');
$nginx->stop;

# ---- without bells

for my $bells (0, 1) {
    my $nginx = Pgq::Nginx->new(
        pg        => $pg,
        workers   => 2,
        ring      => 'poll=300ms',
        main      => 'env EVENTFDS;',
        env       => { LD_PRELOAD => "$dir/eventfd.so", EVENTFDS => $bells },
        locations => 'location = /stream { add_header X-Worker $pid; pgq_stream main; }',
    )->start;

    # nginx itself needs one for aio, which is not used here.
    $nginx->allow(qr/\[emerg\] \d+#\d+: eventfd\(\) failed/);
    ok($nginx->wait_for_log(qr/\[error\].* pgq ring: eventfd\(\) failed, $bells of 16 bells \(24: Too many open files\)/),
        "nginx starts with $bells bells");
    ok($nginx->wait_for_log(qr/\[error\].* pgq ring: no bell, this worker notices new posts by polls/), '... and a worker without one logs it');

    my @workers = sort $nginx->worker_pids;
    my @readers = readers($nginx);
    is(join(' ', sort keys %{ { map { $_->header('x-worker') => 1 } @readers } }), "@workers", 'each worker has a reader');
    is(Pgq::Client->new($nginx)->post('/post', '"a post"')->status, 202, 'a message is accepted');
    ok(Pgq::Stream->pump(sub { !grep { !@{ $_->ids } } @readers }, 10, @readers), 'each reader receives the post');

    ok($nginx->reload, 'nginx reloads');
    ok(Pgq::Stream->pump(sub { !grep { !$_->ended } @readers }, 20, @readers), 'the old workers end the streams');
    ok((poll_until { !grep { alive($_) } @workers } 20), '... and exit');
    is(Pgq::Client->new($nginx)->get('/get')->status, 200, 'the new workers answer');
    $nginx->stop;
}

done_testing;
