# The status shows a mover that could not start, with the error and its time. It can be read while the queue has messages
# with infinite or distant times.

use Pgq;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.databases = 'posts, missing'\nngx_pgq.movers = 2\n")->start;

sub state_is {
    my ($database, $state, $error, $name) = @_;

    ok($pg->poll_query_until("select string_agg(distinct state, ' ') from ngx_pgq.status where database = '$database' and mover is not null", $state, 40), "$name: the state of the movers is \"$state\"");
    is($pg->safe_psql("select bool_and(coalesce(last_error ~ '$error', false)) from ngx_pgq.status where database = '$database' and mover is not null"), 't', "$name: the status has the error");
    is($pg->safe_psql("select bool_and(last_error_at between now() - interval '5 min' and now()) from ngx_pgq.status where database = '$database' and mover is not null"), 't', "$name: the status has the time of the error");
}

state_is('missing', 'could not start', 'the database "missing" does not exist', 'a database that does not exist');
$pg->safe_psql('create database missing');
ok($pg->poll_query_until(q{select string_agg(distinct coalesce(last_error, 'none'), ' ') from ngx_pgq.status where database = 'missing' and pid is not null}, 'none', 40),
    'the movers of a database that was created have no error');
$pg->safe_psql('drop database missing');
state_is('missing', 'could not start', 'the database "missing" does not exist', 'a database that was dropped');

for my $case (
    [ 'alter role ngx_pgq_mover nologin', 'alter role ngx_pgq_mover login', 'a role that may not log in' ],
    [ 'revoke connect on database posts from public; revoke connect on database posts from ngx_pgq_mover',
        'grant connect on database posts to public', 'a role that may not connect' ],
    [ 'alter role ngx_pgq_mover connection limit 0', 'alter role ngx_pgq_mover connection limit -1', 'a connection limit' ],
) {
    my ($break, $repair, $name) = @$case;

    $pg->safe_psql($_) for split /; /, $break;
    $pg->safe_psql(q{select pg_terminate_backend(pid) from ngx_pgq.status where pid is not null});
    if ($name =~ /limit/) {    # some versions of PostgreSQL do not apply it to background workers
        $pg->poll_query_until(q{select count(*) from ngx_pgq.status where database = 'posts' and (pid is not null or state = 'could not start')}, 2, 40);
    } else {
        state_is('posts', 'could not start', 'could not connect to the database', $name);
    }
    $pg->safe_psql($repair);
    $pg->safe_psql('select pg_reload_conf()');
    ok($pg->poll_query_until(q{select count(*) from ngx_pgq.status where database = 'posts' and pid is not null and state <> 'could not start'}, 2, 40), "$name: the movers start when the cause is removed");
}

$pg->set('ngx_pgq.role' => 'missing_role');
state_is('posts', 'could not start', 'the role "missing_role" does not exist', 'a role that does not exist');
$pg->set('ngx_pgq.movers' => 0);
ok($pg->poll_query_until(q{select string_agg(distinct state, ' ') from ngx_pgq.status where mover is not null}, 'stopped', 40), 'with ngx_pgq.movers = 0 the state of all movers is "stopped"');
$pg->safe_psql($_) for 'alter system reset ngx_pgq.role', 'alter system set ngx_pgq.movers = 2';
$pg->reload;
ok($pg->poll_query_until(q{select count(*) from ngx_pgq.status where database = 'posts' and pid is not null}, 2, 40), 'two movers run when the settings are restored');

# ---- messages with infinite and distant times
$pg->set('ngx_pgq.batch_size' => 1);
for my $at ('-infinity', 'infinity', '4713-01-01 BC', '294276-12-31') {
    my $holder = $pg->session;
    $holder->query('begin; lock table posts');
    $pg->safe_psql("insert into ngx_pgq.queue (at, data) select '$at', to_json(i) from generate_series(1, 8) as i");
    ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover' and wait_event_type = 'Lock'}, 2), "$at: both movers wait for a lock");
    my ($status, undef, $error) = $pg->psql('table ngx_pgq.status');
    is($status, 0, "$at: the status can be read while messages wait") or diag($error);
    $holder->query('commit');
    ok($pg->poll_query_until('select count(*) from posts', 8), "$at: the messages become posts");
    ($status) = $pg->psql('table ngx_pgq.status');
    is($status, 0, "$at: the status can be read afterwards");
    $pg->safe_psql('truncate posts');
}

done_testing;
