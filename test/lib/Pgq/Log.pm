package Pgq::Log;

# What can be asked of a server's log file; a parent of the servers, which say where it is by the method log. A
# position taken before an action limits a question to what was written after it.

use strict;
use warnings;

use Pgq::Host qw(slurp);
use Pgq::Wait qw(poll_until);


sub log_position {
    my ($self) = @_;

    return -s $self->log // 0;
}


sub log_since {
    my ($self, $position) = @_;

    return -e $self->log ? substr slurp($self->log), $position // 0 : '';
}


sub log_contains {
    my ($self, $pattern, $position) = @_;

    return $self->log_since($position) =~ $pattern;
}


sub wait_for_log {
    my ($self, $pattern, $position, $seconds) = @_;

    return poll_until { $self->log_contains($pattern, $position) } $seconds // 30;
}


# The lines that match and that the test did not allow.
sub log_complaints {
    my ($self, $pattern, $more) = @_;

    return grep {
        my $line = $_;
        $line =~ $pattern && !grep { $line =~ $_ } @{ $self->{allow} }
    } split /\n/, $self->log_since(0) . ($more // '');
}


# Lines of the log that match are no failure of the test.
sub allow {
    my ($self, @patterns) = @_;

    push @{ $self->{allow} }, @patterns;

    return $self;
}


1;
