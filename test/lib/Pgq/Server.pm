package Pgq::Server;

# A server of a test, the parent of Pgq::Postgres and Pgq::Nginx: its process, by {pid}, and its log file, by the method log.
# A position taken before an action limits a question to what was written after it.

use strict;
use warnings;

use Pgq::Host qw(slurp alive descendants ended kill_all);
use Pgq::Wait qw(poll_until);


# ---- the process

sub pid     { return $_[0]{pid} }
sub running { my ($self) = @_; return $self->{pid} && alive($self->{pid}) }


# Ends the server by a signal. Returns its exit status; undef when it had to be killed after this many seconds.
sub end_by {
    my ($self, $signal, $seconds) = @_;
    my $pid    = delete $self->{pid};
    my @pids   = descendants($pid);

    kill $signal, $pid;
    my $status = ended($pid, $seconds);

    if (!defined $status) {
        $self->{stuck} = "$self->{name} does not stop ($signal)";
        kill_all('KILL', $pid, @pids);
        waitpid $pid, 0;
    } elsif (!poll_until { !grep { alive($_) } @pids } 10) {
        $self->{left} = "$self->{name} left processes behind: @{[ grep { alive($_) } @pids ]}";
        kill_all('KILL', @pids);
    }

    return $status;
}


# ---- the log

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


# The lines that match a pattern, except those that the test allows.
sub log_complaints {
    my ($self, $pattern, $more) = @_;

    return grep {
        my $line = $_;
        $line =~ $pattern && !grep { $line =~ $_ } @{ $self->{allow} }
    } split /\n/, $self->log_since(0) . ($more // '');
}


# Lines of the log that match these patterns do not fail the test.
sub allow {
    my ($self, @patterns) = @_;

    push @{ $self->{allow} }, @patterns;

    return $self;
}


1;
