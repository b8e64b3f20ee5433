# Movers do not delay a shutdown, under load and while commits wait for a missing standby. Each committed message is
# posted once.

use Pgq;
use Time::HiRes qw(time);

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nclient_connection_check_interval = 50\n")->start;

# Three sessions that enqueue until they or the server end.
sub load {
    my @sessions = map {
        my $session = $pg->session;
        $session->send(q{
            do $$ begin
                loop
                    perform ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid(), gen_random_uuid()], array['"load"', '"load"']);
                    commit;
                end loop;
            end $$});
        $session;
    } 1 .. 3;

    ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type = 'client backend' and query ~ '^do' and pid <> pg_backend_pid()},
        3, 10), 'three sessions enqueue');

    return @sessions;
}

sub stops {
    my ($mode, $name, $before) = @_;
    my $start = time;

    $before->() if $before;
    $pg->stop($mode);
    cmp_ok(time - $start, '<', timeout(5), $name);
    $pg->start;
}

sub all_moved {
    my ($name) = @_;

    ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, 30), $name);
    is($pg->safe_psql('select count(*) - count(distinct message_id) from posts'), 0, "$name: no message is posted twice");
}

# under load
my @load = load();
ok($pg->poll_query_until('select count(*) > 500 from posts', 't', 20), 'messages become posts under load');
stops('fast', 'a fast shutdown under load takes less than 5 seconds');
$_->quit for @load;
all_moved('all messages are moved after a fast shutdown');

# a smart shutdown: movers work until the last client has ended
my $last = $pg->session;
$last->query('select 1');
@load = load();
kill 'TERM', $pg->pid;
ok($pg->wait_for_log(qr/received smart shutdown request/, 0, 10), 'a smart shutdown waits for its clients');
$_->quit for @load;
$last->query(q{insert into ngx_pgq.queue (data) values ('"last"')});
ok((poll_until { $last->query(q{select count(*) from posts where data::text = '"last"'}) eq '1' } 20), 'movers move messages during a smart shutdown');
stops('smart', 'a smart shutdown ends less than 5 seconds after its last client', sub { $last->quit });
all_moved('all messages are moved after a smart shutdown');

# commits wait for a missing standby
sub stick {
    $pg->commits_wait_for('missing');
    $pg->safe_psql(q{set synchronous_commit = local; insert into ngx_pgq.queue (data) values ('"stuck"')});
    ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover' and wait_event = 'SyncRep'}, 1, 10),
        'the commit of a mover waits for the standby');
}

sub unstick { $pg->set(synchronous_standby_names => undef) }

stick();
stops('smart', 'a smart shutdown does not wait for the commit of a mover');
unstick();
all_moved('the message whose commit waited is moved');

stick();
@load = load();
ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type = 'client backend' and wait_event = 'SyncRep'}, 3, 10),
    'the commits of three sessions wait for the standby');
stops('fast', 'a fast shutdown does not wait for these commits');
$_->quit for @load;
unstick();
all_moved('the messages of the three sessions are moved');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"stuck"'}), 2, 'both messages whose commits waited are posted');

# the setting is reset while a mover waits
stick();
unstick();
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"stuck"'}, 3, 10), 'a mover continues when its commit has no standby to wait for');

done_testing;
