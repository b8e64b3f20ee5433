# Readers by SQL: position() says exactly whether retention has deleted a post that a reader has not seen, also after a crash
# and on a standby. A poll does not read deleted posts, also if vacuum cannot remove them.

use Pgq;

my $pg = Pgq::Postgres->new(conf => "autovacuum = off\n")->start;

sub insert_messages { $pg->safe_psql("insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, $_[0]) as n") }
sub removed { $pg->safe_psql('select last_value from ngx_pgq.removed') }

# ---- under load. Each round looks at posts as a reader with another cursor would. No transaction of a mover fails, so ids have
# no gaps: if nothing is said to be missing, the next post has the next id.
$pg->safe_psql(q{create function watch(rounds integer, out resets integer, out missed integer) language plpgsql as $$
declare
    place record;
    seen  bigint := 0;
begin
    resets := 0;
    missed := 0;
    for round in 1 .. rounds loop
        select * into place from ngx_pgq.position(seen);
        seen := greatest(place.newest - (random() * 6000)::bigint, 1);
        perform pg_sleep(0.001);
        select p.*, (select min(a.id) from ngx_pgq.after(seen, 5) as a) as first into place from ngx_pgq.position(seen) as p;
        if not place.complete then
            resets := resets + 1;
        elsif place.first is distinct from (case when place.newest > seen then seen + 1 end) then
            missed := missed + 1;
        end if;
    end loop;
end $$});
$pg->set('ngx_pgq.keep_posts' => 1000);
insert_messages(1000);
ok($pg->wait_until_moved, 'the first messages become posts');
my @load = ($pg->pgbench(Pgq::Host::temp_dir('load') . '/load', 'insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 20) as n', -c => 2, -T => 60, -R => 200));
ok($pg->poll_query_until('select last_value > 5000 from ngx_pgq.removed', 't'), 'retention advances the greatest deleted id');
my ($resets, $missed) = split /\|/, $pg->safe_psql('select * from watch(2000)');
kill 'INT', @load;
Pgq::Host::ended($_) for @load;
cmp_ok($resets, '>', 20, 'readers whose next post was deleted are told so');
cmp_ok($resets, '<', 1500, 'readers whose next post exists are not');
is($missed, 0, 'no reader misses a post without being told');
ok($pg->wait_until_moved, 'all messages are moved');
ok($pg->poll_query_until('select count(*) from posts', 1000), 'the newest posts are kept');
is(removed(), $pg->safe_psql('select min(id) - 1 from posts'), 'the greatest deleted id is that before the oldest post');

# ---- a crash, and a standby
my $before = removed();
$pg->safe_psql('checkpoint');
insert_messages(500);
ok($pg->wait_until_moved, 'more messages become posts');
ok($pg->poll_query_until('select count(*) from posts', 1000), 'as many posts are deleted');
$pg->safe_psql('create table flush ()');
$pg->stop('immediate');
$pg->start;
is(removed(), $before + 500, 'a crash of the server does not forget the greatest deleted id');
my $standby = $pg->standby(preload => '');
$standby->start;
ok($standby->poll_query_until('select last_value from ngx_pgq.removed', $before + 500), 'a standby has it');
is($standby->safe_psql("select complete from ngx_pgq.position($before)"), 'f', 'position() works on a standby');
$standby->stop;

# ---- 100,000 deleted posts that vacuum cannot remove
my $holder = $pg->session;
$holder->query('begin isolation level repeatable read; select count(*) from posts');
$pg->safe_psql('insert into posts (at, message_id, data) select now(), gen_random_uuid(), to_json(n) from generate_series(1, 100000) as n; analyze posts');
insert_messages(1);
ok($pg->poll_query_until('select count(*) from posts', 1000, 60), '100,000 posts are deleted while a snapshot is held');
my $newest = $pg->safe_psql('select max(id) from posts');

# The blocks that a query reads which its session has run before: follow() is planned by the first call.
sub buffers {
    my ($query) = @_;
    my ($found) = $pg->safe_psql("$query; explain (analyze, buffers) $query") =~ /Buffers: shared (.*)/;
    my $sum = 0;
    $sum += $1 while $found =~ /=(\d+)/g;
    return $sum;
}
cmp_ok(buffers("select * from ngx_pgq.follow($newest, 100, 1000000)"), '<', 50, 'a poll by follow() reads fewer than 50 blocks');
cmp_ok(buffers("select * from ngx_pgq.position($newest)"), '<', 50, 'position() reads fewer than 50 blocks');
cmp_ok(buffers("select * from ngx_pgq.after($newest)"), '<', 50, 'a poll by after() reads fewer than 50 blocks');
cmp_ok(buffers('select * from ngx_pgq.follow(null, 10, 1000000, 10)'), '<', 50, 'follow() from the newest posts reads fewer than 50 blocks');
cmp_ok(buffers('select min(id) from posts'), '>', 200, 'the oldest post cannot be found that way without ngx_pgq.removed');
$pg->safe_psql('delete from posts');
$pg->safe_psql('select ngx_pgq.refresh()');
cmp_ok(buffers("select * from ngx_pgq.follow($newest, 100, 1000000)"), '<', 50, 'a poll reads fewer than 50 blocks when all posts are deleted');
$holder->quit;
insert_messages(1000);
ok($pg->wait_until_moved, 'new messages become posts');

# ---- a post that retention cannot delete
$pg->safe_psql('create table refers (post bigint references posts deferrable initially deferred)');
my $kept = $pg->safe_psql('insert into refers select min(id) + 10 from posts returning post');
insert_messages(100);
ok($pg->poll_query_until("select count(*) from posts where id < $kept", 0), 'posts that are older than one with a reference are deleted');
ok($pg->poll_query_until('select count(*) from posts', 1001), 'posts that are newer are deleted, too');
is($pg->safe_psql("select complete from ngx_pgq.position($kept)"), 'f', 'the post with the reference does not hide that newer ones are missing');
$pg->safe_psql('drop table refers');

# ---- refresh()
my $listener = $pg->session;
$listener->query('listen ngx_pgq_posts');
$pg->safe_psql('select ngx_pgq.refresh()');
like($listener->query('select 1'), qr/notification "ngx_pgq_posts" with payload "reset"/, 'refresh() notifies followers');
$listener->quit;

done_testing;
