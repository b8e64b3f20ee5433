# A worker whose connections are all in use does not become the follower, until a client leaves.

use Pgq;
use Time::HiRes qw(time);

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, workers => 2, connections => 24, pool => 'lanes=1 connect_timeout=1s', ring => 'poll=2s')->start;
my $is_following = q{query like '%ngx_pgq.follow(%' and pid <> pg_backend_pid()};

sub following_workers { return map { /pgq follower: started/ && /(\d+)#/ ? $1 : () } split /\n/, $nginx->log_since(0) }

ok($pg->poll_query_until("select count(*) from pg_stat_activity where $is_following", 1), 'a worker follows');
ok((poll_until { (Pgq::Client->new($nginx)->get('/get')->header('Cache-Status') // '') eq 'pgq; hit' }), 'the ring is read: the follower is not writing');
my ($stopped) = following_workers();
my ($other) = grep { $_ != $stopped } $nginx->worker_pids;
kill 'STOP', $stopped;

# When nginx has no free connection, it closes idle ones, but not those with a request in progress.
my @clients = map {
    my $slow = Pgq::Client->new($nginx);
    $slow->send("POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n");
    $slow;
} 1 .. 40;
ok((poll_until { $nginx->log_since(0) =~ / $other#$other: 24 worker_connections are not enough/ }), 'clients use all connections of the other worker');
$nginx->allow(qr/\[alert\].*worker_connections are not enough/);
is(scalar(my @before = following_workers()), 1, '... before it could take over');

my $stop = time;
ok((poll_until { time > $stop + 8 } 20), 'four polls are over');
is(scalar(my @during = following_workers()), 1, 'a worker without a free connection does not follow');

$_->close for @clients;
ok((poll_until { (following_workers())[-1] == $other } 20), 'it follows after the clients have left');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"after"')});
$pg->wait_until_moved;
like(Pgq::Client->new($nginx)->get('/get')->body, qr/"after"/, '... and has the next post');
kill 'CONT', $stopped;
ok($pg->poll_query_until("select count(*) from pg_stat_activity where $is_following", 1), '... while the worker that was stopped no longer follows');

done_testing;
