# A command that locks the queue and then its leaves, without locking out readers, meets no mover in a deadlock: a mover
# that has a leaf and needs another one has locked the queue first, and with a lock that such a command waits for.

use Pgq;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 1\nngx_pgq.rotate_size = 64kB\nngx_pgq.idle_interval = '20d'\ndeadlock_timeout = 200ms\n")->start;

my $enqueue = q{select count(*) from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['1'])};

sub current { return $pg->safe_psql(q{select slot from ngx_pgq.status where state = 'current'}) }

# Messages, until the given slot is the current one.
sub rotate_to {
    my ($slot) = @_;
    return poll_until {
        my $current = current();
        return 1 if $current == $slot;
        $pg->safe_psql('insert into ngx_pgq.queue (data) select to_json(i) from generate_series(1, 2000) as i');
        return $pg->poll_query_until("select slot <> $current from ngx_pgq.status where state = 'current'") && current() == $slot;
    } 60;
}

# What the movers look at first is leaf 3, what the command locks first is leaf 0: a message in each, of which the one in
# leaf 3 is locked when the mover comes.
ok(rotate_to(3), 'the last slot is the current one');
my $older = $pg->session;
$older->query("begin; $enqueue");
ok(rotate_to(0), 'then the first');
ok($pg->poll_query_until(q{select sum(depth) from ngx_pgq.status}, 0), 'all is moved');
$pg->safe_psql('select ngx_pgq.pause()');
$older->query('commit');
$pg->safe_psql($enqueue);
is($pg->safe_psql('select (select count(*) from ngx_pgq.queue_3) || $$ $$ || (select count(*) from ngx_pgq.queue_0)'), '1 1', 'a message in each of them');
my $holder = $pg->session;
$holder->query('begin; select from ngx_pgq.queue_3 for update');

# The command has the queue, and waits for leaf 0; then the mover comes.
my $user = $pg->session;
$user->query('begin; lock table ngx_pgq.queue_0 in row exclusive mode');
my $command = $pg->session;
$pg->safe_psql(q{create function pass() returns trigger language plpgsql as 'begin return new; end'});
$command->send('create trigger pass before insert on ngx_pgq.queue for each row execute function pass()');
my $waiting = q{select count(*) from pg_stat_activity where wait_event_type = 'Lock'};
ok($pg->poll_query_until("$waiting and query ~ '^create trigger'", 1), 'a command waits for a leaf');
$pg->safe_psql('select ngx_pgq.resume()');
ok($pg->poll_query_until("$waiting and backend_type = 'ngx_pgq mover'", 1), 'and a mover for the command');
$user->query('commit');

unlike($command->result, qr/ERROR/, 'the command succeeds');
$holder->query('commit');
$pg->safe_psql('insert into ngx_pgq.queue (data) values (\'"wakes"\')');
ok($pg->poll_query_until(q{select count(*) from ngx_pgq.queue}, 0), 'the messages are moved');
is($pg->safe_psql('select coalesce(sum(errors), 0) from ngx_pgq.status'), 0, 'without an error');

# Dropping a trigger begins with the leaves, the last one first.
$user->query('begin; lock table only ngx_pgq.queue in row exclusive mode; lock table ngx_pgq.queue_0 in row exclusive mode');
$command->send('drop trigger pass on ngx_pgq.queue');
ok($pg->poll_query_until("$waiting and query ~ '^drop trigger'", 1), 'a command that drops a trigger waits');
$user->query('lock table ngx_pgq.queue_3 in row exclusive mode; commit');
unlike($command->result, qr/ERROR/, 'and succeeds');
is($pg->safe_psql(q{select count(*) from pg_trigger where tgname = 'pass'}), 0, 'the trigger has gone');
unlike($pg->log_since(0), qr/deadlock/, 'nobody was in a deadlock');

# The command waits for whoever has the queue locked, and the mover for the command.
$pg->safe_psql('select ngx_pgq.pause()');
$pg->safe_psql($enqueue);
$user->send('select ngx_pgq.wait_until_drained()');
ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where query ~ '^select ngx_pgq.wait_until' and wait_event_type = 'Extension'}, 1), 'a session waits for the movers');
$command->send('alter table ngx_pgq.queue add column more integer');
$pg->poll_query_until("select count(*) = 1 from pg_stat_activity where query ~ '^alter table' and (wait_event_type = 'Lock' or state = 'idle')");
$pg->safe_psql('select ngx_pgq.resume()');
is($user->result(10), 't', 'it does not hold up a command that changes the queue, nor a mover');
unlike($command->result, qr/ERROR/, 'the command succeeds');
$_->quit for $older, $holder, $user, $command;

done_testing;
