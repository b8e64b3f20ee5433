# P5: the lanes of a worker connect even if clients use all of its connections.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, connections => 24, pool => 'lanes=2 connect_timeout=1s', timeout => '20s')->start;
my $lanes = "from pg_stat_activity where usename = 'ngx_pgq_web'";

is(Pgq::Client->new($nginx)->post('/post', '"before"')->status, 202, 'a message is accepted before clients use all connections');

# Begins a request. When nginx has no free connection, it closes idle ones, but not those with a request in progress.
sub begin {
    my $slow = Pgq::Client->new($nginx);
    $slow->send("POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n");
    return $slow;
}

my @clients = map { begin() } 1 .. 40;
ok((poll_until { $nginx->log_since(0) =~ /24 worker_connections are not enough/ }), 'clients use all connections of the worker');
$nginx->allow(qr/\[alert\].*worker_connections are not enough/);

for my $round (1 .. 3) {
    $pg->stop;
    push @clients, map { begin() } 1 .. 10;
    $pg->start;
    ok($pg->poll_query_until("select count(*) $lanes", 2), "round $round: the lanes connect while clients use all connections");
    $clients[$round]->send("\"round $round\"");
    is(($clients[$round]->answer // { status => 'none' })->{status}, 202, "round $round: a message of a connected client is accepted");
}

$_->close for @clients;
is(Pgq::Client->new($nginx)->get('/get')->status, 200, 'a request is answered after the clients have left');

done_testing;
