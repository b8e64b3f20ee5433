# The extension and its tables are dropped and come back while messages come in: who sends gets clean errors, movers
# wait and go on, and nothing that was committed is lost or doubled.

use Pgq;

# It is not there when the server starts, and comes later; the tables are those of a database that came with a dump.
my $pg = Pgq::Postgres->new(bare => 1, conf => "ngx_pgq.databases = 'posts'\nngx_pgq.movers = 2\nngx_pgq.idle_interval = '200ms'\n")->start;
$pg->install;
$pg->safe_psql('drop extension ngx_pgq cascade');
$pg->restart;
ok($pg->poll_query_until('select count(*) from pg_stat_activity where backend_type = $$ngx_pgq mover$$', 2), 'there are movers');
ok($pg->wait_for_log(qr/mover 1 of posts: the extension ngx_pgq is missing/), 'which miss the extension');
$pg->safe_psql(q{insert into ngx_pgq.queue (slot, data) values (1, '"waiting"')});
$pg->install;
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"waiting"'}, 1, 10), 'an extension that comes later is noticed, and what waits');
$pg->safe_psql('delete from posts');

my @producers = map { Pgq::Producer->new($pg, from => 1_000_000 * $_) } 1 .. 3;
my $counted   = 'select count(*) from posts';

# So many more messages are posts.
sub goes_on {
    my ($name) = @_;
    my $seen = $pg->safe_psql($counted);

    ok($pg->poll_query_until("select count(*) > $seen + 100 from posts", 't', 20), "$name: it goes on");
}

goes_on('at first');
my $keyed = q{select sqlstate from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], '{0}', '{key}')};
$pg->safe_psql($keyed);

my $position = $pg->log_position;
for my $round (1 .. 3) {
    $pg->safe_psql('drop extension ngx_pgq cascade');
    $pg->install;
    goes_on("DROP EXTENSION CASCADE and installing again, $round");
}

is($pg->safe_psql($keyed), 'PQ200', 'the keys are kept');
$pg->safe_psql('drop extension ngx_pgq cascade');
ok($pg->wait_for_log(qr/the extension ngx_pgq is missing/, $position), 'without their extension movers say so');
my $posts = $pg->safe_psql($counted);
$pg->safe_psql('create extension ngx_pgq');
$pg->install;
goes_on('CREATE EXTENSION, then installing again');
$pg->install for 1 .. 3;
goes_on('installing over what is there');
$pg->safe_psql('alter extension ngx_pgq update');
goes_on('ALTER EXTENSION UPDATE');

my $sent = 1;
$sent += $_->stop for @producers;
my %errors = map { %{ $_->errors } } @producers;
ok($pg->poll_query_until($counted, $sent, 20), "all $sent messages that were committed are posts");
is($pg->safe_psql('select count(distinct data::text) from posts'), $sent, 'each once');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'none is a dead letter');
cmp_ok(scalar(keys %errors), '>', 0, 'who sent meanwhile was told: ' . join ' ', sort keys %errors);
is_deeply([ grep { !/^(?:23514|3F000|42883|42P01|42501)$/ } keys %errors ], [], 'and knows that it is not there');

# all that belongs to the owner has another owner, or goes
@producers = Pgq::Producer->new($pg);
$position = $pg->log_position;
$pg->safe_psql('create role heir');
$pg->safe_psql('reassign owned by ngx_pgq_owner to heir');
goes_on('REASSIGN OWNED');
$pg->safe_psql('reassign owned by heir to ngx_pgq_owner');
goes_on('REASSIGN OWNED, back');
$pg->safe_psql('drop schema ngx_pgq cascade');
$pg->install;
goes_on('DROP SCHEMA CASCADE and installing again');
my $dropped = $pg->log_position;
$pg->safe_psql('drop owned by ngx_pgq_owner cascade');
ok($pg->wait_for_log(qr/mover \d of posts: .* is missing/, $dropped), 'without their tables movers say so');
$pg->install;
ok($pg->poll_query_until("select count(*) > 100 from posts", 't', 20), 'installed again, they go on');
$sent = $producers[0]->stop;
ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, 10), 'and nothing is left');
is($pg->safe_psql('select count(*) - count(distinct data::text) from posts'), 0, 'each message is one post');
cmp_ok(scalar(() = $pg->log_since($position) =~ /(?:mover|launcher).*(?:missing|not exist|SQLSTATE)/g), '<=', 12, 'the log is not filled');

unlike($pg->log_since(0), qr/deadlock detected/, 'and there was no deadlock');

# the mover's role
$position = $pg->log_position;
$pg->safe_psql('drop owned by ngx_pgq_mover cascade');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"no rights"')});
ok($pg->poll_query_until(q{select bool_or(last_error ~ '42501') from ngx_pgq.status}, 't', 10), 'a mover without rights backs off');
$pg->safe_psql('drop role ngx_pgq_mover');
$pg->safe_psql('select pg_terminate_backend(pid) from ngx_pgq.status where pid is not null');
ok($pg->wait_for_log(qr/the role "ngx_pgq_mover" does not exist/, $position), 'without their role none is started');
$pg->install;
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"no rights"'}, 1, 20), 'with role and rights back, they go on');

done_testing;
