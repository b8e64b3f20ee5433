# The connection limit of nginx's role: lanes beyond it are retried, and one worker without a lane answers 503.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $limit = sub { $pg->safe_psql("alter role ngx_pgq_web connection limit $_[0]") };
my $count = sub { $pg->safe_psql(q{select count(*) from pg_stat_activity where usename = 'ngx_pgq_web'}) };
my $line  = qr/\[error\].* pgq lane: could not connect to .*, retry in \d+ ms: .*too many connections for role "ngx_pgq_web"/;

$limit->(1);
my $nginx  = Pgq::Nginx->new(pg => $pg, pool => 'lanes=2', timeout => '1s',
    locations => 'location = /metrics { pgq_metrics; } location = /status { pgq_status; }')->start;
my $client = Pgq::Client->new($nginx);

ok($nginx->wait_for_log($line), 'the log says which limit is met');
is($client->post('/post', '"one lane"')->status, 202, 'the lanes below the limit work');
is($client->get('/get')->status, 503, 'GET, which has no lane below the limit, is refused in time');
is($count->(), 1, 'and the limit holds');
cmp_ok(scalar(() = $nginx->log_since(0) =~ /pgq lane: (?:lost|could not connect to)/g), '<=', 2, 'the log has one line a lane, not one a try');

like($client->get('/metrics')->body, qr/^pgq_lanes\{pool="main",state="down"\} 1$/m, 'the metrics show a lane without a connection');
is($client->get('/status')->json->{status}, 'ok', 'and the status is that of all lanes together');

$limit->(0);
$pg->safe_psql(q{select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ngx_pgq_web'});
my $answer = $client->post('/post', '"no lane"');
is($answer->status, 503, 'without a lane a message is refused');
is($answer->json->{code}, 'no_database', 'as if no database were there');
like($answer->{headers}{'retry-after'}, qr/^[1-9]\d*$/, 'with Retry-After');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"no lane"'}), 0, 'and is not kept');

$limit->(-1);
ok((poll_until { $client->post('/post', '"again"')->status == 202 }), 'when the limit is raised nginx goes on by itself');
ok((poll_until { $client->get('/get')->status == 200 }), 'with GET, too');

# ---- what an installation needs

my $parameter = Pgq::Host::slurp('ngx_pgq_module/ngx_pgq_parameter.c');
my ($lanes)   = $parameter =~ /db->nlanes = (\d+);/;
my ($reads)   = $parameter =~ /db->read_lanes = (\d+);/;
my ($each)    = Pgq::Host::slurp('provision/dev/run') =~ /^connections=\$\(\((\d+) \* /m;

is($each, 2 * ($lanes + $reads + 2), 'make run allows what a worker needs, and its predecessor while nginx reloads');

done_testing;
