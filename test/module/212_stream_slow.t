# P5: readers that do not read are closed, use a bounded amount of memory and delay no other; many streams open and close.

use Pgq;
use Pgq::Stream;
use Pgq::WebSocket;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg          => $pg,
    connections => 5000,
    listen      => 'sndbuf=64k',    # else the kernel may take all posts of a reader that does not read
    pools       => 'pgq_pool main "' . $pg->conninfo(user => 'ngx_pgq_web') . '"; pgq_ring main posts=1000 size=4m;',
    locations   => <<'END',
location = /stream { pgq_stream main; pgq_backlog 64k; }
location = /slow   { pgq_stream main; pgq_backlog 100m; send_timeout 2s; }
location = /metrics { pgq_metrics; }
END
)->start;

sub insert { return $pg->safe_psql("insert into ngx_pgq.queue (data) select to_json(repeat('x', $_[1])) from generate_series(1, $_[0])") }
sub ends { return $nginx->metric(qq(pgq_reader_ends_total{reason="$_[0]"})) // 0 }
sub memory { return eval { Pgq::Host::slurp('/proc/' . ($nginx->worker_pids)[0] . '/status') =~ /VmRSS:\s+(\d+)/ ? $1 : 0 } }

insert(1, 10);
$pg->wait_until_moved;

my $reader = Pgq::Stream->new($nginx, query => 'after=0', objects => undef);
ok($reader->wait_for(1), 'a reader gets the first post');
my @stuck = map { Pgq::Client->new($nginx, buffer => 4096)->send_get('/stream?after=0') } 1 .. 200;
ok((poll_until { $nginx->metric('pgq_open_readers{pool="main",transport="sse"}') == 201 }), '200 readers that do not read are open');
my @sockets = map { Pgq::WebSocket->new($nginx, '/stream?after=0', buffer => 4096) } 1 .. 50;
ok((poll_until { $nginx->metric('pgq_open_readers{pool="main",transport="websocket"}') == 50 }), '50 WebSockets that do not read are open');
my $before = memory();
# 1.3 MB are more than the kernel's buffers: what is sent is read by the server.
is(scalar(grep { $_->send($_->frame(9, 'p' x 125) x 10_000) } @sockets), 50, '10,000 Pings of each of them are read');
cmp_ok(memory() - $before, '<', 1000, 'Pings whose answers are not read take no memory') if !$ENV{PGQ_SANITIZE} && !$ENV{PGQ_VALGRIND};

for my $n (1 .. 40) {
    insert(25, 4000);
    $reader->wait_for(1 + 25 * $n, 20);
}
ok($reader->wait_for(1001, 20), 'the other reader gets each post');
is($reader->complaint([ 1 .. 1001 ]), '', 'it gets each post once and in order');
ok((poll_until { ends('backlog') == 250 } 20), 'readers that are more than pgq_backlog behind are closed');
cmp_ok(memory() - $before, '<', 20_000, 'the memory of the worker grows by less than 20 MB') if !$ENV{PGQ_SANITIZE} && !$ENV{PGQ_VALGRIND};
$_->close for @stuck, @sockets;

my $timeout = Pgq::Client->new($nginx, buffer => 4096)->send_get('/slow?after=0');
ok((poll_until { ends('timeout') == 1 } 20), 'a reader without progress is closed after send_timeout');
$timeout->close;

# ---- many at once

for my $round (1 .. 2) {
    my @many = map { Pgq::Stream->new($nginx, objects => undef) } 1 .. 2000;
    ok((poll_until { $nginx->metric('pgq_open_readers{pool="main",transport="sse"}') == 2001 } 60), "2,000 streams open at once ($round)");
    $_->cut for @many;
    ok((poll_until { $nginx->metric('pgq_open_readers{pool="main",transport="sse"}') == 1 } 60), "2,000 streams close at once ($round)");
}
insert(1, 10);
ok($reader->wait_for(1002), 'a reader gets the next post after that');

done_testing;
