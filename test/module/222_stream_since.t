# Streams whose beginning PostgreSQL is asked for (since=) keep the limits of streams and of waiting requests.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pools     => 'pgq_pool main "' . $pg->conninfo(user => 'ngx_pgq_web') . '" tickets=4; pgq_ring main;',
    locations => 'location = /stream { pgq_stream main; pgq_readers 2; } location = /metrics { pgq_metrics; }',
)->start;

$pg->safe_psql('select ngx_pgq.time_index()');
$pg->safe_psql("insert into ngx_pgq.queue (data) values ('1')");
$pg->wait_until_moved;

sub problem { my ($answer, $code, $name) = @_; is($answer && $answer->json->{code}, $code, $name); return }

my $lock    = $pg->lock_table('posts');
my @clients = map { Pgq::Client->new($nginx)->send_get("/stream?since=${_}h") } 1 .. 4;
$nginx->wait_until_received;
problem(Pgq::Client->new($nginx)->get('/stream?since=5h'), 'queue_full', 'a stream above tickets= that would ask is refused');
$lock->query('rollback');

ok((poll_until { $nginx->metric('pgq_open_readers{pool="main",transport="sse"}') == 2 }), 'when the database answers, as many streams as pgq_readers begin');
my ($begun, $refused) = (0, 0);
for my $client (@clients) {
    my $head = '';
    $client->socket->blocking(1);
    sysread $client->socket, $head, 12;
    $begun++   if $head eq 'HTTP/1.1 200';
    $refused++ if $head eq 'HTTP/1.1 503';
}
is("$begun $refused", '2 2', 'the others are refused');
problem(Pgq::Client->new($nginx)->get('/stream?since=5h'), 'readers_full', 'so is one more');

done_testing;
