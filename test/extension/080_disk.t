# A full disk: the mover backs off and makes no dead letter, producers continue while the queue has space, and each
# message is moved once when there is space again.

use Pgq;
use Pgq::SqlLoad;
use Pgq::Disk;

my $cannot = Pgq::Disk::cannot();
plan(skip_all => $cannot) if $cannot;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\n");

# ---- posts

$pg->start;
my $small = Pgq::Disk->new('small', 16);
$pg->safe_psql($_) for "create tablespace small location '@{[ $small->dir ]}'", 'alter table posts set tablespace small',
    'alter index posts_pkey set tablespace small', 'grant create on tablespace small to ngx_pgq_owner';

my $load   = Pgq::SqlLoad->new($pg)->start;
my $state  = "select count(*) > 0 from ngx_pgq.status where state = 'backing off' and last_error ~ 'SQLSTATE 53100'";
$load->wait_for(5);
$small->fill;

ok($pg->poll_query_until($state), 'a mover backs off when posts has no space');
ok($load->wait_for(20), 'producers continue while posts has no space');
is($pg->safe_psql('select count(*) > 0 from ngx_pgq.queue'), 't', 'messages stay in the queue while posts has no space');
my $errors = $pg->safe_psql('select sum(errors) from ngx_pgq.status');
ok($pg->poll_query_until("select sum(errors) > $errors from ngx_pgq.status"), 'the mover retries the batch');

# batches of one message, where bisection could mistake a good message for a bad one
$pg->set('ngx_pgq.batch_size' => 1);
$errors = $pg->safe_psql('select sum(errors) from ngx_pgq.status');
ok($pg->poll_query_until("select sum(errors) > $errors + 1 from ngx_pgq.status"), 'the mover retries a batch of one message');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'a full disk makes no dead letter');
$pg->set('ngx_pgq.batch_size' => undef);

$small->make_space;
ok($load->wait_for(5), 'posts has space again: producers continue');
is(join("\n", splice @{ [ $load->stop->complaints ] }, 0, 10), '', 'posts has space again: each acknowledged message is posted once, no other');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'there is no dead letter');
cmp_ok(scalar(() = $pg->log_since(0) =~ /No space left/g), '<', 20, 'the log is not filled');

# ---- the queue

$pg->safe_psql($_) for 'alter table posts set tablespace pg_default',
    map({ "alter table ngx_pgq.queue_$_ set tablespace small" } 0 .. 3);

$load = Pgq::SqlLoad->new($pg)->start;
$load->wait_for(5);
$small->fill;
my $refused = sub {
    my ($status, $out, $err) = $pg->psql(q{
        \set VERBOSITY sqlstate
        select * from ngx_pgq.enqueue(gen_random_uuid(),
            (select array_agg(gen_random_uuid()) from generate_series(1, 2000)),
            (select array_agg('"' || repeat(md5(n::text), 30) || '"') from generate_series(1, 2000) n))});
    return $status && $err =~ /53100/;
};
ok((poll_until { $refused->() }), 'enqueue() fails with 53100 when the queue has no space');
$small->make_space;
ok($load->wait_for(5), 'the queue has space again: producers continue');
is(join("\n", splice @{ [ $load->stop->complaints ] }, 0, 10), '', 'the queue has space again: each acknowledged message is posted once, no other');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'there is no dead letter');
$pg->stop;

# ---- the WAL, with ngx_pgq.min_free_space

my $wal = Pgq::Disk->new('wal', 24);
Pgq::Host::run([ 'cp', '-a', $pg->data . '/pg_wal/.', $wal->dir ]);
Pgq::Host::run([ 'rm', '-r', $pg->data . '/pg_wal' ]);
symlink $wal->dir, $pg->data . '/pg_wal' or die "pg_wal: $!\n";
$pg->start;

my $enqueue   = 'select count(*) from ngx_pgq.enqueue($$%s$$, array[gen_random_uuid()], array[$$"space"$$])';
my $batch = $pg->safe_psql('select gen_random_uuid()');
my $result_of = sub { my ($status, $out, $err) = $pg->psql('\set VERBOSITY sqlstate' . "\n" . sprintf $enqueue, $_[0] // $pg->safe_psql('select gen_random_uuid()'));
    return $status ? ($err =~ /ERROR:  (\w{5})/)[0] : 'accepted' };

is($result_of->($batch), 'accepted', 'a message is accepted while there is space');
$pg->set('ngx_pgq.min_free_space' => '30MB');
ok((poll_until { $result_of->() eq '53100' }), 'a message is refused when less than ngx_pgq.min_free_space is free');
is($result_of->($batch), 'accepted', 'a batch that was enqueued before is accepted again');
ok($pg->wait_until_moved, 'messages are moved while less than ngx_pgq.min_free_space is free');

my $nginx = Pgq::Nginx->new(pg => $pg, timeout => '2s')->start;
my $answer = Pgq::Client->new($nginx)->post('/post', '"no space"');
is($answer->status, 503, 'nginx answers 503 when a message is refused for lack of space');
cmp_ok($answer->header('retry-after') // 0, '>', 0, 'the 503 has a Retry-After');
ok($nginx->log_contains(qr/cannot enqueue while less than 30 MB are free in "pg_wal" \(53100/), 'the log of nginx has the reason');
$pg->set('ngx_pgq.min_free_space' => undef);
ok((poll_until { Pgq::Client->new($nginx)->post('/post', '"enough space"')->status == 202 }), 'nginx answers 202 when ngx_pgq.min_free_space is reset');
$nginx->stop;
is($pg->safe_psql(q(select count(*) from posts where data::text = '"no space"')), 0, 'the refused message is not posted');

# ---- the WAL, without ngx_pgq.min_free_space

$pg->allow(qr/PANIC:.*No space left|terminated by signal 6/);
$load = Pgq::SqlLoad->new($pg)->start;
$load->wait_for(5);
$wal->fill;
my $position = $pg->log_position;
ok((poll_until {
    $pg->psql(q{insert into ngx_pgq.queue (data) select to_json(repeat(md5(n::text), 50)) from generate_series(1, 500) n});
    $pg->log_contains(qr/PANIC:.*No space left/, $position);
} 60), 'the server panics when the WAL has no space');
$wal->make_space;
poll_until { !$pg->running || !($pg->psql('select 1'))[0] };
$pg->stop->start if !$pg->running;
ok($load->wait_for(5), 'the WAL has space again: producers continue after a start');
is(join("\n", splice @{ [ $load->stop->complaints ] }, 0, 10), '', 'the WAL has space again: each acknowledged message is posted once, no other');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'there is no dead letter');

done_testing;
