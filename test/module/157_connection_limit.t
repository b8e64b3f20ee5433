# The connection limit of nginx's role: lanes above it are retried, and a worker without a lane answers 503.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $limit = sub { $pg->safe_psql("alter role ngx_pgq_web connection limit $_[0]") };
my $line  = qr/\[error\].* pgq lane: could not connect to .*, retry in \d+ ms: .*too many connections for role "ngx_pgq_web"/;

$limit->(1);
my $nginx  = Pgq::Nginx->new(pg => $pg, pool => 'lanes=2', timeout => '1s',
    locations => 'location = /metrics { pgq_metrics; } location = /status { pgq_status; }')->start;
my $client = Pgq::Client->new($nginx);

ok($nginx->wait_for_log($line), 'the log has the error of a lane above the limit');
is($client->post('/post', '"one lane"')->status, 202, 'a message is accepted by a lane below the limit');
is($client->get('/get')->status, 503, 'a GET is refused when its lane is above the limit');
is(scalar($pg->web_sessions), 1, 'the limit is not exceeded');
cmp_ok(scalar(() = $nginx->log_since(0) =~ /pgq lane: (?:lost|could not connect to)/g), '<=', 2, 'the error is logged once for each lane, not for each attempt');

like($client->get('/metrics')->body, qr/^pgq_lanes\{pool="main",state="down"\} 1$/m, 'the metrics show the lane that is not connected');
is($client->get('/status')->json->{status}, 'ok', 'the status is ok when one lane is connected');

$limit->(0);
$pg->terminate_web_sessions;
poll_until { $client->get('/status')->status == 503 };
my $answer = $client->post('/post', '"no lane"');
is_problem($answer, 503, 'no_database', 'a message that arrives while no lane is connected');
like($answer->{headers}{'retry-after'}, qr/^[1-9]\d*$/, 'a message that is refused without a lane is answered with Retry-After');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"no lane"'}), 0, 'a message that is refused without a lane is not a post');

$limit->(-1);
ok((poll_until { $client->post('/post', '"again"')->status == 202 }), 'a message is accepted after the limit is raised');
ok((poll_until { $client->get('/get')->status == 200 }), 'a GET is answered after the limit is raised');

# ---- the connections of an installation

my $parameter = Pgq::Host::slurp('ngx_pgq_module/database/ngx_pgq_parameter.c');
my ($lanes)   = $parameter =~ /db->nlanes = (\d+);/;
my ($reads)   = $parameter =~ /db->read_lanes = (\d+);/;
my ($each)    = Pgq::Host::slurp('provision/dev/run') =~ /^connections=\$\(\((\d+) \* /m;

is($each, 2 * ($lanes + $reads + 2), 'make run allows the connections of a worker and of its predecessor during a reload');

done_testing;
