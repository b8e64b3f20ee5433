package Pgq::Dns;

# A small DNS server on 127.0.0.1: what it says of a name can be changed while it runs, and it counts what it is asked.
#
#   my $dns = Pgq::Dns->new->start;
#   $dns->say('db.test' => { a => ['127.0.0.1'], aaaa => ['::1'], ttl => 1 });
#   $dns->say('db.test' => { silent => 1 });     no answer;  { code => 2 } fails;  { slow => 0.5 } late, by seconds
#   resolver @{[ $dns->address ]};   $dns->asked('db.test');
#
# A name that nothing was said of does not exist.

use strict;
use warnings;

use Carp qw(croak);
use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();
use Socket qw(AF_INET AF_INET6 AF_UNIX SOCK_STREAM PF_UNSPEC inet_pton);
use Time::HiRes qw(time);

use Pgq::Host qw(ended);

my $json  = JSON::PP->new->ascii;
my %type  = (1 => ['a', AF_INET], 28 => ['aaaa', AF_INET6]);
my $exist = 3;


sub new { return bless { zone => {} }, $_[0] }

sub address { return "127.0.0.1:$_[0]{port}" }


sub start {
    my ($self) = @_;

    my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $self->{port} // 0, Proto => 'udp')
        or croak "dns: $@";
    $self->{port} = $socket->sockport;

    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC or croak "socketpair: $!";
    defined($self->{pid} = fork) or croak "fork: $!";

    if ($self->{pid} == 0) {
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
        close $ours;
        @$self{qw(socket control late asked)} = ($socket, $theirs, [], {});
        eval { $self->_run; 1 } or print STDERR "dns: $@";
        POSIX::_exit(0);
    }

    close $theirs;
    $ours->autoflush(1);
    $self->{control} = $ours;
    $self->_ask(%{ $self->{zone} });

    return $self;
}


sub stop {
    my ($self) = @_;

    close delete $self->{control};
    defined ended(delete $self->{pid}, 10) or croak 'the DNS server does not end';

    return $self;
}


sub say {
    my ($self, %zone) = @_;

    %{ $self->{zone} } = (%{ $self->{zone} }, %zone);
    $self->_ask(%zone);

    return $self;
}


# How often a name was asked for, by either type.
sub asked { return $_[0]->_ask->{ $_[1] } // 0 }


sub _ask {
    my ($self, %zone) = @_;

    print { $self->{control} } $json->encode(\%zone), "\n";
    my $line = readline($self->{control}) // croak 'the DNS server has ended';

    return $json->decode($line);
}


# ---- the process

sub _run {
    my ($self) = @_;
    my $select = IO::Select->new(@$self{qw(socket control)});
    my $orders = '';

    while (1) {
        for my $ready ($select->can_read(@{ $self->{late} } ? 0.01 : 60)) {
            if ($ready == $self->{socket}) {
                my $from = recv $ready, my $query, 512, 0;
                $self->_answer($from, $query) if defined $from;
                next;
            }

            sysread $ready, $orders, 65536, length $orders or return;

            while ($orders =~ s/\A(.*)\n//) {
                my $zone = $json->decode($1);
                %{ $self->{zone} } = (%{ $self->{zone} }, %$zone);
                syswrite $ready, $json->encode($self->{asked}) . "\n";
            }
        }

        my $now = time;
        send $self->{socket}, $_->[2], 0, $_->[1] for grep { $_->[0] <= $now } @{ $self->{late} };
        @{ $self->{late} } = grep { $_->[0] > $now } @{ $self->{late} };
    }
}


sub _answer {
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
    my $said     = $self->{zone}{$name} // { code => $exist };
    my ($key, $family) = @{ $type{$type} // return };

    $self->{asked}{$name}++;
    return if $said->{silent};

    my @records = map { my $bytes = inet_pton($family, $_); pack('nnnNn', 0xc00c, $type, 1, $said->{ttl} // 1, length $bytes) . $bytes }
        @{ $said->{$key} || [] };
    my $answer = pack('n6', $id, 0x8180 | ($said->{code} // 0), 1, scalar @records, 0, 0) . $question . join '', @records;

    return push @{ $self->{late} }, [ time + $said->{slow}, $from, $answer ] if $said->{slow};

    return send $self->{socket}, $answer, 0, $from;
}


1;
