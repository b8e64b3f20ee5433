package Peer::RedisTuned;

use strict;
use warnings;

use parent -norequire, 'Peer::Redis';

require Peer::Redis;


sub name    { return 'redis_tuned' }

sub redis   { return '--save', '', qw(--appendonly yes --appendfsync always --unixsocket), $_[0]->_socket, qw(--unixsocketperm 777) }

sub connect { my ($self) = @_; return "'unix:@{[ $self->_socket ]}', { pool_size = 512 }" }

sub finish  { return 'keep' }

sub long_parts { return 1 }

sub move    { return 'move_batch' }

sub insert  { return "insert into @{[ $_[0]->table ]} (data) select unnest(\$1::json[])" }

sub _socket { return "$_[0]{dir}/redis.sock" }


sub settings {
    return 'The same, made durable and fast: `appendfsync always` ("Redis persistence": the only policy that writes before it'
        . ' answers), kept-alive connections over a Unix socket, of which up to 512 stay open in each process of nginx. The worker inserts up to'
        . ' 500 messages with one statement and removes them from the list after the commit, which needs no second list as long'
        . ' as there is one worker ("Pattern: Reliable queue" of `LMOVE`). If it ends in between, it inserts them again.';
}


1;
