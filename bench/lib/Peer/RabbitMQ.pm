package Peer::RabbitMQ;

# RabbitMQ with a quorum queue: Lua in nginx publishes, and rabbitmq_posts consumes and inserts.

use strict;
use warnings;

use parent 'Peer';

use IO::Socket::INET;

use Pgq::Host qw(build_dir free_port run slurp spew);


sub name     { return 'rabbitmq' }

sub packages { return qw(libnginx-mod-http-lua rabbitmq-server librabbitmq-dev) }

sub url      { return $_[0]{server}{http}->url('/post') }

sub queue    { return 'quorum' }


# A node of its own, on loopback, below $dir. It would start the port mapper as a daemon, which would outlive it, if none were
# running.
sub start {
    my ($self) = @_;
    my $dir = $self->{dir};
    my ($port, $node, $mapper) = map { free_port() } 1 .. 3;

    my %env = (
        HOME => $dir, ERL_EPMD_PORT => $mapper, ERL_EPMD_ADDRESS => '127.0.0.1', RUNNING_UNDER_SYSTEMD => 1,
        RABBITMQ_NODENAME => "bench$port\@localhost", RABBITMQ_NODE_IP_ADDRESS => '127.0.0.1', RABBITMQ_NODE_PORT => $port,
        RABBITMQ_DIST_PORT => $node, RABBITMQ_MNESIA_BASE => "$dir/mnesia", RABBITMQ_LOG_BASE => "$dir/log",
        RABBITMQ_CONFIG_FILE => "$dir/rabbitmq.conf", RABBITMQ_CONF_ENV_FILE => "$dir/none",
        RABBITMQ_ENABLED_PLUGINS_FILE => "$dir/plugins",
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS => '-kernel inet_dist_use_interface {127,0,0,1}',
    );

    $self->{port} = $port;
    $self->create_table;
    $self->{pg}->own(spew("$dir/rabbitmq.conf", "listeners.tcp.1 = 127.0.0.1:$port\n"));

    $self->{mapper} = Peer::Process->new(command => [ 'epmd', '-address', '127.0.0.1', '-port', $mapper ], dir => $dir)->start;
    $self->serve(broker => Peer::Process->new(
        command => ['/usr/lib/rabbitmq/bin/rabbitmq-server'],
        dir     => $dir,
        env     => \%env,
        ready   => sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") },
    ));
    $self->serve(worker => Peer::Process->new(
        command => [
            build_dir() . '/bench/rabbitmq_posts', $port, 'posts', $self->queue, 1000, $self->{pg}->conninfo, $self->table,
        ],
        dir     => $dir,
        ready   => sub { slurp("$dir/output") =~ /consuming$/m },
    ));

    return $self->serve(http => $self->broker_nginx('amqp', 'posts', $port));
}


# With a prefetch of one batch the next one is sent when its acknowledgement has come.
sub consumers {
    my ($self) = @_;

    return map { [ $_->[0], $_->[1], 'consumer_rabbitmq', $self->{port}, $_->[2] ] }
        [ 'prefetch 100', 100, 100 ], [ 'prefetch 1,000', 100, 1000 ], [ 'prefetch 1,000, each message acknowledged', 1, 1000 ];
}


sub fill {
    my ($self, @number) = @_;
    my ($status, undef, $error) = run([ build_dir() . '/bench/rabbitmq_fill', $self->{port}, $self->queue, @number ], timeout => 120);
    die "rabbitmq_fill: status $status\n$error" if $status;

    return;
}


sub stop {
    my ($self) = @_;

    $self->SUPER::stop;
    (delete $self->{mapper})->stop;

    return;
}


sub settings {
    return 'A quorum queue, which its documentation recommends for data that must not be lost ("Quorum Queues"), with one'
        . ' member, persistent messages and publisher confirms ("Consumer Acknowledgements and Publisher Confirms"): a confirm'
        . ' follows the flush of its log. Each process of nginx has one connection and one channel, and publishes while earlier'
        . ' messages wait for their confirms, as the tutorial "Publisher Confirms" recommends for throughput. The worker, in C'
        . ' with librabbitmq, has a prefetch of 1,000; it inserts what has arrived by `COPY`, at most 500 messages, and'
        . ' acknowledges them together after the commit.';
}


1;
