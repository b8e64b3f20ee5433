# ngx_pgq.keep_unacknowledged_for: retention waits for the acknowledgements of all subscriptions, but for no longer than this time.
# By default it does not wait.

use Pgq;

my $pg    = Pgq::Postgres->new(conf => "autovacuum = off\n")->start;
my $range = "count(*) || ' ' || min(id) || ' ' || max(id) from posts";

# Inserts this many posts with times one second apart. The last post is this old.
sub insert_posts {
    my ($count, $age) = @_;
    $pg->safe_psql('insert into posts (at, message_id, data, topic) select now() - interval ' . "'$age' - interval '1 s' * ($count - n),"
            . " gen_random_uuid(), to_json(n), 't/' || n % 20 from generate_series(1, $count) as n order by n");
}

sub becomes { ok($pg->poll_query_until("select $_[0]", $_[1], 60), $_[2]) }

# Acknowledges all posts up to this one, in all parts of a subscription or in one.
sub acknowledge {
    my ($name, $upto, $part) = @_;
    $part //= 'part';
    $pg->safe_psql("select ngx_pgq.ack('$name', $upto, generation, part) from ngx_pgq.subscriptions where name = '$name' and part = $part");
}

# Deletes all posts and subscriptions, and turns retention off. The movers have read the settings when they move a message.
sub start_again {
    $pg->set('ngx_pgq.keep_posts' => 0, 'ngx_pgq.keep_posts_for' => 0, 'ngx_pgq.keep_unacknowledged_for' => 0);
    $pg->poll_query_until('show ngx_pgq.keep_posts', 0);
    $pg->safe_psql('truncate posts restart identity; insert into ngx_pgq.queue (data) select to_json(1)');
    $pg->poll_query_until('select count(*) from posts', 1);
    $pg->safe_psql(q{truncate posts, ngx_pgq.subscription, ngx_pgq.progress restart identity; select setval('ngx_pgq.removed', 0)});
}

# ---- by default
is($pg->safe_psql('show ngx_pgq.keep_unacknowledged_for'), '0', 'keep_unacknowledged_for is 0 by default');
$pg->safe_psql(q{select ngx_pgq.subscribe('a')});
insert_posts(3000, '0 s');
$pg->set('ngx_pgq.keep_posts' => 2000);
becomes($range, '2000 1001 3000', 'by default posts are deleted that a subscription has not acknowledged');
is($pg->safe_psql(q{select min(id) from ngx_pgq.fetch('a')}), 1001, 'the subscription goes on with the oldest post');

# ---- several subscriptions and parts
start_again();
$pg->safe_psql(q{select ngx_pgq.subscribe('a'), ngx_pgq.subscribe('b', parts => 4), ngx_pgq.subscribe('c', '{none}')});
insert_posts(3000, '0 s');
acknowledge('a', 800);
acknowledge('b', $_ * 500, $_) for 1 .. 4;
acknowledge('c', 2800);
$pg->set('ngx_pgq.keep_posts' => 100, 'ngx_pgq.keep_unacknowledged_for' => '1d');
becomes($range, '2500 501 3000', 'retention waits for the part that is furthest behind');
acknowledge('b', 2600, 1);
becomes($range, '2200 801 3000', 'after its acknowledgement, for another subscription');
acknowledge('a', 3000);
becomes($range, '2000 1001 3000', 'and then for another part');
is($pg->safe_psql(q{select min(id) from ngx_pgq.fetch('b', part => 2)}), $pg->safe_psql('select min(id) from posts where ngx_pgq.part(topic, 4) = 2'),
    'a consumer finds the posts that it needs');
$pg->safe_psql(q{select ngx_pgq.unsubscribe('b')});
becomes($range, '200 2801 3000', 'a subscription that is deleted keeps no posts');
acknowledge('c', 3000);
becomes($range, '100 2901 3000', 'keep_posts posts are kept, though they are acknowledged');

# ---- the bound
start_again();
$pg->safe_psql(q{select ngx_pgq.subscribe('forgotten')});
insert_posts(3000, '0 s');
$pg->set('ngx_pgq.keep_posts' => 100, 'ngx_pgq.keep_unacknowledged_for' => '40min');
becomes('min(id) between 601 and 700 from posts', 't', 'posts that are older than keep_unacknowledged_for are deleted without an acknowledgement');
acknowledge('forgotten', 1000);
becomes('min(id) from posts', 1001, 'the others wait for it');
$pg->set('ngx_pgq.keep_unacknowledged_for' => '30min');
becomes('min(id) between 1201 and 1300 from posts', 't', 'a change of the setting applies to all posts');
$pg->set('ngx_pgq.keep_posts' => 0, 'ngx_pgq.keep_posts_for' => '25min');
acknowledge('forgotten', 1349);
becomes('min(id) from posts', 1350, 'retention by age waits, too');
acknowledge('forgotten', 3000);
becomes('min(id) between 1501 and 1600 from posts', 't', 'posts that are acknowledged are deleted when they are older than keep_posts_for');

# ---- times that are not in the order of ids
start_again();
$pg->safe_psql(q{select ngx_pgq.subscribe('a')});
$pg->safe_psql(q{insert into posts (at, message_id, data) select at, gen_random_uuid(), '1' from unnest(array[now() - interval '1 year', 'infinity',
    now() + interval '1 day', now() - interval '2h', now(), now() - interval '2h', now() + interval '10min', now()]::timestamptz[]) as at});
$pg->set('ngx_pgq.keep_posts' => 1, 'ngx_pgq.keep_unacknowledged_for' => '1h');
my $ids = q{string_agg(id::text, ' ' order by id) from posts};
becomes($ids, '5 6 7 8', 'old posts are deleted, and those with times in the far future');
is($pg->safe_psql(q{select string_agg(id::text, ' ') from ngx_pgq.fetch('a')}), '5 6 7 8', 'no post is deleted after one that waits');
acknowledge('a', 5);
becomes($ids, '7 8', 'when that is acknowledged, the next one is deleted, as it is too old');
acknowledge('a', 7);
becomes($ids, '8', 'a post with a time in the near future waits for its acknowledgement');

# ---- posts that were locked, one of which a new subscription needs
start_again();
insert_posts(20, '0 s');
my $locker = $pg->session;
$locker->query('begin; select from posts where id in (15, 19) for update');
$pg->set('ngx_pgq.keep_posts' => 1, 'ngx_pgq.keep_unacknowledged_for' => '1h');
becomes($ids, '15 19 20', 'posts that are locked are not deleted');
$pg->safe_psql(q{select ngx_pgq.subscribe('late', start => 18)});
$locker->release;
becomes($ids, '19 20', 'a post that was locked waits for a subscription that begins before it');
$pg->safe_psql('insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 10) as n');

# ---- a missing right
$pg->safe_psql('revoke execute on function ngx_pgq.acknowledged() from ngx_pgq_mover');
acknowledge('late', 25);
becomes(q{last_error ~ 'SQLSTATE 42501' from ngx_pgq.status where mover = 1}, 't', 'the status reports that the right is missing');
is($pg->safe_psql('select last_value from ngx_pgq.removed'), 18, 'nothing is deleted without it');
$pg->safe_psql('grant execute on function ngx_pgq.acknowledged() to ngx_pgq_mover');
becomes($ids, '26 27 28 29 30', 'posts are deleted when it is granted');

# ---- a snapshot that is held
sub buffers {
    my ($query) = @_;
    my ($found) = $pg->safe_psql("$query; explain (analyze, buffers) $query") =~ /Buffers: shared (.*)/;
    my $sum = 0;
    $sum += $1 while $found =~ /=(\d+)/g;
    return $sum;
}

start_again();
insert_posts(3000, '0 s');
$pg->safe_psql(q{select ngx_pgq.subscribe(i::text, start => 0, parts => 2) from generate_series(1, 10) as i});
my $before = buffers('select ngx_pgq.acknowledged()');
my $holder = $pg->session;
$holder->query('begin isolation level repeatable read; select count(*) from posts');
$pg->safe_psql(q{do $$ begin for id in 1 .. 2900 loop perform ngx_pgq.ack(i::text, id, 0, part) from generate_series(1, 10) as i, generate_series(1, 2) as part; commit; end loop; end $$});
cmp_ok(buffers('select ngx_pgq.acknowledged()'), '<=', $before + 60, 'the position is read as cheaply after 2900 acknowledgements of each part while a snapshot is held');
$pg->set('ngx_pgq.keep_posts' => 50, 'ngx_pgq.keep_unacknowledged_for' => '1h');
becomes($range, '100 2901 3000', 'posts are deleted while a snapshot is held');
$holder->quit;

# ---- under load
start_again();
$pg->set('ngx_pgq.keep_posts' => 10, 'ngx_pgq.keep_unacknowledged_for' => '1h');
my $posts = 20_000;
$pg->safe_psql(q{create table effect (subscription text, id bigint); select ngx_pgq.subscribe('one'), ngx_pgq.subscribe('parts', parts => 4)});
my $dir  = Pgq::Host::temp_dir('consumers');
my @load = map { $pg->pgbench("$dir/$_", qq{with fetched as materialized (select * from ngx_pgq.fetch('$_', 50)),
     effects as (insert into effect select '$_', id from fetched)
     select ngx_pgq.ack('$_', max(id), generation, part, release => true) from fetched group by part, generation}, -c => 2, -T => 120, -R => 300) } qw(one parts);
$pg->safe_psql("insert into ngx_pgq.queue (data, topic) select to_json(n), 't/' || n % 20 from generate_series(1, 1000) as n") for 1 .. $posts / 1000;
becomes('string_agg(format(\'%s %s %s\', subscription, count, ids), \', \' order by subscription) from (select subscription, count(*), count(distinct id) as ids from effect group by 1) as s',
    "one $posts $posts, parts $posts $posts", 'each consumer has each post once while retention deletes them');
becomes('count(*) from posts', 10, 'keep_posts posts are left');
kill 'INT', @load;
Pgq::Host::ended($_) for @load;

done_testing;
