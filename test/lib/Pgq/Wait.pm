package Pgq::Wait;

# Waits for a condition with a deadline, instead of sleeping. All deadlines are multiplied by PGQ_SLOW, which the instrumented
# runs set.

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(time sleep);

our @EXPORT_OK = qw(poll_until deadline timeout);


# Seconds, multiplied by PGQ_SLOW.
sub timeout {
    my ($seconds) = @_;

    return $seconds * ($ENV{PGQ_SLOW} || 1);
}


# A function that returns the seconds that are left, 0 after the deadline.
sub deadline {
    my ($seconds) = @_;
    my $end = time + timeout($seconds);

    return sub { my $left = $end - time; $left > 0 ? $left : 0 };
}


# Repeats the code until it returns a true value, and returns that; false at the deadline. The pauses grow from 2 to 100 ms.
sub poll_until(&;$) {
    my ($code, $seconds) = @_;
    my $left  = deadline($seconds // 30);
    my $pause = 0.002;

    while (1) {
        my $result = $code->();
        return $result if $result;
        return '' if !$left->();

        sleep $pause;
        $pause *= 1.5 if $pause < 0.1;
    }
}


1;
