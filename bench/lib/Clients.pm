package Clients;

# Clients that stall: they stop in the middle of a request, or send one and never read the answer. They are idle sockets
# of this process, so that their only cost is that of the server. They are closed with the reference to them.
#
#   my $stalled = Clients::stalled($port, 1000);      a third each stops in the head, in the body, before the answer
#   my $held = Clients::held($port, 200, '"text"', 'application/json', 1);       each sends all except for the last byte
#   Clients::complete($held, 100);                    the next hundred send the rest

use strict;
use warnings;

use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_RCVBUF INADDR_LOOPBACK pack_sockaddr_in);

use Pgq::Host qw(slurp);

my $large = 64 * 1024;


# Opens a connection, with the smallest possible receive buffer if $small.
sub _socket {
    my ($port, $small) = @_;

    socket my $socket, Socket::PF_INET(), Socket::SOCK_STREAM(), 0 or die "socket: $!\n";
    setsockopt $socket, SOL_SOCKET, SO_RCVBUF, 1024 or die "SO_RCVBUF: $!\n" if $small;
    connect $socket, pack_sockaddr_in($port, INADDR_LOOPBACK) or die "connect to port $port: $!\n";

    return $socket;
}


sub _send {
    my ($socket, $bytes) = @_;

    while (length $bytes) {
        my $count = syswrite $socket, $bytes;
        die "send: $!\n" if !defined $count;
        substr $bytes, 0, $count, '';
    }

    return $socket;
}


sub _head {
    my ($port, $length, $type) = @_;

    return join "\r\n", 'POST /post HTTP/1.1', "Host: 127.0.0.1:$port", 'User-Agent: stalled', 'Accept: */*',
        "Content-Type: $type", "Content-Length: $length", '', '';
}


sub stalled {
    my ($port, $count) = @_;
    my $body = '"' . 'x' x ($large - 2) . '"';

    my @kinds = (
        sub { _send(_socket($port), substr _head($port, 100, 'application/json'), 0, 80) },
        sub { _send(_socket($port), _head($port, 100, 'application/json') . '"half of it') },
        sub { _send(_socket($port, 1), _head($port, $large, 'application/json') . $body) },
    );

    return [ map { $kinds[ $_ % 3 ]->() } 0 .. $count - 1 ];
}


# Each client sends one request, except for its last $back bytes.
sub held {
    my ($port, $count, $body, $type, $back) = @_;
    my $bytes = _head($port, length $body, $type) . $body;
    my $rest  = substr $bytes, length($bytes) - $back, $back, '';

    return [ map { [ _send(_socket($port), $bytes), $rest ] } 1 .. $count ];
}


# Completes the requests of the next $count clients.
sub complete {
    my ($held, $count) = @_;

    for my $client (@$held) {
        last if $count == 0;
        next if $client->[1] eq '';
        _send(@$client);
        $client->[1] = '';
        $count--;
    }

    return;
}


# Returns the number of bytes that have arrived at a port of this machine and are not read by its server.
sub unread {
    my ($port) = @_;
    my $local  = sprintf ':%04X', $port;
    my $sum    = 0;

    for my $line (split /\n/, slurp('/proc/net/tcp')) {
        my (undef, $address, undef, $state, $queues) = split ' ', $line;
        $sum += hex substr $queues, 9 if $address =~ /$local$/ && $state eq '01';
    }

    return $sum;
}


1;
