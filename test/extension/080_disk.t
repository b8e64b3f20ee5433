# A full disk is nobody's fault: the mover waits and blames no message, producers go on as long as they can, and when
# there is space again each message is moved once.

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

my $load  = Pgq::SqlLoad->new($pg)->start;
my $state  = "select count(*) > 0 from ngx_pgq.status where state = 'backing off' and last_error ~ 'SQLSTATE 53100'";
$load->wait_for(5);
$small->fill;

ok($pg->poll_query_until($state), 'posts have no space: the mover waits');
ok($load->wait_for(20), 'producers go on');
is($pg->safe_psql('select count(*) > 0 from ngx_pgq.queue'), 't', 'their messages wait');
my $errors = $pg->safe_psql('select sum(errors) from ngx_pgq.status');
ok($pg->poll_query_until("select sum(errors) > $errors from ngx_pgq.status"), 'it is tried again and again');

# the same for a message that stands alone, which would be the one to blame
$pg->safe_psql('alter system set ngx_pgq.batch_size = 1');
$pg->reload;
$errors = $pg->safe_psql('select sum(errors) from ngx_pgq.status');
ok($pg->poll_query_until("select sum(errors) > $errors + 1 from ngx_pgq.status"), 'also one by one');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'no message is blamed');
$pg->safe_psql('alter system reset ngx_pgq.batch_size');
$pg->reload;

$small->make_space;
ok($load->wait_for(5), 'there is space: producers go on');
is(join("\n", splice @{ [ $load->stop->complaints ] }, 0, 10), '', 'and each message is moved once');
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
ok((poll_until { $refused->() }), 'the queue has no space: who enqueues is told');
$small->make_space;
ok($load->wait_for(5), 'there is space: producers go on');
is(join("\n", splice @{ [ $load->stop->complaints ] }, 0, 10), '', 'each message acknowledged is moved once, none of the others');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'there is no dead letter');
$pg->stop;

# ---- the WAL: with ngx_pgq.min_free_space nobody can fill it by enqueue

my $wal = Pgq::Disk->new('wal', 24);
Pgq::Host::run([ 'cp', '-a', $pg->data . '/pg_wal/.', $wal->dir ]);
Pgq::Host::run([ 'rm', '-r', $pg->data . '/pg_wal' ]);
symlink $wal->dir, $pg->data . '/pg_wal' or die "pg_wal: $!\n";
$pg->start;

my $ask   = 'select count(*) from ngx_pgq.enqueue($$%s$$, array[gen_random_uuid()], array[$$"room"$$])';
my $batch = $pg->safe_psql('select gen_random_uuid()');
my $asked = sub { my ($status, $out, $err) = $pg->psql('\set VERBOSITY sqlstate' . "\n" . sprintf $ask, $_[0] // $pg->safe_psql('select gen_random_uuid()'));
    return $status ? ($err =~ /ERROR:  (\w{5})/)[0] : q(taken) };

is($asked->($batch), 'taken', 'a message');
$pg->safe_psql(q(alter system set ngx_pgq.min_free_space = '30MB'; select pg_reload_conf()));
ok((poll_until { $asked->() eq '53100' }), 'is refused while less is free');
is($asked->($batch), 'taken', 'a batch that was taken is recognised');
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0), 'what waits is moved');

my $nginx = Pgq::Nginx->new(pg => $pg, timeout => '2s')->start;
my $answer = Pgq::Client->new($nginx)->post('/post', '"no room"');
is($answer->status, 503, 'nginx says that it cannot be taken now');
cmp_ok($answer->header('retry-after') // 0, '>', 0, '... and when to come back');
ok($nginx->log_contains(qr/cannot enqueue while less than 30 MB are free in "pg_wal" \(53100/), '... and why, in its log');
$pg->safe_psql('alter system reset ngx_pgq.min_free_space; select pg_reload_conf()');
ok((poll_until { Pgq::Client->new($nginx)->post('/post', '"there is room"')->status == 202 }), 'and then it is');
$nginx->stop;
is($pg->safe_psql(q(select count(*) from posts where data::text = '"no room"')), 0, 'what was refused is not there');

# ---- without it the server can only end

$pg->allow(qr/PANIC:.*No space left|terminated by signal 6/);
$load = Pgq::SqlLoad->new($pg)->start;
$load->wait_for(5);
$wal->fill;
my $position = $pg->log_position;
ok((poll_until {
    $pg->psql(q{insert into ngx_pgq.queue (data) select to_json(repeat(md5(n::text), 50)) from generate_series(1, 500) n});
    $pg->log_contains(qr/PANIC:.*No space left/, $position);
} 60), 'the WAL has no space: the server ends');
$wal->make_space;
poll_until { !$pg->running || !($pg->psql('select 1'))[0] };
$pg->stop->start if !$pg->running;
ok($load->wait_for(5), 'there is space, it is started: producers go on');
is(join("\n", splice @{ [ $load->stop->complaints ] }, 0, 10), '', 'and each message is moved once');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'there is no dead letter');

done_testing;
