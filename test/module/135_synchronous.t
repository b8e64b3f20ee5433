# P1: a server that shall be synchronous and is not takes no message: nginx waits, and asks again, until it is.

use Pgq;

my $pg       = Pgq::Postgres->new(conf => "ngx_pgq.synchronous = on\n")->start;
my $password = $pg->set_password('ngx_pgq_web');
my $nginx    = Pgq::Nginx->new(pg => $pg, locations => 'location = /short { pgq_post main; pgq_timeout 300ms; }')->start;
my $client   = Pgq::Client->new($nginx);
my $position = $nginx->log_position;

sub enqueue { return $pg->psql(q{select count(*) from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['1'])}) }

# ---- nobody is waited for

my $answer = $client->post('/short', '"short"');
is($answer->status, 503, 'no message is taken');
cmp_ok($answer->header('Retry-After'), '>', 0, 'now');
$nginx->wait_for_log(qr/pgq lane: lost .* cannot enqueue without synchronous replication \(57P03/, $position);
like((enqueue())[2], qr/cannot enqueue without synchronous replication/, 'nor by SQL');
is($pg->safe_psql('insert into ngx_pgq.queue (data) values (\'"by hand"\'); select 1'), 1, 'but by hand');

my %call = (
    keyed => [ '/post', '"keyed"', 'Idempotency-Key' => '"k"' ],
    lines => [ '/post', qq("line 1"\n"line 2"\n), 'Content-Type' => 'application/x-ndjson' ],
    plain => [ '/post', '"plain"' ],
);
my %waits = map { $_ => Pgq::Client->new($nginx) } keys %call;

for my $kind (sort keys %call) {
    my ($path, $body, @headers) = @{ $call{$kind} };
    $waits{$kind}->send($client->request('POST', $path, body => $body, headers => { 'Content-Type' => 'application/json', @headers }));
}
ok(!$waits{$_}->answer(timeout => 0.3), "$_: waits") for sort keys %waits;

# ---- a standby is

my $standby = Pgq::Postgres->new(name => 'standby', backup_of => $pg)->start;
$pg->safe_psql(q{alter system set synchronous_standby_names = '*'});
$pg->reload;

is($waits{$_}->answer->status, 202, "$_: accepted when it is synchronous") for sort keys %waits;
is((enqueue())[0], 0, 'and so by SQL');
ok($pg->poll_query_until('select count(*) from posts', 6), 'each message is there, once');

is(($pg->psql("set synchronous_commit = remote_apply; select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['1'])"))[0], 0,
    'or when it has to show it, too');

# ---- and commits do not wait for it

isnt(($pg->psql("set synchronous_commit = $_; select ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['1'])"))[0], 0,
    "a session with synchronous_commit $_ is refused") for qw(off local remote_write);

$standby->stop;

done_testing;
