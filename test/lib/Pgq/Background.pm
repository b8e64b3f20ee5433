package Pgq::Background;

# A server that is a child process of the test and takes orders from it, each a line of JSON: the parent of Pgq::Wire and
# Pgq::Dns. The methods _run and _orders run in the child.

use strict;
use warnings;

use Carp qw(croak);
use JSON::PP ();
use POSIX ();
use Socket qw(AF_UNIX SOCK_STREAM PF_UNSPEC);

use Pgq::Host qw(ended);

my $json = JSON::PP->new->ascii;


# Starts the process, which calls _run. Only the child keeps the socket on which it listens.
sub _start {
    my ($self, $socket) = @_;

    socketpair my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC or croak "socketpair: $!";
    defined($self->{pid} = fork) or croak "fork: $!";

    if ($self->{pid} == 0) {
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
        $SIG{PIPE} = 'IGNORE';
        close $ours;
        @$self{qw(socket control orders)} = ($socket, $theirs, '');
        eval { $self->_run; 1 } or print STDERR ref($self) . ": $@";
        POSIX::_exit(0);
    }

    close $theirs;
    $ours->autoflush(1);
    $self->{control} = $ours;

    return $self;
}


# Ends the process, and with it all of its connections.
sub stop {
    my ($self) = @_;

    close delete $self->{control};
    defined ended(delete $self->{pid}, 10) or croak ref($self) . ' does not end';

    return $self;
}


# Gives an order and returns the answer; both are references.
sub _ask {
    my ($self, $order) = @_;

    print { $self->{control} } $json->encode($order), "\n";
    my $line = readline($self->{control}) // croak ref($self) . ' has ended';

    return $json->decode($line);
}


# Answers the orders that have arrived by what the code returns for each. Ends the process when the test has ended.
sub _orders {
    my ($self, $code) = @_;

    sysread $self->{control}, $self->{orders}, 65536, length $self->{orders} or POSIX::_exit(0);
    syswrite $self->{control}, $json->encode($code->($json->decode($1))) . "\n" while $self->{orders} =~ s/\A(.*)\n//;

    return;
}


1;
