# Movers delete old posts by count, by age or by both, while messages are moved and posts are read, and without waiting for
# a lock. By default no post is deleted.

use Pgq;

my $pg = Pgq::Postgres->new->start;

# Inserts this many posts with times one second apart. The last post is this old.
sub insert_posts {
    my ($count, $age) = @_;
    $pg->safe_psql("insert into posts (at, message_id, data) select now() - interval '$age' - interval '1 s' * ($count - n),"
            . " gen_random_uuid(), to_json(n) from generate_series(1, $count) as n order by n");
}

sub insert_messages { $pg->safe_psql(qq{insert into ngx_pgq.queue (data) select '"$_[0]"' from generate_series(1, @{[ $_[1] // 1 ]})}) }
sub becomes  { ok($pg->poll_query_until("select $_[0]", $_[1], $_[3]), $_[2]) }

my $count   = 'count(*) from posts';
my $range = "count(*) || ' ' || min(id) || ' ' || max(id) from posts";

# by default
insert_posts(5000, '3 days');
insert_messages('first');
becomes($count, 5001, 'a message becomes a post');
is($pg->safe_psql("select string_agg(setting, ' ') from pg_settings where name in ('ngx_pgq.keep_posts', 'ngx_pgq.keep_posts_for')"), '0 0',
    'keep_posts and keep_posts_for are 0 by default');

# by count
$pg->set('ngx_pgq.keep_posts' => 4000);
becomes($range, '4000 1002 5001', 'keep_posts = 4000 keeps the 4000 newest posts');
insert_messages('more', 500);
becomes($range, '4000 1502 5501', '500 new posts replace the 500 oldest ones');
is($pg->safe_psql('select sum(errors) from ngx_pgq.status'), 0, 'no mover has got an error');

# keep_posts counts posts, not ids
$pg->safe_psql('delete from posts where id % 2 = 0');
$pg->safe_psql('alter table posts alter column id restart with 1000000');
insert_messages('after a gap');
becomes($range, '2001 1503 1000000', 'no post is deleted while gaps of ids exceed keep_posts');
$pg->set('ngx_pgq.keep_posts' => 1000);
becomes($range, '1000 3505 1000000', 'a smaller keep_posts keeps fewer posts');
$pg->set('ngx_pgq.keep_posts' => 0);
insert_messages('kept', 1000);
becomes($count, 2000, 'keep_posts = 0 keeps all posts');

# by age
$pg->safe_psql('truncate posts restart identity');
insert_posts(3000, '1 hour');
$pg->set('ngx_pgq.keep_posts_for' => '70min');
becomes($range, '600 2401 3000', 'keep_posts_for = 70min keeps the posts that are younger than 70 minutes');
$pg->set('ngx_pgq.keep_posts_for' => '4s');
becomes($count, 0, 'keep_posts_for = 4s deletes all posts that are older than 4 seconds');
insert_messages('short-lived');
becomes($count, 1, 'a new message becomes a post');
becomes($count, 0, 'the new post is deleted when it is 4 s old');

# a message with an old time, and one with a time in the future
$pg->safe_psql(q{insert into ngx_pgq.queue (at, data) values (now() - interval '2 days', '"late"'), (now() + interval '1 day', '"future"')});
becomes('count(*) from ngx_pgq.queue', 0, 'a message with an old time and one with a time in the future are moved');
$pg->set('ngx_pgq.keep_posts_for' => '1h');
becomes(q{string_agg(data::text, ' ') from posts}, '"future"', 'a message that is older than keep_posts_for is deleted after its move');
insert_posts(10, '2 hours');
$pg->set('ngx_pgq.keep_posts_for' => '50min');
becomes(q{string_agg(data::text, ' ') from posts}, '"future"', 'old posts after a post with a time in the future are deleted');

# by both
$pg->safe_psql('truncate posts restart identity');
insert_posts(3000, '0 s');
$pg->set('ngx_pgq.keep_posts' => 2000, 'ngx_pgq.keep_posts_for' => '20min');
becomes('min(id) >= 1801 and min(id) < 1900 and max(id) = 3000 from posts', 't', 'with both settings the stricter one applies: age');
$pg->set('ngx_pgq.keep_posts' => 500);
becomes($range, '500 2501 3000', 'with both settings the stricter one applies: count');
$pg->set('ngx_pgq.keep_posts' => 0, 'ngx_pgq.keep_posts_for' => 0);

# locked posts
$pg->safe_psql('truncate posts restart identity');
insert_posts(3000, '0 s');
my $user = $pg->session;
$user->query('begin; select from posts where id in (7, 700, 2500) for update');
$pg->set('ngx_pgq.keep_posts' => 100);
becomes($range, '103 7 3000', 'posts that a session has locked are not deleted');
insert_messages('unlocked');
becomes(q{count(*) from posts where data::text = '"unlocked"'}, 1, 'messages are moved while posts are locked');
$user->query('rollback');
becomes($range, '100 2902 3001', 'posts are deleted when their locks are released');

# an older snapshot, and a table lock
$user->query('begin isolation level repeatable read; select 1');
insert_messages('after the snapshot', 50);
becomes($range, '100 2952 3051', 'posts are deleted while an older snapshot is open');
like($user->query('select count(*), min(id) from posts'), qr/^100\|2902$/m, 'the older snapshot shows the deleted posts');
$user->query('rollback');
$user->query('create table refers (id bigint references posts); begin; lock table refers in access exclusive mode');
insert_messages('while it is locked', 20);
becomes(q{count(*) from posts where data::text = '"while it is locked"'}, 20, 'messages are moved while the table of a foreign key is locked');
becomes(q{bool_or(last_error ~ '55P03') from ngx_pgq.status}, 't', 'the status says that a lock was not available');
$user->query('rollback');
becomes($range, '100 2972 3071', 'posts are deleted when the table lock is released');

# posts that a foreign key refers to
$pg->safe_psql('insert into refers values (2980), (2990)');
insert_messages('referred to', 60);
becomes($range, '102 2980 3131', 'posts that a foreign key refers to are kept, the others are deleted');
becomes(q{bool_or(last_error ~ 'housekeeping: a post cannot be deleted, SQLSTATE 23503') from ngx_pgq.status}, 't', 'the status says that a foreign key keeps a post');
$pg->safe_psql('drop table refers');

# a missing right
$pg->safe_psql('revoke delete on posts from ngx_pgq_mover');
insert_messages('without the right', 10);
becomes(q{bool_or(last_error ~ 'housekeeping: permission denied for table posts, SQLSTATE 42501') from ngx_pgq.status}, 't', 'the status says that the right to delete is missing');
insert_messages('and moving', 10);
becomes(q{count(*) from posts where data::text in ('"and moving"', '"without the right"')}, 20, 'messages are moved without the right to delete');
cmp_ok($pg->safe_psql('select max(errors) from ngx_pgq.status'), '<', 40, 'a mover without the right to delete gets fewer than 40 errors');
$pg->safe_psql('grant delete on posts to ngx_pgq_mover');
becomes($range, '102 2980 3151', 'posts are deleted when the right is granted');

# a partitioned posts table
$pg->set('ngx_pgq.keep_posts' => 0);
$pg->safe_psql(<<'END');
drop table posts;
create table posts (id bigint generated by default as identity, at timestamptz not null, message_id uuid not null, data json not null,
                    primary key (id, at)) partition by range (at);
create table posts_old partition of posts for values from (minvalue) to ('2020-01-01');
create table posts_new partition of posts for values from ('2020-01-01') to (maxvalue);
create table posts_gone (id bigint);
create function gone() returns trigger language plpgsql security definer as $$ begin insert into public.posts_gone values (old.id); return old; end $$;
create trigger gone before delete on posts for each row execute function gone();
grant select, insert, update (id), delete on posts to ngx_pgq_mover;
insert into posts (at, message_id, data) select case when n % 2 = 0 then now() else '2001-01-01' end, gen_random_uuid(), '1' from generate_series(1, 3000) as n;
END
$pg->set('ngx_pgq.keep_posts' => 1000);
becomes($range, '1000 2001 3000', 'posts are deleted from partitions');
is($pg->safe_psql('select count(*), count(distinct id), max(id) from posts_gone'), '2000|2000|2000', 'triggers on delete run for each deleted post');

# under load
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 5000) as n}) for 1 .. 3;
becomes('count(*) from ngx_pgq.queue', 0, 'a backlog is moved');
becomes($range, '1000 17001 18000', 'old posts are deleted after a backlog');

done_testing;
