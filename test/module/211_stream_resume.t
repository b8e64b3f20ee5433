# P11: a reader gets each post once and in order while connections are cut, nginx is reloaded, workers are killed and
# PostgreSQL is restarted.

use Pgq;
use Pgq::Stream;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    workers   => 2,
    pools     => 'pgq_pool main "' . $pg->conninfo(user => 'ngx_pgq_web') . '"; pgq_ring main posts=100;',
    http      => 'pgq_heartbeat 1s; pgq_drain 500ms;',
    locations => 'location /stream { pgq_stream main; }',
)->start;

my $random = srand;
diag("seed $random");

my @readers = map { Pgq::Stream->new($nginx, query => 'after=0', form => (qw(sse websocket sse ndjson))[$_ % 4], again => 1, objects => undef) } 1 .. 100;
my $sent = 0;

# Inserts posts, and lets the readers read, until the code returns a true value.
sub load {
    my ($code) = @_;
    my $number = 0;

    while (!$code->(++$number)) {
        my $count = 1 + int rand 10;
        my $size  = rand() < 0.05 ? 20_000 : int rand 500;

        eval {
            $pg->safe_psql("insert into ngx_pgq.queue (data) select to_json(repeat('x', $size)) from generate_series(1, $count)");
            $sent += $count;
        };

        my $end = Time::HiRes::time() + 0.02;
        Pgq::Stream->pump(sub { Time::HiRes::time() > $end }, 5, @readers);
    }

    return;
}

sub complete {
    my ($what) = @_;

    $pg->wait_until_moved;
    my @ids = split /\n/, $pg->safe_psql('select id from posts order by id');
    Pgq::Stream->pump(sub { !grep { ($_->ids->[-1] // 0) < $ids[-1] } @readers }, 30, @readers);
    is(scalar @ids, $sent, "$what: each message is a post");
    is(join("\n", grep { $_ ne '' } map { $_->complaint(\@ids) } @readers), '', "$what: each reader has each post once and in order");

    return;
}

load(sub { $_[0] > 20 });
complete('without faults');

load(sub {
    for (1 .. 5) {
        my $reader = $readers[ rand @readers ];
        $reader->read(1 + int rand 200);
        $reader->cut;
    }
    return $_[0] > 40;
});
complete('cut connections');

for my $number (1 .. 20) {
    $nginx->reload;
    load(sub { $_[0] > 3 });
}
ok((poll_until { load(sub { $_[0] > 1 }); 2 == $nginx->worker_pids } 20), 'the old workers exit after 20 reloads');
complete('20 reloads');

$nginx->allow(qr/exited on signal 9/);
for my $number (1 .. 3) {
    kill 'KILL', ($nginx->worker_pids)[0];
    load(sub { $_[0] > 10 });
}
complete('killed workers');

$pg->restart;
load(sub { $_[0] > 10 });
complete('a restart of PostgreSQL');

done_testing;
