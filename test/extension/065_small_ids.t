# Retention also deletes posts with smaller ids than those it has deleted before: after TRUNCATE ... RESTART IDENTITY, and
# when rows with small ids are copied into posts.

use Pgq;

my $pg = Pgq::Postgres->new->start;

sub insert_messages { $pg->safe_psql("insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, $_[0]) as n") }
sub becomes   { ok($pg->poll_query_until("select $_[0]", $_[1], 30), $_[2]) }

my $range = "count(*) || ' ' || min(id) || ' ' || max(id) from posts";

# ---- by count
$pg->set('ngx_pgq.keep_posts' => 10);
insert_messages(100);
becomes($range, '10 91 100', 'the ten newest of 100 posts are kept');
$pg->safe_psql('truncate posts restart identity');
insert_messages(90);
becomes($range, '10 81 90', 'the ten newest are kept after TRUNCATE ... RESTART IDENTITY');
insert_messages(60);
becomes($range, '10 141 150', 'the ten newest are kept after the ids have passed the old ones');

$pg->safe_psql('truncate posts restart identity');
insert_messages(5);
becomes('count(*) from posts', 5, 'five new messages become posts');
insert_messages(1);
becomes($range, '6 1 6', 'no post is deleted while there are fewer than ten');
insert_messages(4);
becomes($range, '10 1 10', 'no post is deleted when there are ten');

# ---- by age. With keep_posts, retention runs after each message.
$pg->set('ngx_pgq.keep_posts' => 1000, 'ngx_pgq.keep_posts_for' => '1h');
sub insert_old_posts { $pg->safe_psql("insert into posts (id, at, message_id, data) select n, now() - interval '1 day', gen_random_uuid(), '\"old\"' from generate_series($_[0], $_[1]) as n") }
my $new = q{count(*) || ' ' || count(*) filter (where data::text <> '"old"') from posts};
$pg->safe_psql('truncate posts; alter table posts alter column id restart with 5001');
insert_old_posts(1001, 1100);
insert_messages(1);
becomes($new, '1 1', 'old posts are deleted');
$pg->safe_psql('truncate posts restart identity');
insert_old_posts(501, 600);
insert_messages(1);
becomes($new, '1 1', 'old posts are deleted after TRUNCATE ... RESTART IDENTITY');

is($pg->safe_psql('select coalesce(sum(errors), 0) from ngx_pgq.status'), 0, 'no mover has got an error');
$pg->stop;

# ---- rows that are copied into posts, on a server whose clock is sixty times as fast. Movers of PostgreSQL 15 do not get
# that clock: the postmaster starts them in a signal handler, which libfaketime takes for a nested call.
SKIP: {
    my ($library) = glob '/usr/lib/*/faketime/libfaketimeMT.so.1' or die "libfaketime is not installed\n";
    skip 'libfaketime and sanitizers must both be loaded first', 2 if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};
    skip 'movers of PostgreSQL 15 do not get the clock of libfaketime', 2 if Pgq::Host::pg_version() < 16;

    $pg = Pgq::Postgres->new(env => { LD_PRELOAD => $library, FAKETIME => '+0 x60' }, conf => "ngx_pgq.keep_posts = 1000\nngx_pgq.keep_posts_for = '1h'\n")->start;
    $pg->safe_psql('alter table posts alter column id restart with 10000');
    insert_old_posts(2001, 2100);
    insert_messages(1);
    becomes($range, '1 10000 10000', 'old posts with ids below a new one are deleted');
    insert_old_posts(1001, 1100);
    ok((poll_until { insert_messages(1); $pg->safe_psql(q{select count(*) from posts where data::text = '"old"'}) eq '0' } 30),
        'old posts that are copied in with smaller ids are deleted within ten minutes');
    $pg->stop;
}

done_testing;
