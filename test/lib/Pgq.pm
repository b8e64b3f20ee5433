package Pgq;

# What a test file begins with:
#
#   use Pgq;
#
#   my $pg    = Pgq::Postgres->new->start;
#   my $nginx = Pgq::Nginx->new(pg => $pg)->start;
#   is(Pgq::Client->new($nginx)->post('/post', '1')->{status}, 202, 'a number is a message');
#   done_testing;
#
# It brings strict, warnings, all of Test::More, poll_until, and the classes of the harness. done_testing is this
# one's: it stops every server of the test and asserts that nothing went wrong behind the scenes: no [alert] or
# [emerg], no PANIC, no crashed process, no sanitizer or valgrind report, no connection and no process left. When a
# test fails the logs' ends are shown and the directory is kept.

use strict;
use warnings;

use Test::More ();
use Time::HiRes ();

use Pgq::Client;
use Pgq::Host ();
use Pgq::Nginx;
use Pgq::Postgres;
use Pgq::Producer;
use Pgq::Wait ();

my $finished;
my $owner = $$;


sub import {
    my $caller = caller;

    strict->import;
    warnings->import;

    no strict 'refs';

    for my $name (grep { /^\w+$/ && $_ ne 'done_testing' } @Test::More::EXPORT) {
        *{"${caller}::$name"} = \&{"Test::More::$name"};
    }

    *{"${caller}::done_testing"} = \&done_testing;
    *{"${caller}::poll_until"}   = \&Pgq::Wait::poll_until;
    *{"${caller}::timeout"}      = \&Pgq::Wait::timeout;

    Test::More->builder->exported_to($caller);

    return;
}


sub done_testing {
    my @complaints = finish();

    Test::More::ok(!@complaints, 'nothing went wrong behind the scenes')
        or Test::More::diag(join "\n", @complaints);
    Test::More::done_testing();

    return;
}


# Stops every server, nginx first; what they did wrong.
sub finish {
    return if $finished++;

    my @leaks = map { $_->leaked_lanes } @Pgq::Nginx::instances;

    $_->stop for grep { $_->running } @Pgq::Nginx::instances;
    $_->stop for grep { $_->running } reverse @Pgq::Postgres::instances;

    return @leaks, map { $_->complaints } @Pgq::Nginx::instances, @Pgq::Postgres::instances;
}


# A test that ended early, too, leaves nothing behind.
END {
    if ($$ == $owner) {
        my $status = $?;

        if (!$finished) {
            my @complaints = finish();
            Test::More::diag(join "\n", @complaints) if @complaints;
        }

        if ($status || !Test::More->builder->is_passing) {
            show_logs();
            my $dir = Pgq::Host::kept();
            Test::More::diag("logs are kept in $dir") if $dir;
        }

        # Children of the test that are left would keep its output open, and prove waiting.
        Pgq::Host::kill_all('KILL', Pgq::Host::descendants($$));
        Pgq::Host::remove_temp_dir();
        $? = $status;
    }
}


sub show_logs {
    for my $server (@Pgq::Nginx::instances, @Pgq::Postgres::instances) {
        next if !-s $server->log;

        my @lines = split /\n/, $server->log_since(0);
        splice @lines, 0, @lines - 40 if @lines > 40;
        Test::More::diag(join "\n", '---- the end of ' . $server->log, @lines);
    }

    return;
}


$SIG{$_} = sub { exit 1 } for qw(INT TERM HUP);


1;
