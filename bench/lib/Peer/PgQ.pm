package Peer::PgQ;

# PgQ: Lua in nginx inserts events into a queue, pgqd divides them into batches, and a consumer moves these to the table.

use strict;
use warnings;

use parent -norequire, 'Peer::LuaInsert';

require Peer::LuaInsert;

use Pgq::Host qw(pg_bin pg_version spew);

# The consumer of the documentation, in the server: a batch is finished in the transaction that inserts it.
my $consumer = <<'END';
create extension pgq;
select pgq.create_queue('posts');
select pgq.set_queue_config('posts', 'ticker_max_lag', '100 ms');
select pgq.register_consumer('posts', 'mover');

create procedure move_batches() language plpgsql as $$
declare
    batch bigint;
begin
    loop
        batch := pgq.next_batch('posts', 'mover');

        if batch is null then
            perform pg_sleep(0.05);
        else
            insert into %%TABLE%% (data) select ev_data::json from pgq.get_batch_events(batch);
            perform pgq.finish_batch(batch);
        end if;

        commit;
    end loop;
end
$$;
END


sub name     { return 'pgq3' }

sub packages { return ('libnginx-mod-http-lua', 'postgresql-' . pg_version() . '-pgq3', 'pgqd') }

sub statement { return "select pgq.insert_event('posts', 'post', \$1)" }

# pgqd connects again a minute after it has lost PostgreSQL.
sub longest_pause { return 75 }

# pgqd is no broker: events are accepted without it.
sub roles    { return qw(postgresql worker) }


sub start {
    my ($self) = @_;
    my ($dir, $pg) = @$self{qw(dir pg)};
    my $server = $pg->conninfo =~ s/\bdbname=\S+//r;

    $pg->safe_psql($consumer =~ s/%%TABLE%%/$self->table/er);
    $pg->own(spew("$dir/pgqd.ini", <<"END"));
[pgqd]
base_connstr = $server
initial_database = posts
database_list = posts
syslog = 0
check_period = 1
ticker_period = 0.1
END

    $self->serve(broker => Peer::Process->new(command => [ 'pgqd', '-q', "$dir/pgqd.ini" ], dir => $dir));
    $self->SUPER::start;

    # psql waits for the procedure, which does not return; the session ends with it
    my $psql = join ' ', pg_bin() . '/psql -Xq', "-d '@{[ $pg->conninfo ]} options=-cclient_connection_check_interval=100'";

    return $self->serve(worker => Peer::Process->new(
        command => [ 'bash', '-c', "while :; do $psql -c 'call move_batches()'; sleep 0.1; done" ], dir => $dir,
    ));
}


sub settings {
    return 'A call of `pgq.insert_event()` for each message, by the Lua and the connections of lua_insert. pgqd runs the'
        . ' ticker every 0.1 s (`ticker_period`, default 1 s; `ticker_max_lag` 100 ms, default 3 s), as the time until a message'
        . ' is moved is that between ticks; `ticker_max_count` has its default of 500. The consumer is the loop of PgQ\'s "Public'
        . ' Functions" (`next_batch`, `get_batch_events`, `finish_batch`) as a procedure in the server, so that no event goes'
        . ' through a client, and a batch is finished by the transaction that inserts it. When pgqd has lost PostgreSQL, it'
        . ' connects again after 60 s; until then nothing is moved.';
}


1;
