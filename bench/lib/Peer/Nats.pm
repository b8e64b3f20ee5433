package Peer::Nats;

# NATS JetStream: Lua in nginx publishes to a stream, and nats_posts pulls messages from it and inserts them.

use strict;
use warnings;

use parent 'Peer';

use IO::Socket::INET;

use Pgq::Host qw(build_dir free_port slurp spew);


sub name     { return 'nats' }

sub packages { return qw(libnginx-mod-http-lua nats-server) }

sub url      { return $_[0]{server}{http}->url('/post') }

# Messages of a killed worker are sent again after ack_wait, which is 30 s.
sub longest_pause { return 40 }

# Whether it can flush a message before it acknowledges it.
sub _flushes { my ($class) = @_; return grep { $_->[0] eq 'nats-server' && $_->[1] !~ /^2\.[0-9]\./ } $class->versions }


sub start {
    my ($self) = @_;
    my $port = free_port();
    my $sync = $self->_flushes ? 'sync_interval: always' : '';

    $self->create_table;
    $self->{pg}->own(spew("$self->{dir}/nats.conf", <<"END"));
host: 127.0.0.1
port: $port
jetstream {
    store_dir: '$self->{dir}'
    $sync
}
END

    $self->serve(broker => Peer::Process->new(
        command => [ 'nats-server', '-c', "$self->{dir}/nats.conf" ],
        dir     => $self->{dir},
        ready   => sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") },
    ));
    $self->serve(worker => Peer::Process->new(
        command => [ build_dir() . '/bench/nats_posts', $port, 'posts', 500, $self->{pg}->conninfo, $self->table ],
        dir     => $self->{dir},
        ready   => sub { slurp("$self->{dir}/output") =~ /consuming$/m },
    ));

    return $self->serve(http => $self->broker_nginx('nats', 'posts', $port));
}


sub settings {
    my ($class) = @_;

    return ($class->_flushes
        ? '`sync_interval: always` ("JetStream", "Syncing data to disk": the only setting that flushes a message before it is'
            . ' acknowledged; the default is every two minutes).'
        : '**Not durable as the others are**: this version cannot flush a message before it acknowledges it, as `sync_interval`'
            . ' came with 2.10; it flushes every two minutes. A message may be lost that was'
            . ' acknowledged, when the process is killed and more so after a power failure.')
        . ' One stream in files, one replica; it keeps messages for a day (retention `limits`, the default). A work queue, which'
        . ' removes each message when it is acknowledged, was also measured: with `sync_interval: always` it writes three times'
        . ' as much, costs the server twice the CPU time, and the worker falls behind. Each process of nginx has one connection;'
        . ' it publishes while earlier messages wait for their `PubAck` ("asynchronous publishing"). The worker is a durable pull'
        . ' consumer, which asks for 500 messages, and for more when half of them have come; it inserts what has arrived by'
        . ' `COPY`, and then acknowledges each message (`AckExplicit`).';
}


1;
