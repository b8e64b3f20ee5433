package Pgq::Wait;

# Waiting for a condition, with a deadline: what the tests do instead of sleeping. All deadlines of the tests are
# multiplied by PGQ_SLOW, which the instrumented runs set.

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(time sleep);

our @EXPORT_OK = qw(poll_until deadline timeout);


# Seconds, as long as they have to be in this run.
sub timeout {
    my ($seconds) = @_;

    return $seconds * ($ENV{PGQ_SLOW} || 1);
}


# A code reference that says how many seconds are left; 0 when it is over.
sub deadline {
    my ($seconds) = @_;
    my $end = time + timeout($seconds);

    return sub { my $left = $end - time; $left > 0 ? $left : 0 };
}


# Calls the code again and again until it returns something true, and returns that; false when the time is over.
# It looks often at first and less often later.
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
