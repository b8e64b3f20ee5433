# A client that does not read its answers and then closes its connection leaves no connection behind in nginx: over HTTP/1.1
# with pipelined answers that fill the socket, over HTTP/2 with a window of 0.

use Pgq;
use Pgq::Http2;

my $pg = Pgq::Postgres->new->start;
$pg->safe_psql(q{alter table ngx_pgq.queue add constraint no_bad check (data::text <> '"bad"')});

my $base    = $pg->conninfo(user => 'ngx_pgq_web');
my $nowhere = 'host=127.0.0.1 port=' . Pgq::Host::free_port();
my $pools   = qq{pgq_pool main "$base"; pgq_pool tiny "$base" size=1k; pgq_pool full "$nowhere" tickets=1; pgq_pool nowhere "$nowhere";};

my $locations = <<'END';
location = /required { pgq_idempotency required; pgq_post main; }
location = /few      { pgq_lines 1; pgq_post main; }
location = /tiny     { pgq_post tiny; }
location = /full     { pgq_timeout 5m; pgq_post full; }
location = /get/full { pgq_get full; }
location = /nowhere  { pgq_timeout 100ms; pgq_post nowhere; }
location = /get/none { pgq_timeout 100ms; pgq_get nowhere; }
location = /metrics  { pgq_metrics; }
location = /status   { pgq_status; }
client_max_body_size 8k;
END

my $json = 'application/json';
my $many = 'application/x-ndjson';

# [request, method, path, body, headers]
my @requests = (
    [ 'an empty message',               'POST',    '/post',         '' ],
    [ 'a message that is not JSON',     'POST',    '/post',         '{',        'Content-Type' => $json ],
    [ 'a text that is not UTF-8',       'POST',    '/post',         "\xff",     'Content-Type' => 'text/plain' ],
    [ 'a malformed key',                'POST',    '/post',         '1',        'Idempotency-Key' => '"' ],
    [ 'a missing key',                  'POST',    '/required',     '1' ],
    [ 'an empty line',                  'POST',    '/post',         "\n",       'Content-Type' => $many ],
    [ 'an invalid line',                'POST',    '/post',         "1\n{\n",   'Content-Type' => $many ],
    [ 'too many lines',                 'POST',    '/few',          "1\n2\n",   'Content-Type' => $many ],
    [ 'a message longer than size=', 'POST', '/tiny',       '"' . 'x' x 2000 . '"' ],
    [ 'a body longer than client_max_body_size', 'POST',    '/post',         'x' x 9000 ],
    [ 'a message with a content coding', 'POST',    '/post',         '1',        'Content-Encoding' => 'gzip' ],
    [ 'a full queue',                   'POST',    '/full',         '1' ],
    [ 'no database',                    'POST',    '/nowhere',      '1' ],
    [ 'a message refused by the database', 'POST', '/post',         '"bad"' ],
    [ 'lines refused by the database',  'POST',    '/post',         "\"bad\"\n", 'Content-Type' => $many ],
    [ 'a key in progress',              'POST',    '/post',         '"flight"', 'Idempotency-Key' => '"flight"' ],
    [ 'a key of another message',       'POST',    '/post',         '"other"',  'Idempotency-Key' => '"used"' ],
    [ 'a replay',                       'POST',    '/post',         '"used"',   'Idempotency-Key' => '"used"' ],
    [ 'a message that is accepted',     'POST',    '/post',         '"' . 'y' x 2000 . '"' ],
    [ 'lines that are accepted',        'POST',    '/post',         "1\n2\n",   'Content-Type' => $many ],
    [ 'a wrong method for POST',        'DELETE',  '/post' ],
    [ 'a wrong method for GET',         'POST',    '/get',          '1' ],
    [ 'a wrong method for /status',    'POST',    '/status',       '1' ],
    [ 'OPTIONS for POST',               'OPTIONS', '/post' ],
    [ 'OPTIONS for GET',                'OPTIONS', '/get' ],
    [ 'a wrong argument',               'GET',     '/get?limit=0' ],
    [ 'a full queue for GET',           'GET',     '/get/full' ],
    [ 'no database for GET',            'GET',     '/get/none' ],
    [ 'posts',                          'GET',     '/get' ],
    [ 'HEAD of posts',                  'HEAD',    '/get' ],
    [ 'metrics',                        'GET',     '/metrics' ],
    [ 'the status',                     'GET',     '/status' ],
    [ 'an unknown path',                'GET',     '/nothing' ],
);

# Another transaction holds a key. begin() then uses a key, and fills the queues of POSTs and of GETs.
my $holder = $pg->session;
$holder->query(q{begin; select * from ngx_pgq.enqueue_keyed('018f3c5a-0000-7000-8000-000000000001',
    array['018f3c5a-0000-7000-8000-000000000002']::uuid[], array['"flight"'], array['flight'])});

sub begin {
    my ($nginx) = @_;
    my @waiting = (Pgq::Client->new($nginx)->send_post('/full', '1'), Pgq::Client->new($nginx)->send_get('/get/full'));
    Pgq::Client->new($nginx)->post('/post', '"used"', 'Idempotency-Key' => '"used"');
    Pgq::Client->new($nginx)->get('/get');
    return @waiting;
}

# Returns the number of sockets when all lanes are connected: two of each of two pools, and one for GETs.
sub sockets {
    my ($nginx) = @_;
    $pg->poll_query_until(q{select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and state = 'idle'}, 5);
    return scalar(() = $nginx->sockets);
}

sub sockets_return {
    my ($nginx, $before, $what) = @_;
    my $after;
    ok((poll_until { ($after = () = $nginx->sockets) <= $before } 20), "$what: no connection remains")
        or diag("there may be $before sockets, there are $after");
    return;
}

{
    my $nginx = Pgq::Nginx->new(
        pg => $pg, pools => $pools, listen => 'rcvbuf=4k sndbuf=4k', locations => $locations, http => 'keepalive_requests 100000; lingering_time 1s;',
    )->start;
    my @waiting = begin($nginx);
    my $before  = sockets($nginx);

    my @clients = map {
        my ($what, $method, $path, $body, %headers) = @$_;
        my $client = Pgq::Client->new($nginx, buffer => 4096);
        $client->flood($client->request($method, $path, body => $body, headers => \%headers), 0.2);
    } @requests;

    is(Pgq::Client->new($nginx)->post('/post', '1')->{status}, 202, 'HTTP/1.1: a message is accepted while other clients do not read');

    for my $case (@requests) {
        (shift @clients)->close;
        sockets_return($nginx, $before + @clients, "HTTP/1.1, $case->[0]");
    }

    $_->close for @waiting;
    is($nginx->stop, 0, 'HTTP/1.1: nginx quits after the clients have left');
}

{
    my $nginx = Pgq::Nginx->new(
        pg => $pg, pools => $pools, locations => $locations, main => 'worker_rlimit_nofile 4096;',
        Pgq::Nginx->http2,
    )->start;
    my $waiting = Pgq::Http2->new($nginx);
    $waiting->request('POST', '/full', body => '1');
    $waiting->request('GET', '/get/full');
    $waiting->request('POST', '/post', body => '"used"', headers => { 'idempotency-key' => '"used"' });
    $waiting->request('GET', '/get');
    $waiting->wait_for_answers(2);
    my $before = sockets($nginx);

    for my $case (@requests) {
        my ($what, $method, $path, $body, %headers) = @$case;
        my $client = Pgq::Http2->new($nginx, window => 0);
        $client->request($method, $path, body => $body, headers => \%headers) for 1 .. 3;
        ok($client->wait_for_answers(3), "HTTP/2, $what: the request is answered");
        $client->close;
        sockets_return($nginx, $before, "HTTP/2, $what");
    }

    my $client = Pgq::Http2->new($nginx, window => 0);
    $client->request('POST', '/post') for 1 .. 100;
    ok($client->wait_for_answers(100), 'HTTP/2: a hundred requests that are refused and not read are answered');
    $_->close for $client, $waiting;
    is($nginx->stop, 0, 'HTTP/2: nginx quits after the clients have left');
}

$holder->quit;

done_testing;
