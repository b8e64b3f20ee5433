package Pgq::Dns;

# A small DNS server on 127.0.0.1. Its answers can be changed while it runs, and it counts the queries for each name.
#
#   my $dns = Pgq::Dns->new->start;
#   $dns->say('db.test' => { a => ['127.0.0.1'], aaaa => ['::1'], ttl => 1 });
#   $dns->say('db.test' => { silent => 1 });   no answer; { code => 2 }: an error; { slow => 0.5 }: half a second later
#   resolver @{[ $dns->address ]};   $dns->asked('db.test');
#
# Other names do not exist.

use strict;
use warnings;

use Carp qw(croak);
use IO::Select;
use IO::Socket::INET;
use Socket qw(AF_INET AF_INET6 inet_pton);
use Time::HiRes qw(time);

use parent 'Pgq::Background';

my %type  = (1 => ['a', AF_INET], 28 => ['aaaa', AF_INET6]);
my $does_not_exist = 3;


sub new { return bless { zone => {} }, $_[0] }

sub address { return "127.0.0.1:$_[0]{port}" }


sub start {
    my ($self) = @_;

    my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $self->{port} // 0, Proto => 'udp')
        or croak "dns: $@";
    $self->{port} = $socket->sockport;

    @$self{qw(late queries)} = ([], {});
    $self->_start($socket);
    $self->_ask($self->{zone});

    return $self;
}


sub say {
    my ($self, %zone) = @_;

    %{ $self->{zone} } = (%{ $self->{zone} }, %zone);
    $self->_ask(\%zone);

    return $self;
}


# The number of queries for a name, of both types.
sub asked { return $_[0]->_ask({})->{ $_[1] } // 0 }


# ---- the process

sub _run {
    my ($self) = @_;
    my $select = IO::Select->new(@$self{qw(socket control)});

    while (1) {
        for my $ready ($select->can_read(@{ $self->{late} } ? 0.01 : 60)) {
            if ($ready == $self->{socket}) {
                my $from = recv $ready, my $query, 512, 0;
                $self->_reply($from, $query) if defined $from;
                next;
            }

            $self->_orders(sub {
                my ($zone) = @_;
                %{ $self->{zone} } = (%{ $self->{zone} }, %$zone);
                return $self->{queries};
            });
        }

        my $now = time;
        send $self->{socket}, $_->[2], 0, $_->[1] for grep { $_->[0] <= $now } @{ $self->{late} };
        @{ $self->{late} } = grep { $_->[0] > $now } @{ $self->{late} };
    }
}


sub _reply {
    my ($self, $from, $query) = @_;
    my ($id, undef, $questions) = unpack 'nnn', $query;
    my ($at, @labels) = (12);

    while (my $length = ord substr $query, $at, 1) {
        push @labels, substr $query, $at + 1, $length;
        $at += 1 + $length;
    }

    my $name     = lc join '.', @labels;
    my $question = substr $query, 12, $at + 5 - 12;
    my ($type)   = unpack 'n', substr $query, $at + 1, 2;
    my $entry    = $self->{zone}{$name} // { code => $does_not_exist };
    my ($key, $family) = @{ $type{$type} // return };

    $self->{queries}{$name}++;
    return if $entry->{silent};

    my @records = map { my $bytes = inet_pton($family, $_); pack('nnnNn', 0xc00c, $type, 1, $entry->{ttl} // 1, length $bytes) . $bytes }
        @{ $entry->{$key} || [] };
    my $answer = pack('n6', $id, 0x8180 | ($entry->{code} // 0), 1, scalar @records, 0, 0) . $question . join '', @records;

    return push @{ $self->{late} }, [ time + $entry->{slow}, $from, $answer ] if $entry->{slow};

    return send $self->{socket}, $answer, 0, $from;
}


1;
