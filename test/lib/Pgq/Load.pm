package Pgq::Load;

# The processes of a load, and their logs: the parent of Pgq::HttpLoad and Pgq::SqlLoad. Each process has a number and
# appends lines to a log named after it, in the directory {dir}. A line that begins with "accepted" is one success.

use strict;
use warnings;

use POSIX ();

use Pgq::Wait qw(poll_until);


# A child must not run the END blocks of the test.
sub _fork {
    my ($self, $code) = @_;

    defined(my $pid = fork) or die "fork: $!\n";
    return $pid if $pid;

    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
    my $good = eval { $code->(); 1 } or print STDERR $@;
    POSIX::_exit($good ? 0 : 1);
}


sub _open {
    my ($self, $file) = @_;

    open my $out, '>>', "$self->{dir}/$file" or die "$self->{dir}/$file: $!\n";
    $out->autoflush(1);

    return $out;
}


# False when the file `stop` exists or the test has ended.
sub _goes_on {
    my ($self) = @_;

    return !-e "$self->{dir}/stop" && getppid() == $self->{parent};
}


# How many successes a process has logged. It reads only the lines that are new since the last call.
sub _accepted {
    my ($self, $n) = @_;
    my $tally = $self->{tally}{$n} ||= [ 0, 0 ];

    if (open my $in, '<', "$self->{dir}/$n") {
        seek $in, $tally->[0], 0;

        while (my $line = <$in>) {
            last if $line !~ /\n\z/;
            $tally->[0] += length $line;
            $tally->[1]++ if $line =~ /^accepted/;
        }
    }

    return $tally->[1];
}


# Waits until each of these processes has logged this many more successes; false at the deadline.
sub _wait {
    my ($self, $more, $seconds, @numbers) = @_;
    my %before = map { $_ => $self->_accepted($_) } @numbers;

    return poll_until {
        !grep { $self->_accepted($_) < $before{$_} + $more } @numbers;
    } $seconds // 30;
}


1;
