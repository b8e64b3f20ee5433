# Movers do not delay a shutdown, under load and while commits wait for a missing standby. Each committed message is
# posted once.

use Pgq;
use Time::HiRes qw(time);

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nclient_connection_check_interval = 50\n")->start;

# Starts three sessions that enqueue until they or the server end.
sub start_load {
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

# Checks the time of a shutdown, and starts the server again.
sub stops_quickly {
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
my @load = start_load();
ok($pg->poll_query_until('select count(*) > 500 from posts', 't', 20), 'messages become posts under load');
stops_quickly('fast', 'a fast shutdown under load takes less than 5 seconds');
$_->quit for @load;
all_moved('all messages are moved after a fast shutdown');

# a smart shutdown: movers work until the last client has disconnected
my $last = $pg->session;
$last->query('select 1');
@load = start_load();
kill 'TERM', $pg->pid;
ok($pg->wait_for_log(qr/received smart shutdown request/, 0, 10), 'a smart shutdown waits for its clients');
$_->quit for @load;
$last->query(q{insert into ngx_pgq.queue (data) values ('"last"')});
ok((poll_until { $last->query(q{select count(*) from posts where data::text = '"last"'}) eq '1' } 20), 'movers move messages during a smart shutdown');
stops_quickly('smart', 'a smart shutdown ends less than 5 seconds after the last client has disconnected', sub { $last->quit });
all_moved('all messages are moved after a smart shutdown');

# commits wait for a missing standby
sub block_commits {
    $pg->commits_wait_for('missing');
    $pg->safe_psql(q{set synchronous_commit = local; insert into ngx_pgq.queue (data) values ('"waits"')});
    ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover' and wait_event = 'SyncRep'}, 1, 10),
        'the commit of a mover waits for the standby');
}

sub unblock_commits { $pg->set(synchronous_standby_names => undef) }

block_commits();
stops_quickly('smart', 'a smart shutdown does not wait for the commit of a mover');
unblock_commits();
all_moved('a message of a mover whose commit waited is moved after a smart shutdown');

block_commits();
@load = start_load();
ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type = 'client backend' and wait_event = 'SyncRep'}, 3, 10),
    'the commits of three sessions wait for the standby');
stops_quickly('fast', 'a fast shutdown does not wait for the commits of the sessions and of a mover');
$_->quit for @load;
unblock_commits();
all_moved('the messages of sessions whose commits waited are moved after a fast shutdown');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"waits"'}), 2, 'both messages of movers whose commits waited are posted');

# the setting is reset while a mover waits
block_commits();
unblock_commits();
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"waits"'}, 3, 10), 'a mover whose commit waits continues when synchronous_standby_names is reset');

done_testing;
