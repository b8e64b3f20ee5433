# No pause remains when pause() has failed, when its transaction was rolled back, or when the database was dropped.

use Pgq;

my $pg     = Pgq::Postgres->new->start;
my $count  = 0;
my $paused = q{select bool_and(state = 'paused') from ngx_pgq.status where database = 'posts' and pid is not null};

sub moves {
    my ($name) = @_;

    $count++;
    $pg->safe_psql("insert into ngx_pgq.queue (data) values ('$count')");
    ok($pg->poll_query_until("select count(*) from posts where data::text = '$count'", 1), $name);
}

# ---- a pause() that fails
my $holder = $pg->session;
$holder->query('begin; lock table posts');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"held"')});
my ($pid, $mover) = split /\|/, $pg->safe_psql('select pid, mover from ngx_pgq.status where pid is not null');
ok($pg->poll_query_until("select wait_event_type from pg_stat_activity where pid = $pid", 'Lock'), 'a mover waits for a lock on posts');

my ($status, undef, $error) = $pg->psql(q{set statement_timeout = '300ms'; select ngx_pgq.pause()});
isnt($status, 0, 'pause() fails after its statement_timeout');
like($error, qr/CONTEXT:  waiting for mover $mover \(process $pid\) to end its batch/, 'the error names the mover that pause() has waited for');

my $waiter = $pg->session;
my $backend = ($waiter->query('select pg_backend_pid()') =~ /(\d+)/)[0];
$waiter->send('select ngx_pgq.pause()');
my $waits = "select count(*) from pg_stat_activity where pid = $backend and wait_event_type = 'Extension'";
ok($pg->poll_query_until($waits, 1), 'a second pause() waits');
$pg->safe_psql("select pg_terminate_backend($backend)");
ok($pg->poll_query_until("select count(*) from pg_stat_activity where pid = $backend", 0), 'the session of the second pause() is terminated');

my $second = $pg->session;
$second->send('select ngx_pgq.pause()');
ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where query ~ '^select ngx_pgq.pause' and wait_event_type = 'Extension'}, 1), 'a third pause() waits');
$pg->safe_psql('select ngx_pgq.resume()');
like($second->result, qr/pause was ended by another session/, 'the third pause() fails when another session calls resume()');

$holder->query('commit');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"held"'}, 1), 'the message is moved when the lock is released');
moves('a new message is moved after three pauses that failed');

# ---- a pause of a transaction that is rolled back
for my $case (
    [ 'begin; select ngx_pgq.pause(); rollback',                                               'ROLLBACK' ],
    [ 'begin; savepoint a; select ngx_pgq.pause(); rollback to a; commit',                     'ROLLBACK TO SAVEPOINT' ],
    [ 'begin; savepoint a; select ngx_pgq.pause(); release a; rollback',                       'ROLLBACK after RELEASE' ],
    [ 'begin; savepoint a; savepoint b; select ngx_pgq.pause(); release b; rollback to a; commit', 'ROLLBACK TO an outer savepoint' ],
    [ 'begin; select ngx_pgq.pause(); select 1/0; commit',                                     'an error later on' ],
) {
    my ($sql, $name) = @$case;
    $pg->psql($sql);
    moves("$name: movers are not paused");
}
for my $case (
    [ 'begin; select ngx_pgq.pause(); commit',                                                 'COMMIT' ],
    [ 'begin; select ngx_pgq.pause(); savepoint a; select 1; rollback to a; commit',           'ROLLBACK TO a later savepoint' ],
    [ 'begin; savepoint a; select ngx_pgq.pause(); release a; savepoint b; rollback to b; commit', 'RELEASE and another savepoint' ],
) {
    my ($sql, $name) = @$case;
    $pg->safe_psql($sql);
    is($pg->safe_psql($paused), 't', "$name: movers are paused");
    $pg->psql('begin; select ngx_pgq.pause(); rollback');
    is($pg->safe_psql($paused), 't', "$name: a second pause that is rolled back does not end the first");
    $pg->safe_psql('select ngx_pgq.resume()');
    moves("$name: resume() ends the pause");
}

# ---- a paused database that is dropped and created again
$_->quit for $holder, $second;
$pg->safe_psql('select ngx_pgq.pause()');
$pg->safe_psql($_, database => 'postgres') for 'drop database posts', 'create database posts';
$pg->install('posts');
ok($pg->poll_query_until(q{select count(*) from ngx_pgq.status where pid is not null}, 1), 'the new database has a mover');
moves('the new database is not paused');

done_testing;
