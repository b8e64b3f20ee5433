# The extension and its tables are dropped and created again under load. Producers get errors of a few known SQLSTATEs,
# movers wait and continue, and each committed message is posted once.

use Pgq;

# When the server starts, the tables exist and the extension is missing, as after a restore.
my $pg = Pgq::Postgres->new(bare => 1, conf => "ngx_pgq.databases = 'posts'\nngx_pgq.movers = 2\nngx_pgq.idle_interval = '200ms'\n")->start;
$pg->install;
$pg->safe_psql('drop extension ngx_pgq cascade');
$pg->restart;
ok($pg->poll_query_until('select count(*) from pg_stat_activity where backend_type = $$ngx_pgq mover$$', 2), 'two movers run');
ok($pg->wait_for_log(qr/mover 1 of posts: the extension ngx_pgq is missing/), 'the log says that the extension is missing');
$pg->safe_psql(q{insert into ngx_pgq.queue (slot, data) values (1, '"waiting"')});
$pg->install;
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"waiting"'}, 1, 10), 'a message is moved when the extension is created');
$pg->safe_psql('delete from posts');

my @producers  = map { Pgq::Producer->new($pg, from => 1_000_000 * $_) } 1 .. 3;
my $post_count = 'select count(*) from posts';

# Checks that 100 more messages become posts.
sub posts_increase {
    my ($name) = @_;
    my $seen = $pg->safe_psql($post_count);

    ok($pg->poll_query_until("select count(*) > $seen + 100 from posts", 't', 20), "$name: messages become posts");
}

posts_increase('before any change');
my $keyed = q{select sqlstate from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], '{0}', '{key}')};
$pg->safe_psql($keyed);

my $position = $pg->log_position;
for my $round (1 .. 3) {
    $pg->safe_psql('drop extension ngx_pgq cascade');
    $pg->install;
    posts_increase("DROP EXTENSION CASCADE and a new installation, round $round");
}

is($pg->safe_psql($keyed), 'PQ200', 'keys are kept when the extension is dropped');
$pg->safe_psql('drop extension ngx_pgq cascade');
ok($pg->wait_for_log(qr/the extension ngx_pgq is missing/, $position), 'the log says that the extension is missing after DROP EXTENSION');
my $posts = $pg->safe_psql($post_count);
$pg->safe_psql('create extension ngx_pgq');
$pg->install;
posts_increase('CREATE EXTENSION and a new installation');
$pg->install for 1 .. 3;
posts_increase('three installations over the existing one');
$pg->safe_psql('alter extension ngx_pgq update');
posts_increase('ALTER EXTENSION UPDATE');

my $sent = 1;
$sent += $_->stop for @producers;
my %errors = map { %{ $_->errors } } @producers;
ok($pg->poll_query_until($post_count, $sent, 20), "all $sent committed messages are posts");
is($pg->safe_psql('select count(distinct data::text) from posts'), $sent, 'each committed message is posted once');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'there is no dead letter');
cmp_ok(scalar(keys %errors), '>', 0, 'producers got errors: ' . join ' ', sort keys %errors);
is_deeply([ grep { !/^(?:23514|3F000|42883|42P01|42501)$/ } keys %errors ], [], 'all errors say that an object or a right is missing');

# objects of ngx_pgq_owner are reassigned or dropped
@producers = Pgq::Producer->new($pg);
$position = $pg->log_position;
$pg->safe_psql('create role new_owner');
$pg->safe_psql('reassign owned by ngx_pgq_owner to new_owner');
posts_increase('REASSIGN OWNED');
$pg->safe_psql('reassign owned by new_owner to ngx_pgq_owner');
posts_increase('REASSIGN OWNED to the first owner');
$pg->safe_psql('drop schema ngx_pgq cascade');
$pg->install;
posts_increase('DROP SCHEMA CASCADE and a new installation');
my $dropped = $pg->log_position;
$pg->safe_psql('drop owned by ngx_pgq_owner cascade');
ok($pg->wait_for_log(qr/mover \d of posts: .* is missing/, $dropped), 'the log says that a table is missing after DROP OWNED');
$pg->install;
ok($pg->poll_query_until("select count(*) > 100 from posts", 't', 20), 'messages become posts after DROP OWNED and a new installation');
$sent = $producers[0]->stop;
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, 10), 'the queue is drained');
is($pg->safe_psql('select count(*) - count(distinct data::text) from posts'), 0, 'no message is posted twice');
cmp_ok(scalar(() = $pg->log_since($position) =~ /(?:mover|launcher).*(?:missing|not exist|SQLSTATE)/g), '<=', 12, 'the log has at most 12 lines about missing objects');

unlike($pg->log_since(0), qr/deadlock detected/, 'there was no deadlock');

# the role of the movers
$position = $pg->log_position;
$pg->safe_psql('drop owned by ngx_pgq_mover cascade');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"no rights"')});
ok($pg->poll_query_until(q{select bool_or(last_error ~ '42501') from ngx_pgq.status}, 't', 10), 'the status has the SQLSTATE of a missing right');
$pg->safe_psql('drop role ngx_pgq_mover');
$pg->safe_psql('select pg_terminate_backend(pid) from ngx_pgq.status where pid is not null');
ok($pg->wait_for_log(qr/the role "ngx_pgq_mover" does not exist/, $position), 'the log says that the role of the movers does not exist');
$pg->install;
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"no rights"'}, 1, 20), 'the message is posted when sql/install.sql has restored the role and its rights');

done_testing;
