package Peer;

# A system that bench/compare measures: it accepts messages by HTTP and brings them into a table of PostgreSQL. The file of
# each peer in Peer/ is a subclass, which defines
#
#   name       how the results call it
#   packages   the Debian packages that it needs
#   start      creates its table, starts its servers with serve(), waits until they are ready
#   url        where messages are posted; 200, 201 or 202 is an acknowledgement
#   settings   a text for RESULTS.md: what was chosen, and which documentation recommends it
#
# and, where the defaults below do not fit, the other functions. A peer that has consumers with acknowledgement also defines
#
#   consumers             the ways to consume: [ name, posts a batch, program, arguments ]; the program is one of bench/consume
#   fill($count, $posts)  makes the subscriptions or queues consume1, consume2, …, each with this stock of posts
#
# Options of new:
#
#   dir          a directory for its files, owned by the user of its servers
#   pg           the running PostgreSQL of bench/compare, a Pgq::Postgres; database posts, superuser postgres, trust on the
#                Unix socket
#   workers      processes of nginx
#   connections  the maximum number of clients
#
# A server is an object with start, stop, kill9 and pid, such as a Pgq::Nginx or a Peer::Process. Its role is one of http,
# broker, worker; the role postgresql belongs to every peer.

use strict;
use warnings;

use Pgq::Host qw(descendants run top);
use Peer::Process;
use Server qw(other_nginx);


sub new {
    my ($class, %option) = @_;

    return bless { server => {}, start => 0, %option }, $class;
}


# The names of the subclasses, which are loaded; ngx_pgq is the first.
sub classes {
    my ($dir) = __FILE__ =~ m{(.*)\.pm$};
    my @classes = map { m{/(\w+)\.pm$} ? "Peer::$1" : () } sort glob "$dir/*.pm";

    eval "require $_; 1" or die $@ for @classes;

    return sort { ($b eq 'Peer::NgxPgq') - ($a eq 'Peer::NgxPgq') || $a cmp $b } grep { $_->isa('Peer') } @classes;
}


sub packages  { return () }

sub installed { return !grep { $_->[1] eq '' } $_[0]->versions }

# The packages with their versions, '' if a package is not installed.
sub versions {
    my ($class) = @_;

    return map {
        my (undef, $out) = run([ 'dpkg-query', '-W', '-f', '${db:Status-Status} ${Version}', $_ ]);
        [ $_, $out =~ /^installed (\S+)/ ? $1 : '' ];
    } $class->packages;
}


# ---- the table of its messages

# The table has a column data with the message, and an id that ascends.
sub table { return 'received_' . $_[0]->name =~ s/\W+/_/gr }


sub create_table {
    my ($self) = @_;
    my $table = $self->table;

    return $self->{pg}->safe_psql(
        "create table $table (id bigint generated always as identity primary key, at timestamptz not null default now(), data json not null)");
}


# SQL for the number of messages in the table since it was emptied.
sub moved_sql { my ($self) = @_; return "select greatest(coalesce(max(id), 0) - $self->{start}, 0) from " . $self->table }

sub moved { my ($self) = @_; return $self->{pg}->safe_psql($self->moved_sql) }

# Empties the table. No message may be on its way.
sub empty {
    my ($self) = @_;
    my $table = $self->table;

    $self->{start} = $self->{pg}->safe_psql("select coalesce(max(id), $self->{start}) from $table");
    $self->{pg}->safe_psql("truncate $table");

    return;
}


# ---- its servers

# Starts a server in this role.
sub serve {
    my ($self, $role, $server) = @_;

    $self->{server}{$role} = $server;

    return $server->start;
}


# An nginx with Lua; not started. Options: name, workers, http, locations. bench/peers is in the path of Lua.
sub lua_nginx {
    my ($self, %option) = @_;

    return other_nginx(
        workers     => $self->{workers},
        connections => $self->{connections} * 4 + 100,
        %option,
        modules => [qw(ndk_http_module ngx_http_lua_module)],
        http    => "lua_package_path '@{[ top() ]}/bench/peers/?.lua;;'; lua_socket_log_errors off; client_body_buffer_size 64k; " . ($option{http} // ''),
    );
}


# The same for a broker on this port: a message is posted by bench/peers/pipeline.lua, with a protocol and a queue.
sub broker_nginx {
    my ($self, $protocol, $queue, $port) = @_;

    return $self->lua_nginx(
        name => $self->name,
        http => "init_worker_by_lua_block { broker = require('pipeline').start($port, require('$protocol')('$queue')) }",
        locations => <<'END',
location = /post {
    content_by_lua_block {
        ngx.req.read_body()
        ngx.status = broker:publish(ngx.req.get_body_data()) and 202 or 503
        ngx.say(ngx.status == 202 and '{"status":"queued"}' or '{"status":"unavailable"}')
    }
}
END
    );
}


sub stop {
    my ($self) = @_;
    my $server = delete $self->{server};

    # the front first, so that it does not log the end of the others
    $server->{$_}->stop for grep { $server->{$_} } qw(http worker broker);

    return;
}


# The processes of each role, without those of PostgreSQL.
sub pids {
    my ($self) = @_;

    return map { $_ => [ $self->{server}{$_}->pid, descendants($self->{server}{$_}->pid) ] } keys %{ $self->{server} };
}


# Seconds after which no message moves any more, also when a process was killed.
sub longest_pause { return 10 }

# Whether the parts that take minutes, held and growth, measure it.
sub long_parts { return 1 }

# The roles whose loss is measured.
sub roles { my ($self) = @_; return grep { $self->{server}{$_} } qw(broker worker) }


# Kills all processes of a role, and starts them again as they were.
sub kill {
    my ($self, $role) = @_;
    my $server = $role eq 'postgresql' ? $self->{pg} : $self->{server}{$role};

    $server->kill9;
    $server->start;

    return;
}


1;
