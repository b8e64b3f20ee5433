# The end of the server, under load and while commits wait for a standby that is not there: movers do not hold it up,
# and nothing is lost or doubled.

use Pgq;
use Time::HiRes qw(time);

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nclient_connection_check_interval = 50\n")->start;

# Sessions that send as fast as they can until they or the server go.
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
        3, 10), 'there is load');

    return @sessions;
}

sub ends {
    my ($mode, $name, $before) = @_;
    my $start = time;

    $before->() if $before;
    $pg->stop($mode);
    cmp_ok(time - $start, '<', timeout(5), $name);
    $pg->start;
}

sub nothing_is_left {
    my ($name) = @_;

    ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, 30), $name);
    is($pg->safe_psql('select count(*) - count(distinct message_id) from posts'), 0, '… each message is one post');
}

# under load
my @load = load();
ok($pg->poll_query_until('select count(*) > 500 from posts', 't', 20), 'which becomes posts');
ends('fast', 'a fast shutdown under load');
$_->quit for @load;
nothing_is_left('what was committed is moved after the start');

# smart: movers work for those who are still there, and do not stay longer
my $last = $pg->session;
$last->query('select 1');
@load = load();
kill 'TERM', $pg->pid;
ok($pg->wait_for_log(qr/received smart shutdown request/, 0, 10), 'a smart shutdown waits for its clients');
$_->quit for @load;
$last->query(q{insert into ngx_pgq.queue (data) values ('"last"')});
ok((poll_until { $last->query(q{select count(*) from posts where data::text = '"last"'}) eq '1' } 20), 'and for them movers go on');
ends('smart', 'when the last has gone it ends', sub { $last->quit });
nothing_is_left('what was committed is moved after a smart shutdown');

# commits that wait for a standby
sub stick {
    $pg->commits_wait_for('nobody');
    $pg->safe_psql(q{set synchronous_commit = local; insert into ngx_pgq.queue (data) values ('"stuck"')});
    ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover' and wait_event = 'SyncRep'}, 1, 10),
        'a mover waits for the standby');
}

sub unstick { $pg->safe_psql('alter system reset synchronous_standby_names; select pg_reload_conf()') }

stick();
ends('smart', 'a smart shutdown does not wait with a mover');
unstick();
nothing_is_left('what was stuck is moved');

stick();
@load = load();
ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type = 'client backend' and wait_event = 'SyncRep'}, 3, 10),
    'those who send wait for it, too');
ends('fast', 'a fast shutdown waits for none of them');
$_->quit for @load;
unstick();
nothing_is_left('what they sent is moved');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"stuck"'}), 2, 'and what was stuck');

# the standby comes: a mover that waits goes on by itself
stick();
unstick();
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"stuck"'}, 3, 10), 'a mover goes on when there is no standby to wait for');

done_testing;
