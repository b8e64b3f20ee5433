package Peer::RabbitMQClassic;

use strict;
use warnings;

use parent -norequire, 'Peer::RabbitMQ';

require Peer::RabbitMQ;


sub name  { return 'rabbitmq_classic' }

sub queue { return 'classic' }


sub settings {
    return 'The same with a durable classic queue and persistent messages, which RabbitMQ 3.10 flushes before it confirms them'
        . ' ("Consumer Acknowledgements and Publisher Confirms").';
}


1;
