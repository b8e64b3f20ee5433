package Peer::Redis;

# Lua in nginx pushes a message to a list of Redis; a worker, an nginx with a timer, brings it from there to PostgreSQL.

use strict;
use warnings;

use parent 'Peer';

use IO::Socket::INET;

use Pgq::Host qw(free_port);


sub name     { return 'redis' }

sub long_parts { return 0 }

sub packages { return qw(libnginx-mod-http-lua redis-server) }

sub url      { return $_[0]{server}{http}->url('/post') }

# arguments of redis-server; how Lua connects, and what it does with the connection afterwards
sub redis    { return '--save', '3600 1 300 100 60 10000' }

sub connect  { return "'127.0.0.1', $_[0]{port}" }

sub finish   { return 'close' }

# the worker: its function, and its statement
sub move     { return 'move_one' }

sub insert   { return "insert into @{[ $_[0]->table ]} (data) values (\$1)" }


sub start {
    my ($self) = @_;
    my $connect = $self->connect($self->{port} = free_port());

    $self->create_table;
    $self->serve(broker => Peer::Process->new(
        command => [ 'redis-server', '--port', $self->{port}, '--bind', '127.0.0.1', '--dir', $self->{dir}, $self->redis ],
        dir     => $self->{dir},
        ready   => sub { $self->_ready },
    ));

    $self->serve(worker => $self->lua_nginx(name => $self->name . '.worker', workers => 1, http => <<"END"));
init_worker_by_lua_block {
    local redis = require "redis"
    local server = require("postgres").new {
        socket = "@{[ $self->{pg}->socket ]}/.s.PGSQL.@{[ $self->{pg}->port ]}", user = "postgres", database = "posts",
        pool_size = 1, statement = "@{[ $self->insert ]}",
    }
    ngx.timer.at(0, function(premature)
        if not premature then redis.work(redis.@{[ $self->move ]}, server, $connect) end
    end)
}
END

    $self->serve(http => $self->lua_nginx(name => $self->name . '.http', locations => <<"END"));
location = /post {
    content_by_lua_block {
        ngx.req.read_body()
        local redis = require("redis").connect($connect)
        local pushed = redis and redis:call("RPUSH", "queue", ngx.req.get_body_data())
        if not pushed then
            return ngx.exit(503)
        end
        redis:@{[ $self->finish ]}()
        ngx.status = 202
        ngx.say('{"status":"queued"}')
    }
}
END

    return;
}


# Whether Redis answers, and not that it is loading its file.
sub _ready {
    my ($self) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 5) or return 0;

    print {$socket} "PING\r\n";

    return (<$socket> // '') =~ /^\+PONG/;
}


sub settings {
    return 'The demo from which ngx_pgq began, as it was written: Lua opens a connection to Redis for each request and pushes'
        . ' the message to a list; the worker pops one message and inserts it. Redis has the durability of its default'
        . ' configuration, snapshots: an acknowledged message is in memory only.';
}


1;
