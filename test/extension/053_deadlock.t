# CREATE TRIGGER and similar commands lock the queue and then its leaves, in a mode that does not conflict with readers.
# They cause no deadlock with a mover: before a mover locks a second leaf, it locks the queue in a mode that conflicts with
# such a command.

use Pgq;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 1\nngx_pgq.rotate_size = 64kB\nngx_pgq.idle_interval = '20d'\ndeadlock_timeout = 200ms\n")->start;

my $enqueue = q{select count(*) from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['1'])};

sub current { return $pg->safe_psql(q{select slot from ngx_pgq.status where state = 'current'}) }

# Inserts messages until this slot is the current one.
sub rotate_to {
    my ($slot) = @_;
    return poll_until {
        my $current = current();
        return 1 if $current == $slot;
        $pg->safe_psql('insert into ngx_pgq.queue (data) select to_json(i) from generate_series(1, 2000) as i');
        return $pg->poll_query_until("select slot <> $current from ngx_pgq.status where state = 'current'") && current() == $slot;
    } 60;
}

# A mover reads leaf 3 first, the command locks leaf 0 first. Each leaf has a message, and the one in leaf 3 is locked when
# the mover reads it.
ok(rotate_to(3), 'slot 3 becomes the current one');
my $older = $pg->session;
$older->query("begin; $enqueue");
ok(rotate_to(0), 'slot 0 becomes the current one');
ok($pg->poll_query_until(q{select sum(depth) from ngx_pgq.status}, 0), 'all messages are moved');
$pg->safe_psql('select ngx_pgq.pause()');
$older->query('commit');
$pg->safe_psql($enqueue);
is($pg->safe_psql('select (select count(*) from ngx_pgq.queue_3) || $$ $$ || (select count(*) from ngx_pgq.queue_0)'), '1 1', 'leaves 3 and 0 have one message each');
my $holder = $pg->session;
$holder->query('begin; select from ngx_pgq.queue_3 for update');

# The command has locked the queue and waits for leaf 0 when the mover starts its batch.
my $user = $pg->session;
$user->query('begin; lock table ngx_pgq.queue_0 in row exclusive mode');
my $command = $pg->session;
$pg->safe_psql(q{create function pass() returns trigger language plpgsql as 'begin return new; end'});
$command->send('create trigger pass before insert on ngx_pgq.queue for each row execute function pass()');
my $waiting = q{select count(*) from pg_stat_activity where wait_event_type = 'Lock'};
ok($pg->poll_query_until("$waiting and query ~ '^create trigger'", 1), 'CREATE TRIGGER waits for a leaf');
$pg->safe_psql('select ngx_pgq.resume()');
ok($pg->poll_query_until("$waiting and backend_type = 'ngx_pgq mover'", 1), 'a mover waits for CREATE TRIGGER');
$user->query('commit');

unlike($command->result, qr/ERROR/, 'CREATE TRIGGER succeeds');
$holder->query('commit');
$pg->safe_psql('insert into ngx_pgq.queue (data) values (\'"wakes"\')');
ok($pg->wait_until_moved, 'the messages are moved after CREATE TRIGGER');
is($pg->safe_psql('select coalesce(sum(errors), 0) from ngx_pgq.status'), 0, 'no mover has got an error');

# DROP TRIGGER locks the leaves first, beginning with the last one.
$user->query('begin; lock table only ngx_pgq.queue in row exclusive mode; lock table ngx_pgq.queue_0 in row exclusive mode');
$command->send('drop trigger pass on ngx_pgq.queue');
ok($pg->poll_query_until("$waiting and query ~ '^drop trigger'", 1), 'DROP TRIGGER waits for a lock');
$user->query('lock table ngx_pgq.queue_3 in row exclusive mode; commit');
unlike($command->result, qr/ERROR/, 'DROP TRIGGER succeeds');
is($pg->safe_psql(q{select count(*) from pg_trigger where tgname = 'pass'}), 0, 'the trigger is dropped');
unlike($pg->log_since(0), qr/deadlock/, 'there was no deadlock');

# ALTER TABLE while a session waits in wait_until_drained()
$pg->safe_psql('select ngx_pgq.pause()');
$pg->safe_psql($enqueue);
$user->send('select ngx_pgq.wait_until_drained()');
ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where query ~ '^select ngx_pgq.wait_until' and wait_event_type = 'Extension'}, 1), 'a session waits in wait_until_drained()');
$command->send('alter table ngx_pgq.queue add column more integer');
$pg->poll_query_until("select count(*) = 1 from pg_stat_activity where query ~ '^alter table' and (wait_event_type = 'Lock' or state = 'idle')");
$pg->safe_psql('select ngx_pgq.resume()');
is($user->result(10), 't', 'wait_until_drained() blocks neither ALTER TABLE nor a mover');
unlike($command->result, qr/ERROR/, 'ALTER TABLE succeeds');
$_->quit for $older, $holder, $user, $command;

done_testing;
