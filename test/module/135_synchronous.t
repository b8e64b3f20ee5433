# P1: with ngx_pgq.synchronous a server without synchronous replication accepts no message. nginx waits and tries again.

use Pgq;

my $pg       = Pgq::Postgres->new(conf => "ngx_pgq.synchronous = on\n")->start;
my $password = $pg->set_password('ngx_pgq_web');
my $nginx    = Pgq::Nginx->new(pg => $pg, locations => 'location = /short { pgq_post main; pgq_timeout 300ms; }')->start;
my $client   = Pgq::Client->new($nginx);
my $position = $nginx->log_position;

sub enqueue { return $pg->psql(q{select count(*) from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['1'])}) }

# ---- no standby
my $answer = $client->post('/short', '"short"');
is($answer->status, 503, 'a message is refused without synchronous replication');
cmp_ok($answer->header('Retry-After'), '>', 0, 'a message that is refused without synchronous replication is answered with Retry-After');
$nginx->wait_for_log(qr/pgq lane: lost .* cannot enqueue without synchronous replication \(57P03/, $position);
like((enqueue())[2], qr/cannot enqueue without synchronous replication/, 'enqueue() is refused without synchronous replication');
is($pg->safe_psql('insert into ngx_pgq.queue (data) values (\'"by hand"\'); select 1'), 1, 'a plain INSERT is accepted without synchronous replication');

my %call = (
    keyed => [ '/post', '"keyed"', 'Idempotency-Key' => '"k"' ],
    lines => [ '/post', qq("line 1"\n"line 2"\n), 'Content-Type' => 'application/x-ndjson' ],
    plain => [ '/post', '"plain"' ],
);
my %waits = map { $_ => Pgq::Client->new($nginx)->send_post(@{ $call{$_} }) } sort keys %call;
ok(!$waits{$_}->answer(timeout => 0.3), "$_: the message waits for synchronous replication") for sort keys %waits;

# ---- a synchronous standby
my $standby = Pgq::Postgres->new(name => 'standby', backup_of => $pg)->start;
$pg->set(synchronous_standby_names => '*');

is($waits{$_}->answer->status, 202, "$_: the message is accepted with synchronous replication") for sort keys %waits;
is((enqueue())[0], 0, 'enqueue() is accepted with synchronous replication');
ok($pg->poll_query_until('select count(*) from posts', 6), 'each accepted message is a post');

is(($pg->psql("set synchronous_commit = remote_apply; select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['1'])"))[0], 0,
    'enqueue() is accepted with synchronous_commit remote_apply');

# ---- a session whose commits do not wait for the standby
isnt(($pg->psql("set synchronous_commit = $_; select ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['1'])"))[0], 0,
    "enqueue() is refused with synchronous_commit $_") for qw(off local remote_write);

$standby->stop;

done_testing;
