# A dump that is taken under load contains each message once. The restored queue works, with and without movers, and new
# posts have greater ids than the restored ones.

use Pgq;

my $bin = Pgq::Host::pg_bin();
my $dir = Pgq::Host::temp_dir('dump');
chmod 0755, $dir;

# Runs a program of PostgreSQL, which must succeed, and returns its output.
sub tool {
    my ($name, @arguments) = @_;
    my ($status, $out, $err) = Pgq::Host::run([ "$bin/$name", @arguments ]);
    is("$status$err", '0', "$name $arguments[0] succeeds");
    return $out;
}

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nngx_pgq.rotate_size = '128kB'\n")->start;
$pg->safe_psql(<<'END');
create table sent (id uuid);
alter table posts add constraint no_bad check (data::text <> '"bad"');
insert into ngx_pgq.queue (data) values ('"good"'), ('"bad"'), ('"worse"');
END
ok($pg->poll_query_until('select count(*) from ngx_pgq.dead_letter', 1), 'posts refuses a message');
ok($pg->poll_query_until('select count(*) from posts', 2), 'two messages become posts');

# under load
my $load = $pg->pgbench("$dir/load", q{with s as (insert into sent select gen_random_uuid() from generate_series(1, 20) returning id)
    select ngx_pgq.enqueue(gen_random_uuid(), array_agg(id), array_agg('"sent"'::text)) from s}, -c => 4, -T => 60, -R => 300);
my $progress = q{select sum(rotations) from ngx_pgq.status};
for my $n (1 .. 3) {
    my $from = $pg->safe_psql($progress);
    ok((poll_until { $pg->safe_psql($progress) > $from } 30), 'slots are truncated under load');
    tool('pg_dump', '--format=custom', "--file=$dir/live$n", '-d', $pg->conninfo);
}
kill 'INT', $load;
Pgq::Host::ended($load);

# without load, with messages in the queue
ok($pg->wait_until_moved, 'all messages are moved');
$pg->safe_psql('select ngx_pgq.pause()');
my $batch = '0190c0de-0000-7000-8000-000000000001';
$pg->safe_psql(<<"END");
insert into ngx_pgq.queue (slot, data) select n % 4, to_json('waits ' || n) from generate_series(1, 20) as n;
select * from ngx_pgq.enqueue_keyed('$batch', array[gen_random_uuid()], array['"waits 21"'], array['key 21']);
END
my $again  = "select count(*) from ngx_pgq.enqueue_keyed('$batch', (select array_agg(message_id) from ngx_pgq.key), array['\"waits 21\"'], array['key 21'])";
my $keyed  = q{select sqlstate, problem = (select message_id::text from ngx_pgq.key) from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], array['"waits 21"'], array['key 21'])};
my $fenced = $pg->safe_psql(q{select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '70008' || substr(md5(random()::text), 1, 15))::uuid});
$pg->safe_psql("select ngx_pgq.fence('$fenced')");
tool('pg_dump', '--format=plain', "--file=$dir/rest", '-d', $pg->conninfo);
my $roles = tool('pg_dumpall', '--roles-only', '-h', $pg->socket, '-p', $pg->port, '-U', 'postgres');
Pgq::Host::spew("$dir/roles", $roles =~ s/^(?:CREATE|ALTER) ROLE postgres\b.*\n//gmr);

# All posts, dead letters and messages of a database.
my $content = <<'END';
select 'post', id, at, message_id, data::text, null from posts union all
select 'dead letter', id, at, message_id, data::text, sqlstate || problem from ngx_pgq.dead_letter union all
select 'message', slot, at, message_id, data::text, null from ngx_pgq.queue
 order by 1, 2, 3, 4
END
my $before = $pg->safe_psql($content);
my $last   = $pg->safe_psql('select max(id) from posts');

# restored without the library in shared_preload_libraries
my $plain = Pgq::Postgres->new(name => 'plain', bare => 1, preload => '')->start;
$plain->safe_psql(undef, file => "$dir/roles", database => 'postgres');
$plain->safe_psql('create database posts', database => 'postgres');
$plain->safe_psql(undef, file => "$dir/rest");
is($plain->safe_psql($content), $before, 'a plain dump restores all posts, dead letters and messages');
is($plain->safe_psql($again), 0, 'a batch that is sent again is recognized');
is($plain->safe_psql($keyed), 'PQ200|t', 'a key is recognized');
is($plain->safe_psql("select ngx_pgq.fence('$fenced')"), 't', 'a fence is recognized');
is($plain->safe_psql('select count(*) from ngx_pgq.queue'), 21, 'recognized batches and keys add nothing to the queue');
$plain->safe_psql(q{alter table posts drop constraint no_bad; select ngx_pgq.retry_all()});
$plain->safe_psql(q{select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"new"'])});
is($plain->safe_psql('select count(*) from ngx_pgq.queue'), 23, 'a retried dead letter and a new message are in the queue');
my $first_messages = $plain->safe_psql('select message_id from ngx_pgq.queue order by message_id');

$plain->append_conf("shared_preload_libraries = 'ngx_pgq'\nngx_pgq.databases = 'posts'");
$plain->restart;
ok($plain->wait_until_moved, 'all messages are moved when the library is preloaded');
is($plain->safe_psql("select message_id from posts where id > $last order by message_id"), $first_messages, 'the posts of moved messages have greater ids than the restored posts');
is($plain->safe_psql('select count(*) - count(distinct message_id) from posts'), 0, 'each message is posted once');
$plain->stop;

# the dumps that were taken under load, restored on a server with movers
my $second = Pgq::Postgres->new(name => 'second', bare => 1, conf => "ngx_pgq.databases = 'live1, live2, live3'\nngx_pgq.movers = 2\n")->start;
$second->safe_psql(undef, file => "$dir/roles", database => 'postgres');
for my $n (1 .. 3) {
    my $in = sub { $second->safe_psql($_[0], database => "live$n") };
    $second->safe_psql("create database live$n", database => 'postgres');
    tool('pg_restore', ($n > 1 ? "--jobs=$n" : '--exit-on-error'), '-d', $second->conninfo(database => "live$n"), "$dir/live$n");
    ok($second->poll_query_until('select count(*) from ngx_pgq.queue', 0, 60, database => "live$n"), "dump $n: the messages of the queue are moved");
    is($in->('select count(*) from sent where not exists (select from posts where message_id = sent.id)'), 0, "dump $n: no message is lost");
    is($in->(q{select count(*), count(distinct message_id) from posts where data::text = '"sent"'}), $in->('select count(*), count(*) from sent'), "dump $n: each message is posted once");
    is($in->('select data, sqlstate from ngx_pgq.dead_letter'), '"bad"|23514', "dump $n: the dead letter is restored");
    $in->(q{insert into ngx_pgq.queue (data) values ('"after"')});
    ok($second->poll_query_until(q{select count(*) from posts where data::text = '"after"' and id = (select max(id) from posts)}, 1, 60, database => "live$n"),
        "dump $n: a new message gets the greatest id");
}

# A new installation changes nothing in a restored database.
my $dump = sub { tool('pg_dump', '--schema-only', '-d', $second->conninfo(database => 'live1')) =~ s/^\\(?:un)?restrict.*//gmr };
my $schema = $dump->();
$second->install('live1');
is($dump->(), $schema, 'a restored schema has all that sql/install.sql creates');
is(($second->psql('select * from posts limit 1', database => 'live1', user => 'ngx_pgq_web'))[0], 0, 'ngx_pgq_web may read posts in a restored database');

done_testing;
