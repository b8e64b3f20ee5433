# The ring of a pool has the newest posts, also after its follower was lost. The status page and the metrics show it.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    workers   => 2,
    ring      => 'size=1m posts=100 poll=500ms',
    locations => 'location = /status { pgq_status; } location = /metrics { pgq_metrics; }',
)->start;

sub ring {
    my $status = eval { Pgq::Client->new($nginx)->get('/status')->json } or return {};
    return $status->{pools}[0]{ring} // {};
}

sub newest { return $pg->safe_psql('select max(id) from posts') // 0 }

# Whether the ring has the newest post.
sub follows {
    return poll_until { my $newest = newest(); my $ring = ring(); return $newest && ($ring->{newest} // 0) == $newest } 20;
}

sub post { is(Pgq::Client->new($nginx)->post('/post', $_[0] // '{"a": 1}')->status, 202, 'POST answers 202'); return }

sub followers { return $pg->safe_psql(q{select count(*) from pg_stat_activity where query like '%ngx_pgq.follow(%' and pid <> pg_backend_pid()}) }

post();
ok(follows(), 'the ring has the first post');
is(ring()->{posts}, 1, 'it has one post');
post() for 1 .. 3;
ok(follows(), 'it has the next posts');
is(ring()->{posts}, 4, 'it has four posts');
is(followers(), 1, 'the host has one follower');

is($nginx->metric('pgq_ring_posts{pool="main"}'), 4, 'the metrics have the number of posts');
is($nginx->metric('pgq_ring_newest_id{pool="main"}'), newest(), '... and the newest id');

my $follower = ring()->{follower};
ok((grep { $_ == $follower } $nginx->worker_pids), 'the follower is a worker');

$nginx->allow(qr/exited on signal 9|pgq lane: lost/);
kill 'KILL', $follower;
ok(poll_until(sub { (ring()->{follower} // $follower) != $follower } , 20), 'another worker follows when the follower is killed');
post();
ok(follows(), 'the ring has the posts after that');

$follower = ring()->{follower};
kill 'STOP', $follower;
my $taken = poll_until { $nginx->log_since(0) =~ /pgq follower: started.*pgq follower: started.*pgq follower: started/s } 20;
ok($taken, 'another worker follows when the follower is stopped');
kill 'CONT', $follower;
ok(poll_until(sub { followers() == 1 }, 20), 'the one that was stopped closes its connection');
post();
ok(follows(), 'the ring has the posts after that as well');

$pg->safe_psql(q{select pg_terminate_backend(pid) from pg_stat_activity where query like '%ngx_pgq.follow(%' and pid <> pg_backend_pid()});
post();
ok(follows(), 'the follower connects again when its connection is lost');

# The mover sends a notification for each batch; a post that is not its own has none, as if it was lost.
$pg->safe_psql(q{insert into posts (at, message_id, data) values (now(), gen_random_uuid(), '"no notification"')});
ok(follows(), 'a post whose notification is lost is in the ring after a poll');

ok($nginx->reload, 'nginx reloads');
post();
ok(follows(), 'a new worker follows after a reload');
is(ring()->{posts}, 9, 'the posts are kept over the reload');
ok(poll_until(sub { followers() == 1 }, 20), 'the follower of the old workers has ended');

$pg->safe_psql('delete from posts where id = (select min(id) from posts)');
$pg->safe_psql('select ngx_pgq.refresh()');
ok(poll_until(sub { (ring()->{posts} // 0) == 8 }, 20), 'refresh() fills the ring again');
ok($nginx->log_contains(qr/pgq ring: reset, reading all posts again/), '... which is logged');
is($nginx->metric('pgq_ring_resets_total{pool="main"}'), 1, '... and counted');

# A follower that is away at the notification finds the change when it is back.
$pg->safe_psql('alter role ngx_pgq_web nologin');
$pg->safe_psql(q{select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ngx_pgq_web'});
ok(poll_until(sub { followers() == 0 }, 20), 'no follower is connected');
$pg->safe_psql('delete from posts where id = (select max(id) from posts where id < (select max(id) from posts))');
$pg->safe_psql('select ngx_pgq.refresh()');
$nginx->allow(qr/pgq lane: could not connect/);
is(ring()->{posts}, 8, 'the ring has the posts of before');
$pg->safe_psql('alter role ngx_pgq_web login');
ok(poll_until(sub { (ring()->{posts} // 0) == 7 }, 20), 'a follower that missed refresh() reads the posts again when it connects');

$nginx->configure(ring => 'size=2m posts=200 poll=500ms stale=1s');
ok($nginx->reload, 'nginx reloads with another size');
ok($nginx->log_contains(qr/pgq ring: created, 200 posts, 2097152 bytes, pool "main"/), 'the ring is created');
ok(follows(), '... and filled');

post('"' . 'x' x 600000 . '"');
ok(follows(), 'a post larger than a quarter of the ring is followed');

$pg->safe_psql('truncate posts restart identity');
$pg->safe_psql('select ngx_pgq.refresh()');
ok(poll_until(sub { my $ring = ring(); return defined $ring->{newest} && $ring->{newest} == 0 && !$ring->{posts} }, 20), 'posts may begin again');
post();
ok(follows(), 'the ring has the first post after that');

ok(!ring()->{stale}, 'a ring that is up to date is not stale');
$pg->stop;
ok(poll_until(sub { ring()->{stale} }, 20), 'without the database it gets stale');
$pg->start;
ok(poll_until(sub { my $ring = ring(); return defined $ring->{stale} && !$ring->{stale} }, 20), '... until the database is back');
post();
ok(follows(), '... and follows again');

for my $time (1 .. 10) {
    my $worker = ring()->{follower};
    kill 'KILL', $worker if $worker;
    poll_until { my $now = ring()->{follower}; return $now && $now != ($worker // 0) } 20;
    post();
}
ok(follows(), 'the ring has the newest post after its follower was killed ten times');
ok(poll_until(sub { followers() == 1 }, 20), '... and the host has one follower');

done_testing;
