# A database of an older version of the extension works with the new library. ALTER EXTENSION UPDATE and sql/install.sql,
# run under load, make it equal to a new database. No older version has been released: this test makes one, 0.9, without
# fence(), keys, retry(), topics and subscriptions.

use Pgq;
use Time::HiRes qw(time);

my $sql     = Pgq::Host::top() . '/sql';
my $dir     = Pgq::Host::temp_dir('upgrade');
my $scripts = (Pgq::Host::run([ Pgq::Host::pg_bin() . '/pg_config', '--sharedir' ]))[1] =~ s/\s+\z//r . '/extension';
my @made    = map { "$scripts/ngx_pgq--$_.sql" } qw(0.9 0.9--1.0);

chmod 0755, $dir;
END { unlink @made }

# ---- the older version

my $script = Pgq::Host::slurp("$scripts/ngx_pgq--1.0.sql");
my $newer  = '';
$script =~ s/^(?:create function|comment on function|revoke all on function) ngx_pgq[.]fence.*?;\n/$newer .= $&; ''/gsme;
is(scalar(() = $newer =~ /;\n/g), 3, 'version 0.9 lacks fence(), its comment and its revoke');

# The functions of 0.9 have no argument for topics. The update drops them and creates those of 1.0.
sub without_topics { $_[0] =~ s/^    topics? text.*\n//mr =~ s/(?<=ngx_pgq[.])(enqueue\w*[(].*), text(?:\[\])?[)]/$1)/r }
my $topical = '';
$script =~ s{^(?:create function|comment on function|revoke all on function) ngx_pgq[.]enqueue.*?;\n}{$topical .= $&; without_topics($&)}gsme;
my @old = $script =~ /^revoke all on function (ngx_pgq[.]enqueue.*) from public;/mg;
is("@old", 'ngx_pgq.enqueue(uuid, uuid[], text[]) ngx_pgq.enqueue_keyed(uuid, uuid[], text[], text[]) ngx_pgq.enqueue_all(uuid, uuid, text[], text)',
    'the functions of version 0.9 have no argument for topics');
$newer .= join('', map { "drop function $_;\n" } @old) . $topical;
Pgq::Host::spew($made[0], $script);
Pgq::Host::spew($made[1], $newer);

for my $file (glob "$sql/*.sql") {
    my $text = Pgq::Host::slurp($file);
    my ($name) = $file =~ m{([^/]+)\z};
    $text =~ s/^create extension.*;\nalter extension.*;\n/create extension ngx_pgq version '0.9';\n/m if $name eq 'extension.sql';
    $text =~ s/^\\ir (?:key|retry|retry_all|recent|after|removed|revision|position|follow|index|since|refresh|subscription|progress|part|subscribe|unsubscribe|fetch|ack|check_members|subscribe_json|fetch_json|ack_json|acknowledged|subscription_rows|subscriptions|metrics|subscription_status)[.]sql\n//gm                                 if $name eq 'install.sql';
    $text =~ s/^grant .*\b(?:fence|key_0|recent|after|removed|revision|position|follow|subscribe|unsubscribe|fetch|ack|check_members|subscribe_json|fetch_json|ack_json|acknowledged|subscription_rows|subscriptions|metrics|subscription_status)\b.*;\n//gm                                     if $name eq 'grants.sql';
    $text =~ s/^select \$\$alter table \S+\s+add column topic .*?^\\gexec\n//gms;
    $text =~ s/^(grant .*)(ngx_pgq[.]enqueue.*)/$1 . without_topics($2)/gme;
    $text =~ s/[(]data, topic[)]/(data)/;
    Pgq::Host::spew("$dir/$name", $text);
}

my $pg = Pgq::Postgres->new(bare => 1, conf => "ngx_pgq.databases = 'posts, fresh'\nmax_worker_processes = 16\nngx_pgq.movers = 3\nngx_pgq.rotate_size = '256kB'\n")->start;
$pg->safe_psql('create database posts', database => 'postgres');
$pg->safe_psql(undef, file => "$dir/install.sql");

sub version { $pg->safe_psql("select extversion from pg_extension where extname = 'ngx_pgq'") }

is(version(), '0.9', 'the database has version 0.9');
is($pg->safe_psql(q{select count(*) from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid(), gen_random_uuid()], array['1', '['])}), 1,
    'enqueue() of 0.9 accepts a message and refuses one that is not JSON');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('2')});
ok($pg->poll_query_until(q{select string_agg(data::text, ' ' order by data::text) from posts}, '1 2'), 'two messages become posts with 0.9');
is($pg->safe_psql(q{select count(*) from pg_attribute where attname = 'topic'}), 0, 'no table of 0.9 has topics');
$pg->safe_psql('create function ngx_pgq.recent(most integer default 100, before bigint default null, size integer default 1048576)
    returns table (id bigint, at text, data json, older bigint) language sql as $$select id, at::text, data, null::bigint from posts$$');
like(($pg->psql('select ngx_pgq.fence(gen_random_uuid())'))[2], qr/function .* does not exist/, 'fence() does not exist in 0.9');
like(($pg->psql(q{select ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], '{1}', '{a}')}))[2], qr/ERROR:  relation "ngx_pgq.key_0" does not exist.*HINT:  Run sql.install.sql/s,
    'enqueue_keyed() fails while the table of keys does not exist');

# ---- the update under load. Each transaction of the load records the ids of its messages.
$pg->safe_psql('create table sent (id uuid)');
my $new_ids = 'with s as (insert into sent select gen_random_uuid() from generate_series(1, 5) returning id)';
my @load    = map { $pg->pgbench("$dir/$_->[0]", "$new_ids $_->[1]", -c => 3, -T => 60, -R => 600) }
    [ enqueue => q{select ngx_pgq.enqueue(gen_random_uuid(), array_agg(id), array_agg('"enqueue"'::text)) from s} ],
    [ insert  => q{insert into ngx_pgq.queue (message_id, data) select id, '"insert"' from s} ];

sub post_count { $pg->safe_psql('select count(*) from posts') }
sub posts_increase {
    my ($name) = @_;
    my $from = post_count();
    ok((poll_until { post_count() > $from + 1000 } 30), $name);
}

posts_increase('the messages of the load become posts');
my $position = $pg->log_position;
my $start    = time;
$pg->safe_psql(q{alter extension ngx_pgq update});
cmp_ok(time - $start, '<', timeout(5), 'ALTER EXTENSION UPDATE takes less than 5 seconds under load');
posts_increase('messages become posts after the update');
like(($pg->psql(q{select ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], '{1}', '{a}')}))[2], qr/ERROR:  column "topic" of relation "ngx_pgq.queue" is missing/,
    'enqueue() refuses a topic while the queue has no topics');
my $files = q{select pg_relation_filenode('posts'), pg_relation_filenode('ngx_pgq.dead_letter')};
my $before = $pg->safe_psql($files);
is($pg->safe_psql('select ngx_pgq.fence(gen_random_uuid())'), 't', 'fence() works after the update');

for my $time ('', ' a second time', ' a third time') {
    $start = time;
    $pg->safe_psql(undef, file => "$sql/install.sql");
    cmp_ok(time - $start, '<', timeout(5), "sql/install.sql run$time takes less than 5 seconds under load");
}
posts_increase('messages become posts after the installation');
my $user = $pg->session;
$user->query(q{begin; insert into ngx_pgq.queue (data) values ('"open"'); lock table posts, ngx_pgq.dead_letter, ngx_pgq.batch, ngx_pgq.key in row exclusive mode});
my ($status, undef, $err) = $pg->psql(undef, file => "$sql/install.sql", env => { PGOPTIONS => '-c lock_timeout=10s' });
is("$status$err", '0', 'sql/install.sql run again does not wait for a transaction that uses all tables');
$user->query('commit');
$user->quit;
kill 'INT', @load;
Pgq::Host::ended($_) for @load;
unlike(join('', map { Pgq::Host::slurp("$dir/$_.err") } qw(enqueue insert)), qr/error|fatal|aborted/i, 'no client has got an error');
ok($pg->wait_until_moved, 'all messages are moved');
is($pg->safe_psql('select count(*), count(distinct message_id) from posts where data::text in (\'"enqueue"\', \'"insert"\')'),
    $pg->safe_psql('select count(*), count(*) from sent'), 'each message is posted once');
is($pg->safe_psql('select count(*) from sent where not exists (select from posts where message_id = sent.id)'), 0, 'no message is lost');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'no message is a dead letter');
unlike($pg->log_since($position) =~ s/ERROR:  column "topic"//r, qr/deadlock|ERROR:|tuple concurrently updated/, 'the log has no deadlock and no other error');

is(version(), '1.0', 'the extension has version 1.0');
is($pg->safe_psql($files), $before, 'the installation does not rewrite posts and dead letters');
is($pg->safe_psql(q{select string_agg(attrelid::regclass || ' ' || atthasmissing, ', ' order by attrelid::regclass::text) from pg_attribute where attname = 'topic' and attnum > 0
    and attrelid::regclass::text !~ 'queue'}), 'ngx_pgq.dead_letter true, posts true', 'the rows of posts and dead letters get an empty topic without being changed');
$pg->safe_psql(q{select ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"topic"'], array['a/b'])});
ok($pg->poll_query_until(q{select topic from ngx_pgq.recent(1)}, 'a/b'), 'a message with a topic becomes a post after the installation');
is($pg->safe_psql(q{select pg_get_function_arguments(oid) from pg_proc where proname = 'recent'}) =~ tr/\n//, 0, 'recent() of 0.9 is dropped');
is($pg->safe_psql('select ngx_pgq.retry(0)'), 'f', 'retry() works after the installation');
my $keys = q{select count(*) from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], array['"keyed"'], array['key'])};
is($pg->safe_psql("$keys; $keys"), "0\n1", 'idempotency keys work after the installation');

# ---- comparison with a new database

$pg->safe_psql('drop table sent');
$pg->install('fresh');

my $members = <<'END';
select pg_describe_object(classid, objid, 0), obj_description(objid, classid::regclass::name),
       case classid when 'pg_proc'::regclass then (select pg_get_functiondef(objid) || pg_get_userbyid(proowner) || proacl::text from pg_proc where oid = objid)
                    when 'pg_class'::regclass then (select pg_get_viewdef(objid) || pg_get_userbyid(relowner) || relacl::text from pg_class where oid = objid) end
  from pg_depend
 where refclassid = 'pg_extension'::regclass and refobjid = (select oid from pg_extension where extname = 'ngx_pgq') and deptype = 'e'
 order by 1
END
my ($upgraded, $fresh) = map { $pg->safe_psql($members, database => $_) } qw(posts fresh);
cmp_ok(length $fresh, '>', 3000, 'the extension of the new database has members');
is($upgraded, $fresh, 'the updated extension has the same members as a new one');

($upgraded, $fresh) = map {
    my ($status, $out, $err) = Pgq::Host::run([ Pgq::Host::pg_bin() . '/pg_dump', '--schema-only', '-d', $pg->conninfo(database => $_) ]);
    die $err if $status;
    $out =~ s/^\\(?:un)?restrict.*//gmr;
} qw(posts fresh);
like($fresh, qr/CREATE TABLE ngx_pgq.queue_3/, 'a dump of the new database has the tables');
is($upgraded, $fresh, 'the updated database has the same schema and rights as a new one');

done_testing;
