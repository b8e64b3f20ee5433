package Pgq::Crowd;

# Readers of GET /stream in a process of their own, of all forms, which connect again whenever they are cut.
#
#   my $crowd = Pgq::Crowd->new($nginx, readers => 20);
#   is $crowd->complaints(\@ids), '';    $crowd->opens;    $crowd->stop;

use strict;
use warnings;

use parent 'Pgq::Background';

use List::Util qw(sum);

use Pgq::Stream;

my @forms = qw(sse ndjson websocket);


# Options: readers (number), query.
sub new {
    my ($class, $server, %option) = @_;
    my $self = bless { server => $server, readers => 10, query => 'after=0', %option }, $class;

    return $self->_start;
}


# What is wrong with the posts of each reader, when all of them have got the last of these posts, or 60 s have passed.
sub complaints { my ($self, $ids) = @_; return join "\n", @{ $self->_ask($ids) } }

# How often the readers have connected.
sub opens { return $_[0]->_ask([])->[0] }


sub _run {
    my ($self) = @_;
    my @readers = map { Pgq::Stream->new($self->{server}, query => $self->{query}, again => 1, objects => undef, form => $forms[ $_ % @forms ]) }
        1 .. $self->{readers};

    my $ordered = sub {
        my $bits = '';
        vec($bits, fileno $self->{control}, 1) = 1;
        return select($bits, undef, undef, 0) > 0;
    };

    while (1) {
        Pgq::Stream->pump($ordered, 3600, @readers);
        $self->_orders(sub {
            my ($ids) = @_;
            return [ sum(map { $_->opens } @readers) ] if !@$ids;
            Pgq::Stream->pump(sub { !grep { ($_->ids->[-1] // 0) < $ids->[-1] } @readers }, 60, @readers);
            return [ grep { $_ ne '' } map { $_->complaint($ids) } @readers ];
        });
    }

    return;
}


1;
