# Consumers and the rest of nginx: locations and requests that nginx creates itself, bodies, several pools and workers, clients
# that leave at each moment, HTTP/2, a reload and a binary upgrade.

use Pgq;
use Pgq::Host qw(free_port spew);
use Pgq::Http2;

my $port  = free_port();
my %http2 = Pgq::Nginx->http2;
my $pg    = Pgq::Postgres->new->start;
my $base  = $pg->conninfo(user => 'ngx_pgq_web');
my $nginx = Pgq::Nginx->new(
    pg => $pg, workers => 2, daemon => 'on', main => join(' ', map { "env $_;" } qw(LD_PRELOAD ASAN_OPTIONS UBSAN_OPTIONS)),
    pools => qq{pgq_pool main "$base" lanes=1 answer_size=4m; pgq_ring main; pgq_pool bare "$base" lanes=1;},
    http  => "server { listen 127.0.0.1:$port @{[ $http2{listen} // '' ]}; @{[ $http2{server} // '' ]} location /sub/ { pgq_subscription main; } }",
    locations => <<'END')->start;
    location /sub/    { pgq_subscription main; }
    location /again/  { pgq_subscription main; }
    location /bare/   { pgq_subscription bare; }
    location /if/     { pgq_subscription main; if ($http_x) { add_header Y 1; } }
    location /except/ { pgq_subscription main; limit_except GET POST { deny all; } }
    location /file/   { pgq_subscription main; client_body_in_file_only clean; client_body_buffer_size 16; }
    location /from/   { rewrite ^/from/(.*) /sub/$1 last; }
    location /try     { try_files /nothing /sub/jobs?$args; }
    location /whole   { proxy_pass http://127.0.0.1:1; error_page 502 = /sub/jobs?$args; }
    location = /included { ssi on; ssi_types *; root .; }
END

sub client { return Pgq::Client->new($nginx) }
sub get { my ($path, @headers) = @_; return client()->get($path, @headers) }
sub put { my ($path, $body) = @_; return client()->method('PUT', $path, $body)->status }
sub ids { return join ' ', map { $_->{id} } @{ $_[0]->json->{msg} } }
sub insert { $pg->safe_psql("insert into ngx_pgq.queue (data, topic) values ('1', '$_[0]')"); return $pg->wait_until_moved }
sub backends { return split /\n/, $pg->safe_psql(q{select pid from pg_stat_activity where usename = 'ngx_pgq_web' and query ~ '_json'}) }

# ---- locations
is(put('/sub/jobs', '{"start":0}'), 201, 'a subscription');
insert('a');
my $answer = get('/again/jobs?lease=1000');
is(ids($answer), 1, 'another location of the pool');
my $lease = sprintf 'part=1&generation=%d', $answer->json->{generation};
is(ids(get("/bare/jobs?$lease")), 1, 'another pool, without a ring');
is(ids(get("/from/jobs?$lease")), 1, 'a rewritten URI');
is(ids(get("/try?$lease")), 1, 'try_files');
is(ids(get("/whole?$lease")), 1, 'error_page');
$answer = get("/if/jobs?$lease", X => 1);
is(ids($answer) . $answer->header('y'), 11, 'an if that is true');
is(ids(get("/except/jobs?$lease")), 1, 'a method that limit_except permits');
is(client()->method('DELETE', '/except/jobs')->status, 403, '... and one that it denies');
spew($nginx->dir . '/included', qq(a <!--# include virtual="/sub/jobs?$lease" --> b <!--# include virtual="/sub/none?wait=60" --> c <!--# include virtual="/sub/jobs?wait=1" --> d));
like(get('/included')->body, qr/\Aa \{"msg":\[\{"id":1,.*\} b \{.*"no_subscription".*\} c \{"msg":\[\]\} d\z/, 'subrequests');

# ---- bodies
is(put('/file/file', '{"topics":["' . join('","', 1 .. 64) . '"]}'), 201, 'a body in a file');
is($pg->safe_psql(q{select cardinality(topics) from ngx_pgq.subscription where name = 'file'}), 64, '... is read whole');
my $body   = sprintf '{"upto":1,"generation":%d}', $lease =~ /(\d+)$/;
my $client = client();
$client->send("POST /sub/jobs/ack HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: @{[ length $body ]}\r\n\r\n");
is($client->answer(interim => 1)->status, 100, 'a client that waits for 100 Continue gets it');
$client->send($_) for split //, $body;
is($client->answer->status, 204, '... and its body may come byte by byte');
$client = client();
$client->send("POST /sub/jobs/ack HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
$client->close;
$client = client();
$client->send("GET /sub/jobs?wait=60 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
$client->close;
$client = client();
$client->send("GET /sub/file?wait=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    . "DELETE /sub/file HTTP/1.1\r\nHost: x\r\n\r\nGET /sub/file HTTP/1.1\r\nHost: x\r\n\r\nPUT /sub/file HTTP/1.1\r\nHost: x\r\n\r\n");
is(join(' ', map { $client->answer->status } 1 .. 4), '200 204 404 201', 'requests that are pipelined are answered in order');

# ---- clients that leave
put('/sub/wait', '{"topics":["none"]}');
my @waiting = map { client()->send_get("/sub/wait?wait=60&part=1") } 1 .. 20;
my $http2   = Pgq::Http2->new($nginx, port => $port);
my @streams = map { $http2->request('GET', '/sub/wait?wait=60') } 1 .. 20;
ok((poll_until { backends() >= 1 && $pg->safe_psql(q{select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and query ~ 'fetch_json' and state <> 'idle'}) == 0 }), 'consumers wait');
$http2->reset($_) for @streams[ 0 .. 9 ];
(shift @waiting)->close for 1 .. 10;
my @stopped = backends();
kill 'STOP', @stopped;
my @asking = map { client()->send_get('/sub/wait') } 1 .. 20;
my $other  = Pgq::Http2->new($nginx, port => $port);
my @others = map { $other->request('GET', "/sub/wait?limit=$_") } 1 .. 20;
my @acks   = map { client()->send_post('/sub/wait/ack', '{"upto":0,"generation":0}') } 1 .. 4;
my @puts   = map { client()->send_post('/sub/put', '{}') } 1 .. 4;
$nginx->wait_until_received for 1 .. 4;
$_->close for splice(@asking, 0, 10), splice(@acks, 0, 2);
$other->reset($_) for @others[ 0 .. 9 ];
$http2->close;
$nginx->wait_until_received for 1 .. 4;
kill 'CONT', @stopped;
is(join('', map { $_->answer->body } @asking), '{"msg":[]}' x 10, 'clients that have not left while others did are answered');
is(join(' ', map { $_->answer->status } @acks), '204 204', '... also those that acknowledge');
$other->wait_for_answers(10);
$other->close;

# ---- an answer that is not read
put('/sub/large', '{}');
$pg->safe_psql(q{insert into public.posts (message_id, at, data) select gen_random_uuid(), now(), to_json(repeat('x', 1000000)) from generate_series(1, 3)});
my $deaf = Pgq::Client->new($nginx, buffer => 1)->send_get('/sub/large?lease=1');
ok((poll_until { $pg->safe_psql(q{select generation > 0 from ngx_pgq.progress where name = 'large'}) eq 't' }), 'a client does not read its posts');
$deaf->close;
cmp_ok(length(client()->get('/sub/large?wait=60&lease=1')->body), '>', 3_000_000, '... and leaves: another one gets them');

# ---- a reload and a binary upgrade, while consumers wait
@waiting = (@waiting, map { client()->send_get("/bare/wait?wait=60") } 1 .. 10);
$nginx->reload;
is(join('', map { $_->answer->body } @waiting), '{"msg":[]}' x 20, 'consumers that wait are answered during a reload');
@waiting = map { (client()->send_get('/sub/wait?wait=60'), client()->send_get('/bare/wait?wait=60')) } 1 .. 10;
$nginx->wait_until_received for 1 .. 4;
$nginx->upgrade;
is(join('', map { $_->answer->body } @waiting), '{"msg":[]}' x 20, '... and during an upgrade of the binary');
is(ids(get("/sub/large?wait=60")), '2 3 4', 'the new one serves consumers');

$nginx->allow(qr/connect\(\) failed|pgq lane:/);

done_testing;
