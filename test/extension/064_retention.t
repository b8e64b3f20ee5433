# Posts are kept for ever, unless the settings say otherwise: by count, by age, by either, while messages are moved
# and posts are read, and without waiting for anybody.

use Pgq;

my $pg = Pgq::Postgres->new->start;

# Changes settings, as a reload does.
sub set {
    my (%setting) = @_;
    $pg->safe_psql(join '', map { "alter system set ngx_pgq.$_ = '$setting{$_}';\n" } sort keys %setting);
    $pg->safe_psql('select pg_reload_conf()');
}

# So many posts, the last of them of so long ago, the others one second older each.
sub posts {
    my ($count, $ago) = @_;
    $pg->safe_psql("insert into posts (at, message_id, data) select now() - interval '$ago' - interval '1 s' * ($count - n),"
            . " gen_random_uuid(), to_json(n) from generate_series(1, $count) as n order by n");
}

sub message { $pg->safe_psql(qq{insert into ngx_pgq.queue (data) select '"$_[0]"' from generate_series(1, @{[ $_[1] // 1 ]})}) }
sub become  { ok($pg->poll_query_until("select $_[0]", $_[1], $_[3]), $_[2]) }

my $all   = 'count(*) from posts';
my $range = "count(*) || ' ' || min(id) || ' ' || max(id) from posts";

# for ever
posts(5000, '3 days');
message('first');
become($all, 5001, 'a message is posted');
is($pg->safe_psql("select string_agg(setting, ' ') from pg_settings where name in ('ngx_pgq.keep_posts', 'ngx_pgq.keep_posts_for')"), '0 0',
    'by default all posts are kept, for ever');

# by count
set(keep_posts => 4000);
become($range, '4000 1002 5001', 'by count: the newest stay, and no more');
message('more', 500);
become($range, '4000 1502 5501', 'and so it goes on with each message');
is($pg->safe_psql('select sum(errors) from ngx_pgq.status'), 0, 'without an error');

# ids have gaps, and it is posts that are counted
$pg->safe_psql('delete from posts where id % 2 = 0');
$pg->safe_psql('alter table posts alter column id restart with 1000000');
message('after a gap');
become($range, '2001 1503 1000000', 'gaps are no posts');
set(keep_posts => 1000);
become($range, '1000 3505 1000000', 'fewer are kept when the setting says so');
set(keep_posts => 0);
message('kept', 1000);
become($all, 2000, 'and all when it says that');

# by age
$pg->safe_psql('truncate posts restart identity');
posts(3000, '1 hour');
set(keep_posts_for => '70min');
become($range, '600 2401 3000', 'by age: those that are younger stay');
set(keep_posts_for => '4s');
become($all, 0, 'until they are too old');
message('short-lived');
become($all, 1, 'a new one is there');
become($all, 0, 'and goes by itself when its time is over');

# an old message that comes late goes with its neighbours, and one of the future when that is past
$pg->safe_psql(q{insert into ngx_pgq.queue (at, data) values (now() - interval '2 days', '"late"'), (now() + interval '1 day', '"future"')});
become('count(*) from ngx_pgq.queue', 0, 'an old message and one of the future are moved');
set(keep_posts_for => '1h');
become(q{string_agg(data::text, ' ') from posts}, '"future"', 'the one that is too old when it comes goes');
posts(10, '2 hours');
set(keep_posts_for => '50min');
become(q{string_agg(data::text, ' ') from posts}, '"future"', 'the one of the future stays and holds up none');

# either
$pg->safe_psql('truncate posts restart identity');
posts(3000, '0 s');
set(keep_posts => 2000, keep_posts_for => '20min');
become('min(id) >= 1801 and min(id) < 1900 and max(id) = 3000 from posts', 't', 'by either: by age');
set(keep_posts => 500);
become($range, '500 2501 3000', 'by either: by count');
set(keep_posts => 0, keep_posts_for => 0);

# a post that somebody has locked stays, and goes when he lets go
$pg->safe_psql('truncate posts restart identity');
posts(3000, '0 s');
my $user = $pg->session;
$user->query('begin; select from posts where id in (7, 700, 2500) for update');
set(keep_posts => 100);
become($range, '103 7 3000', 'posts somebody has locked are left');
message('beside');
become(q{count(*) from posts where data::text = '"beside"'}, 1, 'moving goes on');
$user->query('rollback');
become($range, '100 2902 3001', 'they go when they are let go');

# a reader of before sees what was there; a table lock is not waited for
$user->query('begin isolation level repeatable read; select 1');
message('behind his back', 50);
become($range, '100 2952 3051', 'under a reader\'s eyes');
like($user->query('select count(*), min(id) from posts'), qr/^100\|2902$/m, 'he sees what he saw');
$user->query('rollback');
$user->query('create table refers (id bigint references posts); begin; lock table refers in access exclusive mode');
message('while it is locked', 20);
become(q{count(*) from posts where data::text = '"while it is locked"'}, 20, 'a foreign key\'s table that is locked does not stop moving');
become(q{bool_or(last_error ~ '55P03') from ngx_pgq.status}, 't', 'nor is it waited for');
$user->query('rollback');
become($range, '100 2972 3071', 'and is not forgotten');

# a post that a foreign key refuses to let go stays alone
$pg->safe_psql('insert into refers values (2980), (2990)');
message('referred to', 60);
become($range, '102 2980 3131', 'what is referred to stays, all others go');
become(q{bool_or(last_error ~ 'housekeeping: a post is not let go, SQLSTATE 23503') from ngx_pgq.status}, 't', 'and the status says so');
$pg->safe_psql('drop table refers');

# a missing right
$pg->safe_psql('revoke delete on posts from ngx_pgq_mover');
message('without the right', 10);
become(q{bool_or(last_error ~ 'housekeeping: permission denied for table posts, SQLSTATE 42501') from ngx_pgq.status}, 't', 'a missing right is said');
message('and moving', 10);
become(q{count(*) from posts where data::text in ('"and moving"', '"without the right"')}, 20, 'and moving goes on');
cmp_ok($pg->safe_psql('select max(errors) from ngx_pgq.status'), '<', 40, 'errors are few');
$pg->safe_psql('grant delete on posts to ngx_pgq_mover');
become($range, '102 2980 3151', 'granted, removing goes on');

# a posts table somebody has partitioned
set(keep_posts => 0);
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
set(keep_posts => 1000);
become($range, '1000 2001 3000', 'partitions are served');
is($pg->safe_psql('select count(*), count(distinct id), max(id) from posts_gone'), '2000|2000|2000', 'and triggers called');

# all the time
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 5000) as n}) for 1 .. 3;
become('count(*) from ngx_pgq.queue', 0, 'a backlog is moved');
become($range, '1000 17001 18000', 'and removed behind');

done_testing;
