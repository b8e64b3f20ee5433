package Peer::LuaInsert;

# No queue: Lua in nginx inserts each message into the table.

use strict;
use warnings;

use parent 'Peer';


sub name     { return 'lua_insert' }

sub packages { return 'libnginx-mod-http-lua' }

sub url      { return $_[0]{server}{http}->url('/post') }

sub roles    { return 'postgresql' }

# It has one parameter, the message.
sub statement { my ($self) = @_; return "insert into @{[ $self->table ]} (data) values (\$1)" }


sub start {
    my ($self) = @_;

    $self->create_table;

    return $self->serve(http => $self->lua_nginx(
        name      => $self->name,
        http      => <<"END",
init_by_lua_block {
    server = require("postgres").new {
        socket = "@{[ $self->{pg}->socket ]}/.s.PGSQL.@{[ $self->{pg}->port ]}", user = "postgres", database = "posts",
        pool_size = 64, statement = [[@{[ $self->statement ]}]],
    }
}
END
        locations => <<'END',
location = /post {
    content_by_lua_block {
        ngx.req.read_body()
        if not server:execute(ngx.req.get_body_data()) then
            return ngx.exit(503)
        end
        ngx.status = 202
        ngx.say('{"status":"queued"}')
    }
}
END
    ));
}


sub settings {
    return 'Lua in nginx inserts the message and answers after the commit; there is no queue. A prepared statement and kept-alive'
        . ' connections over a Unix socket, 64 for each process of nginx, the fastest of 4 to 200; further requests wait for one of them.';
}


1;
