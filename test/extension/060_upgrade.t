# A database installed as of version 1.0 or 1.1 works with the new library, and comes to be as if new, while everybody
# goes on.

use Pgq;
use Time::HiRes qw(time);

my $pg  = Pgq::Postgres->new(bare => 1, conf => "ngx_pgq.databases = 'posts, second, fresh'\nmax_worker_processes = 16\nngx_pgq.movers = 3\nngx_pgq.rotate_size = '256kB'\n")->start;
my $dir = Pgq::Host::temp_dir('upgrade');

# the old script and the new library
$pg->safe_psql('create database posts', database => 'postgres');
$pg->safe_psql(undef, file => Pgq::Host::top() . '/test/extension/install-1.0.sql');
is($pg->safe_psql("select extversion from pg_extension where extname = 'ngx_pgq'"), '1.0', 'a database as of 1.0');

is($pg->safe_psql(q{select count(*) from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid(), gen_random_uuid()], array['1', '['])}), 1,
    'enqueue() works, and refuses what is bad');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('2')});
ok($pg->poll_query_until(q{select string_agg(data::text, ' ' order by data::text) from posts}, '1 2'), 'and so does an INSERT: both are moved');
like(($pg->psql(q{select ngx_pgq.enqueue_keyed(gen_random_uuid(), '{}', '{}', '{}')}))[2], qr/function .* does not exist/, 'what is new is not there');
is($pg->safe_psql(q{select database || ' ' || sum(messages) from ngx_pgq.mover_status() where database = 'posts' group by database}), 'posts 2',
    'mover_status() counts them');
is($pg->safe_psql(q{select count(*) > 0 from ngx_pgq.status where pid is not null and errors = 0}), 't', 'and the view of 1.0 shows it');
is($pg->safe_psql('select ngx_pgq.recent(1)') =~ /^\{"msg":\[\{"id":\d+,"data":/, 1, 'GET has its answer');

# What is sent is written down in the same transaction.
$pg->safe_psql('create table sent (id uuid)');
my @load = map { load(@$_) }
    [ enqueue => q{with s as (insert into sent select gen_random_uuid() from generate_series(1, 5) returning id)
                   select ngx_pgq.enqueue(gen_random_uuid(), array_agg(id), array_agg('"enqueue"'::text)) from s} ],
    [ insert  => q{with s as (insert into sent select gen_random_uuid() from generate_series(1, 5) returning id)
                   insert into ngx_pgq.queue (message_id, data) select id, '"insert"' from s} ];

sub load {
    my ($name, $sql) = @_;
    Pgq::Host::spew("$dir/$name.sql", $sql =~ s/\s+/ /gr, ";\n");
    chmod 0755, $dir;
    return Pgq::Host::spawn([ Pgq::Host::pg_bin() . '/pgbench', '-n', '-h', $pg->socket, '-p', $pg->port, '-U', 'postgres', '-c', 3, '-T', 60, '-R', 600,
        '-f', "$dir/$name.sql", 'posts' ], out => "$dir/$name.out", err => "$dir/$name.err");
}

sub moved { $pg->safe_psql('select count(*) from posts') }
sub goes_on {
    my ($name) = @_;
    my $from = moved();
    ok((poll_until { moved() > $from + 1000 } 30), $name);
}

goes_on('the load is moved');
my $position = $pg->log_position;
my $start    = time;
$pg->safe_psql(q{alter extension ngx_pgq update to '1.1'});
cmp_ok(time - $start, '<', timeout(5), 'the extension is updated under load');
goes_on('which goes on');
is($pg->safe_psql(q{select count(*) > 0 from ngx_pgq.status where slot is not null}), 't', 'the status is that of 1.1');
$pg->safe_psql(q{alter extension ngx_pgq update to '1.2'});
like(($pg->psql(q{select ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], '{1}', '{a}')}))[2], qr/ERROR:  relation "ngx_pgq.key_0" does not exist.*HINT:  Run sql.install.sql/s,
    'of 1.2 without its table, a key is refused');
goes_on('and the load goes on as before');

for my $time ('', ' again', ' and again') {
    $start = time;
    $pg->safe_psql(undef, file => Pgq::Host::top() . '/sql/install.sql');
    cmp_ok(time - $start, '<', timeout(5), "sql/install.sql is run$time");
}
goes_on('and the load goes on');
my $user = $pg->session;
$user->query(q{begin; insert into ngx_pgq.queue (data) values ('"open"'); lock table posts, ngx_pgq.dead_letter, ngx_pgq.batch, ngx_pgq.key in row exclusive mode});
my ($status, undef, $err) = $pg->psql(undef, file => Pgq::Host::top() . '/sql/install.sql', env => { PGOPTIONS => '-c lock_timeout=10s' });
is("$status$err", '0', 'run again, it does not wait for somebody who has all of the tables in use');
$user->query('commit');
$user->quit;
kill 'INT', @load;
Pgq::Host::ended($_) for @load;
unlike(join('', map { Pgq::Host::slurp("$dir/$_.err") } qw(enqueue insert)), qr/error|fatal|aborted/i, 'no client met an error');
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0), 'all is moved');
is($pg->safe_psql('select count(*), count(distinct message_id) from posts where data::text in (\'"enqueue"\', \'"insert"\')'),
    $pg->safe_psql('select count(*), count(*) from sent'), 'no message is there twice');
is($pg->safe_psql('select count(*) from sent where not exists (select from posts where message_id = sent.id)'), 0, 'and none is lost');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'nor dead');
unlike($pg->log_since($position) =~ s/.*ERROR:  relation "ngx_pgq.key_0".*\n//r, qr/deadlock|ERROR:|tuple concurrently updated/, 'without a deadlock or another error');

# the new things work
$pg->safe_psql('select ngx_pgq.pause(), ngx_pgq.resume()');
is($pg->safe_psql('select ngx_pgq.retry_all(), (select count(*) >= 0 from ngx_pgq.horizon)'), '0|t', 'what is new is there');
my $keys = q{select count(*) from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], array['"keyed"'], array['key'])};
is($pg->safe_psql("$keys; $keys"), "0\n1", 'and keys');

# from 1.1
$pg->safe_psql('create database second', database => 'postgres');
my $second = sub { $pg->safe_psql($_[0], database => 'second') };
$pg->safe_psql(undef, file => Pgq::Host::top() . '/test/extension/install-1.1.sql', database => 'second');
is($second->(q{select extversion from pg_extension where extname = 'ngx_pgq'}), '1.1', 'a database as of 1.1');
is($second->(q{select count(*) from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid(), gen_random_uuid()], array['1', '['])}), 1, 'takes messages');
ok($pg->poll_query_until('select ngx_pgq.wait_until_drained()', 't', 30, database => 'second'), 'and moves them');
$pg->install('second');
is($second->("$keys; $keys"), "0\n1", 'sql/install.sql gives it keys');
ok($pg->poll_query_until('select count(*) from posts', 2, 30, database => 'second'), 'and all are moved');
is($second->(q{select coalesce(string_agg(last_error, ' '), '') from ngx_pgq.status where database = 'second'}), '', 'no mover has met an error');

# and all is as in a new one
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
my ($upgraded, $later, $fresh) = map { $pg->safe_psql($members, database => $_) } qw(posts second fresh);
cmp_ok(length $fresh, '>', 3000, 'the extension has members');
is($upgraded, $fresh, 'the same in the upgraded database as in a new one');
is($later, $fresh, 'and in that upgraded from 1.1');

($upgraded, $later, $fresh) = map {
    my ($status, $out, $err) = Pgq::Host::run([ Pgq::Host::pg_bin() . '/pg_dump', '--schema-only', '-d', $pg->conninfo(database => $_) ]);
    die $err if $status;
    $out =~ s/^\\(?:un)?restrict.*//gmr;
} qw(posts second fresh);
like($fresh, qr/CREATE TABLE ngx_pgq.queue_3/, 'a dump has the tables');
is($upgraded, $fresh, 'and they, too, are the same, rights included');
is($later, $fresh, 'in all three');

done_testing;
