package Pgq;

# The beginning of a test file:
#
#   use Pgq;
#
#   my $pg    = Pgq::Postgres->new->start;
#   my $nginx = Pgq::Nginx->new(pg => $pg)->start;
#   is(Pgq::Client->new($nginx)->post('/post', '1')->{status}, 202, 'a number is a message');
#   done_testing;
#
# It imports strict, warnings, Test::More, poll_until, is_problem, not_blocked and the classes of the harness. Its done_testing stops every server of
# the test and asserts that there is no [alert] or [emerg], no PANIC, no crashed process, no report of a sanitizer or of
# valgrind, and no connection or process left. When a test fails, the ends of the logs are shown and its directory is kept.

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
    *{"${caller}::is_problem"}   = \&is_problem;
    *{"${caller}::not_blocked"}  = \&not_blocked;
    *{"${caller}::poll_until"}   = \&Pgq::Wait::poll_until;
    *{"${caller}::timeout"}      = \&Pgq::Wait::timeout;

    Test::More->builder->exported_to($caller);

    return;
}


# Checks that an answer is a problem document with this status and code.
sub is_problem {
    my ($answer, $status, $code, $what) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;

    Test::More::is($answer->status, $status, "$what is answered with $status");
    Test::More::is($answer->header('content-type'), 'application/problem+json', "$what is answered with a problem document");
    Test::More::is($answer->json->{code}, $code, "$what has the code $code");

    return;
}


# Checks that nginx answers another request within a time, while something else waits.
sub not_blocked {
    my ($nginx, $what, $seconds) = @_;
    my $start = Time::HiRes::time();
    local $Test::Builder::Level = $Test::Builder::Level + 1;

    Test::More::is(Pgq::Client->new($nginx)->get('/nowhere')->status, 404, "$what: nginx answers other requests");
    Test::More::cmp_ok(Time::HiRes::time() - $start, '<', Pgq::Wait::timeout($seconds // 0.5),
        "$what: nginx answers other requests at once");

    return;
}


sub done_testing {
    my @complaints = finish();

    Test::More::ok(!@complaints, 'the servers logged no error and left nothing behind')
        or Test::More::diag(join "\n", @complaints);
    Test::More::done_testing();

    return;
}


# Stops every server, nginx first. Returns the complaints.
sub finish {
    return if $finished++;

    my @leaks = map { $_->leaked_lanes } @Pgq::Nginx::instances;

    $_->stop for grep { $_->running } @Pgq::Nginx::instances;
    $_->stop for grep { $_->running } reverse @Pgq::Postgres::instances;

    return @leaks, map { $_->complaints } @Pgq::Nginx::instances, @Pgq::Postgres::instances;
}


# Stops the servers of a test that ended early.
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

        # Children that are left would keep the test's output open, and prove would wait.
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
