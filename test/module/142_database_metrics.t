# P10: with a pool pgq_metrics shows the state of the queue and of the movers too. The page never waits long for the database.

use Pgq;
use Time::HiRes qw(time);

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', locations => 'location = /metrics { pgq_metrics main; }')->start;

sub page { return Pgq::Client->new($nginx)->get('/metrics')->body }
sub shows { my ($line) = @_; return poll_until { page() =~ /^\Q$line\E$/m } 10 }

# ---- the database's part
ok(shows('pgq_database_up 1'), 'the page says that the database has answered');
Pgq::Client->new($nginx)->post('/post', '1');
ok(shows('pgq_moved_messages_total{mover="1"} 1'), 'a moved message is counted');
ok(shows('pgq_movers{state="idle"} 1'), 'the mover is idle');
like(page(), qr/^pgq_queue_messages\{slot="0"\} 0\n.*^pgq_queue_messages\{slot="3"\} 0\n/ms, 'each slot of the queue is shown');
like(page(), qr/^pgq_queue_oldest_seconds 0\n/m, 'no message waits');
like(page(), qr/^pgq_transaction_id_age [1-9]\d*\n/m, 'the age of transaction ids is shown');

$pg->safe_psql('select ngx_pgq.pause()');
Pgq::Client->new($nginx)->post('/post', $_) for 1 .. 3;
ok(shows('pgq_movers{state="paused"} 1'), 'a paused mover is shown');
like(page(), qr/^pgq_queue_messages\{slot="\d"\} 3\n/m, 'messages that wait are counted');
like(page(), qr/^pgq_queue_oldest_seconds 0\.[0-9]*[1-9]|^pgq_queue_oldest_seconds [1-9]/m, 'the age of the oldest is shown');
$pg->safe_psql('select ngx_pgq.resume()');

# ---- the page has one form, and the same methods as without a pool
my @lines = grep { !/^(?:# (?:HELP|TYPE) pgq_\w+ \S.*|pgq_\w+(?:\{[^}]*\})? [\d.]+)$/ } split /\n/, page();
is("@lines", '', 'each line is one of the text format');
is(Pgq::Client->new($nginx)->get('/metrics')->header('content-type'), 'text/plain; version=0.0.4; charset=utf-8', 'the type is that of the text format');
is(Pgq::Client->new($nginx)->post('/metrics', '1')->status, 405, 'a POST is refused');

# ---- a database that does not answer, does not exist, or refuses
$pg->safe_psql('alter function ngx_pgq.metrics() rename to metrics_of_now');
$pg->safe_psql(q{create function ngx_pgq.metrics() returns text language sql as 'select pg_sleep(3600)::text'});
$pg->safe_psql('grant execute on function ngx_pgq.metrics() to ngx_pgq_web');

my $client = Pgq::Client->new($nginx);
$client->send("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where query like '%ngx_pgq.metrics()' and wait_event = 'PgSleep'}, 1),
    'the database is busy with the metrics');
not_blocked($nginx, 'while the database is busy');
undef $client;

my $start = time;
like(page(), qr/^pgq_workers 1\n.*^pgq_database_up 0\n\z/ms, 'the page has its other part when the database does not answer');
cmp_ok(time - $start, '<', timeout(2), 'it waits for a second');

$pg->safe_psql(q{select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'});
$pg->safe_psql('drop function ngx_pgq.metrics()');
ok(shows('pgq_database_up 0'), 'the page says so when the function does not exist');
$pg->safe_psql('alter function ngx_pgq.metrics_of_now() rename to metrics');
ok(shows('pgq_database_up 1'), 'it has the metrics again when the function exists');

$pg->stop;
ok(shows('pgq_database_up 0'), 'the page says so when there is no database');

# ---- the configuration
for my $case ([ 'pgq_metrics nowhere;', qr/unknown pgq_pool "nowhere"/ ], [ 'pgq_metrics main main;', qr/invalid number of arguments/ ],
    [ 'pgq_metrics main; pgq_metrics;', qr/is duplicate/ ]) {
    my ($directive, $error) = @$case;
    my ($status, $output) = $nginx->configure(locations => "location = /metrics { $directive }")->test;
    like($output, $error, "nginx refuses: $directive");
}

done_testing;
