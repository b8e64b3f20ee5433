# P10: with a pool pgq_status shows the lag of subscriptions. The answer says as before whether the pools are connected, and waits
# for the database a second at most, and not at all without a connection.

use Pgq;
use Time::HiRes qw(time);

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', locations => <<'END')->start;
    location = /status { pgq_status main; }
    location = /health { pgq_status; }
    location = /metrics { pgq_metrics main; }
END

sub status { my ($uri) = @_; return Pgq::Client->new($nginx)->get($uri // '/status') }
sub subscriptions { return status()->json->{subscriptions} }

poll_until { status('/health')->status == 200 };

# ---- the subscriptions
is_deeply(subscriptions(), [], 'without a subscription the array is empty');
is(join(' ', sort keys %{ status()->json }), 'pools status subscriptions workers', 'the page has the other members as well');
ok(!exists status('/health')->json->{subscriptions}, 'without a pool the page has no subscriptions');

$pg->safe_psql(q{insert into posts (at, message_id, data) select now(), gen_random_uuid(), '1' from generate_series(1, 5)});
$pg->safe_psql(q{select ngx_pgq.subscribe('billing', start => 2, parts => 2); select count(*) from ngx_pgq.fetch('billing', part => 2)});
my @parts = sort { $a->{part} <=> $b->{part} } @{ subscriptions() };
is(join(' ', map { "$_->{name} $_->{part} $_->{lag}" } @parts), 'billing 1 3 billing 2 3', 'each part is shown with its lag');
cmp_ok($parts[0]{oldest_seconds}, '>', 0, 'the age of the first post is shown');
ok(!defined $parts[0]{leased_until}, 'a part that no consumer has taken has no lease');
like($parts[1]{leased_until}, qr/^\d{4}-\d\d-\d\dT[\d:.]+\+00:00$/, 'the end of a lease is shown');

is(Pgq::Client->new($nginx)->method('HEAD', '/status')->status, 200, 'HEAD is answered');
is(Pgq::Client->new($nginx)->post('/status', '1')->status, 405, 'a POST is refused');
like(status()->body, qr/\}\n\z/, 'the page ends with a line feed');

# ---- many subscriptions
$pg->safe_psql(q{select count(ngx_pgq.subscribe(lpad(n::text, 63, 'n'), parts => 64)) from generate_series(1, 20) as n});
is(scalar @{ subscriptions() }, 1000, 'the page has 1000 parts');
my $metrics = Pgq::Client->new($nginx)->get('/metrics')->body;
cmp_ok(length $metrics, '>', 300_000, 'the metrics are a long page');
like($metrics, qr/^pgq_transaction_id_age \d+\n\z/m, 'the page is complete');
$pg->safe_psql(q{delete from ngx_pgq.subscription where name like 'n%'});

# ---- a database that refuses, does not answer, or is gone
$pg->safe_psql('alter function ngx_pgq.subscription_status() rename to status_of_now');
ok(!defined subscriptions(), 'the subscriptions are null when the database refuses');
is(status()->status, 200, 'the answer is 200');

$pg->safe_psql(q{create function ngx_pgq.subscription_status() returns text language sql as 'select pg_sleep(3600)::text'});
$pg->safe_psql('grant execute on function ngx_pgq.subscription_status() to ngx_pgq_web');
my $start = time;
my $slow  = status();
cmp_ok(time - $start, '<', timeout(2), 'the page waits for a second when the database does not answer');
ok(!defined $slow->json->{subscriptions}, 'its subscriptions are null');
is($slow->status, 200, 'the answer is 200 all the same');

$pg->stop;
poll_until { status('/health')->status == 503 };
$start = time;
my $down = status() for 1 .. 20;
cmp_ok(time - $start, '<', timeout(1), 'twenty pages do not wait for a database that is gone');
ok(exists status()->json->{subscriptions} && !defined subscriptions(), 'their subscriptions are null');
is(status()->status, 503, 'the answer is 503');

# ---- the configuration
for my $case ([ 'pgq_status nowhere;', qr/unknown pgq_pool "nowhere"/ ], [ 'pgq_status main main;', qr/invalid number of arguments/ ]) {
    my ($directive, $error) = @$case;
    my ($status, $output) = $nginx->configure(locations => "location = /status { $directive }")->test;
    like($output, $error, "nginx refuses: $directive");
}

done_testing;
