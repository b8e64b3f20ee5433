package Peer::Ceiling;

# The ceiling: nginx answers and stores nothing. It has no table.

use strict;
use warnings;

use parent 'Peer';

use Server qw(other_nginx);


sub name  { return 'ceiling' }

sub table { return undef }

sub url   { return $_[0]{server}{http}->url('/post') }

sub roles { return () }


sub start {
    my ($self) = @_;

    return $self->serve(http => other_nginx(
        name        => 'ceiling',
        workers     => $self->{workers},
        connections => $self->{connections} * 2 + 100,
        locations   => 'location = /post { return 202; }',
    ));
}


sub settings { return '`return 202`: what nginx itself reaches, and nothing is stored.' }


1;
