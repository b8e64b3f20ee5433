package Peer::RabbitMQClassic;

use strict;
use warnings;

use parent -norequire, 'Peer::RabbitMQ';

require Peer::RabbitMQ;


sub name  { return 'rabbitmq_classic' }

sub queue { return 'classic' }

sub consumers { return () }

sub long_parts { return 0 }


sub settings {
    my ($class) = @_;
    my $flushes = grep { $_->[0] eq 'rabbitmq-server' && $_->[1] =~ /^3\.(?:[0-9]|10)\./ } $class->versions;

    return 'The same with a durable classic queue and persistent messages. '
        . ($flushes
            ? 'RabbitMQ 3.10 flushes them before it confirms them.'
            : '**Not durable as the others are**: RabbitMQ 4.0 confirms them when they are written, and does not flush them. A'
                . ' killed process loses nothing, a power failure does.');
}


1;
