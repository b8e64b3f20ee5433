package Pgq::ClusterTest;

# Runs a load at both web hosts of the cluster, causes a fault once or several times, and checks what clients noticed and
# whether anything is wrong afterwards.
#
#   my $test = Pgq::ClusterTest->new('postmaster killed', target => 5);
#   for (1 .. 5) {
#       $test->round(sub { $cluster->... });                 the fault; then the load has to continue
#       $test->round(sub { ... }, repair => sub { ... });    the same, and then what ends the fault
#       $test->takeover(sub { my ($leader) = @_; ... });     a fault after which another member leads
#   }
#   $test->end;
#
# The load has clients of each kind of Pgq::HttpLoadClient. A round begins when each member is the primary or a synchronous standby and each
# client gets a 202. It ends when this is the case again. Its gap is the longest time without a 202 from either web host.
#
# end() asserts what holds for every fault: Pgq::Oracle has no complaint, the queue drains, there is one timeline, no
# request fails, and the same holds for the load of test/tools/independent-load, whose clients share no code with these.
# It prints the answers by status and the gaps, and adds them to the file PGQ_RESULTS, if it is set. These are
# measurements: no test fails because of them.
#
# Options: target (seconds that a gap should not exceed), gap (options of Pgq::HttpLoad::gap), allow (a pattern: outcomes
# of Pgq::HttpLoadClient that the fault explains), faulty (the number of the only web host that has the fault: nothing is
# allowed at the other one), log (a pattern: lines of logs that the fault explains), load (options of Pgq::HttpLoad).

use strict;
use warnings;

use POSIX ();
use Time::HiRes qw(time);

use Pgq::Cluster;
use Pgq::Host qw(temp_dir spew run ended top);
use Pgq::Oracle;
use Pgq::Wait qw(poll_until);

my $independent = top() . '/test/tools/independent-load';
my $runs        = 0;


sub new {
    my ($class, $name, %option) = @_;
    my $self = bless { name => $name, cluster => Pgq::Cluster->new, began => time, %option }, $class;

    $self->{cluster}->settled or $self->{cluster}->repair;
    Test::More::ok($self->{cluster}->settled(120), 'each member is the primary or a synchronous standby')
        or Test::More::BAIL_OUT('the cluster is not whole');

    $self->{since}   = $self->{cluster}->safe_psql('select coalesce(max(id), 0) from posts');
    $self->{load}    = $self->{cluster}->load(
        failover => 2, reader => 2, pause => 0.01, strict => 1, reconnects => 1, since => $self->{since}, %{ $option{load} || {} },
    )->start;
    $self->_start_independent;

    # The sizes of nginx's logs: the times in them are of no use when a clock is wrong.
    $self->{logged}{ $_->name } = 1 + $self->{cluster}->must($_, qw(stat -c %s /var/log/nginx/error.log)) for $self->{cluster}->webs;

    return $self;
}


# ---- test/tools/independent-load

sub _start_independent {
    my ($self) = @_;

    $self->{run}         = join '-', int time, $$, ++$runs;
    $self->{independent} = temp_dir('independent');
    defined(my $pid = fork) or die "fork: $!\n";
    if (!$pid) {
        exec $independent, 'write', $self->{independent}, $self->{run}, 2, 1, map { $_->address } $self->{cluster}->webs or POSIX::_exit(1);
    }
    $self->{independent_pid} = $pid;

    return;
}


sub _check_independent {
    my ($self) = @_;
    my $order = $self->{load}{order};
    my $posts = $self->{cluster}->safe_psql(
        Pgq::Oracle::query("id > $self->{since} and data::text like '{\"oracle\":\"$self->{run}\"%'"));
    my ($status, $out, $err) = run([ $independent, 'check', $order ? () : '--no-order', $self->{independent}, $self->{run} ], in => "$posts\n");

    Test::More::is($status, 0, "$self->{name}: the independent load has no complaint") or Test::More::diag($out . $err);
    Test::More::diag($out =~ /^(oracle: .*)$/m ? $1 : $err);

    return;
}


sub cluster { return $_[0]{cluster} }


# The id of the newest post from before this test.
sub since { return $_[0]{since} }


# How many messages were accepted until now.
sub accepted { return $_[0]{load}->accepted }


# How often failover clients switched to the other web host after this outcome. Valid after end().
sub switched { my ($self, $outcome) = @_; return $self->{load}->switched($outcome) }


# Waits until each client gets 202s, except clients of a web host that is closed; false at the deadline.
sub load_runs {
    my ($self, $closed) = @_;

    return $self->{load}->wait_for(5, 120, $closed);
}


# Waits for this many seconds.
sub hold {
    my ($self, $seconds) = @_;
    my $end = time + $seconds;

    poll_until { time >= $end } $seconds + 1;

    return;
}


# Asserts that no message is accepted for this many seconds. Answers that are in flight have a second to arrive.
sub accepts_nothing {
    my ($self, $seconds) = @_;

    $self->hold(1);
    my $accepted = $self->{load}->accepted;
    $self->hold($seconds);
    Test::More::is($self->{load}->accepted - $accepted, 0, "$self->{name}: no message is accepted for $seconds seconds");

    return;
}


# Causes the fault, then repairs it; both are code. The load has to continue after each. Options: repair, stops_load (the
# load continues only after the repair), closed (the number of a web host that accepts nothing until the repair).
sub round {
    my ($self, $fault, %option) = @_;
    my $round = sprintf '%s%s', $self->{name}, @{ $self->{rounds} || [] } ? ', again' : '';

    Test::More::ok($self->load_runs, "$round: before the fault each client gets a 202");

    my $from = time;
    $fault->();
    Test::More::ok($self->load_runs($option{closed}), "$round: during the fault the load continues") if !$option{stops_load};

    if ($option{repair}) {
        $option{repair}->();
        Test::More::ok($self->load_runs, "$round: after the repair the load continues");
    }

    Test::More::ok($self->{cluster}->settled(180), "$round: all members have their roles again")
        or Test::More::diag(join "\n", map { join ' ', map { $_ // '-' } @$_{qw(Member Role State TL)} } $self->{cluster}->members);
    Test::More::ok($self->load_runs, "$round: at the end each client gets a 202");
    push @{ $self->{rounds} }, [ $from, time ];

    return;
}


# A round after which another member leads. Both pieces of code get the name of the old leader.
sub takeover {
    my ($self, $fault, %option) = @_;
    my $leader = $self->{cluster}->leader;
    my $repair = delete $option{repair};

    $self->round(sub { $fault->($leader) }, %option, $repair ? (repair => sub { $repair->($leader) }) : ());
    Test::More::isnt($self->{cluster}->leader, $leader, "$self->{name}: another member leads");

    return $leader;
}


sub end {
    my ($self) = @_;
    open my $stop, '>', "$self->{independent}/stop" or die "$self->{independent}/stop: $!\n";
    my $load = $self->{load}->stop;
    Test::More::is(ended($self->{independent_pid}, 120), 0, "$self->{name}: the independent load ends without an error");
    my @failed  = $self->_failed;
    my @wrong   = $load->complaints(60);

    $self->_print(scalar grep { /^lost/ } @wrong);

    Test::More::is(join("\n", @failed), '', "$self->{name}: no request fails");
    Test::More::is(join("\n", splice @wrong, 0, 20), '',
        "$self->{name}: accepted messages are in posts once and in order, and posts that were seen stay");
    $self->_check_independent;
    Test::More::like($self->{cluster}->timelines, qr/^\d+$/, "$self->{name}: all members are on one timeline");
    Test::More::is(join("\n", $self->_logs), '', "$self->{name}: the logs have no unexpected line");
    $self->_keep if !Test::More->builder->is_passing;

    return;
}


# The outcomes that are not allowed, as text. Where `refused` is allowed, failover clients may also have got 503 and 504.
sub _failed {
    my ($self) = @_;
    my $load   = $self->{load};
    my $good   = 'accepted|read|resent|in_progress';
    my $allow  = $self->{allow} // 'none';
    my $may    = join '|', $good, 'switched', $allow, $allow =~ /refused/ ? 'retried' : ();
    my @failed;

    for my $server (0 .. $self->{cluster}->webs - 1) {
        my $pattern = defined $self->{faulty} && $server != $self->{faulty} ? $good : $may;

        push @failed, map { $load->count($_, $server) . " $_ at server $server" }
            grep { !/^(?:$pattern)$/ && $load->count($_, $server) } $load->outcomes;
    }

    return @failed;
}


# Prints the answers and the gaps.
sub _print {
    my ($self, $lost) = @_;
    my $load    = $self->{load};
    my $answers = $load->answers;
    my %other   = map { $_ => $load->count($_) } qw(switched retried closed unreachable timeout truncated);
    my @gaps    = sort { $a <=> $b } map {
        $load->gap(from => $_->[0], to => $_->[1], %{ $self->{gap} || {} })
    } @{ $self->{rounds} };

    my $line = sprintf '%s: %s%s; lost %d; %s', $self->{name},
        join(', ', map { "$_: $answers->{$_}" } sort keys %$answers),
        join('', map { ", $_: $other{$_}" } grep { $other{$_} } sort keys %other), $lost,
        @gaps > 1
            ? sprintf('longest gap %.2f s, median of %d (%s)', $gaps[ @gaps / 2 ], scalar @gaps, join ' ', map { sprintf '%.2f', $_ } @gaps)
            : sprintf('longest gap %.2f s', $gaps[0]);
    $line .= sprintf ', target %g s: %s', $self->{target}, $gaps[ @gaps / 2 ] <= $self->{target} ? 'met' : 'not met' if $self->{target};

    Test::More::diag(join "\n", $line, $load->unanswered);

    if ($ENV{PGQ_RESULTS}) {
        open my $out, '>>', $ENV{PGQ_RESULTS} or die "$ENV{PGQ_RESULTS}: $!\n";
        print {$out} "$line\n";
        close $out or die "$ENV{PGQ_RESULTS}: $!\n";
    }

    return;
}


# Lines since the test began that report a bug of nginx or PostgreSQL.
sub _logs {
    my ($self) = @_;
    my $since = '@' . int $self->{began};
    my @bad;

    for my $web ($self->{cluster}->webs) {
        my ($status, $out) = $self->{cluster}->on($web, 'journalctl', '-q', '-o', 'cat', '-u', 'nginx', "--since=$since");
        push @bad, map { $web->name . ": $_" } grep { /\[(?:alert|emerg)\]/ } split /\n/, $out;
        ($status, $out) = $self->{cluster}->on($web, 'sh', '-c', "tail -c +$self->{logged}{ $web->name } /var/log/nginx/error.log | grep -aE '\\[(alert|emerg)\\]'");
        push @bad, map { $web->name . ": $_" } split /\n/, $out;
    }
    for my $database ($self->{cluster}->databases) {
        my ($status, $out) = $self->{cluster}->on($database, 'journalctl', '-q', '-o', 'cat', '-u', 'patroni', "--since=$since");
        push @bad, map { $database->name . ": $_" } grep { /PANIC:|terminated by signal (?!9)/ } split /\n/, $out;
    }

    @bad = grep { !/$self->{log}/ } @bad if $self->{log};

    return @bad;
}


# Copies what the hosts have logged since the test began to the directory of a test that failed: the hosts are not kept.
sub _keep {
    my ($self) = @_;
    my $dir = temp_dir('journals');

    for my $host (map { $_->name } $self->{cluster}->databases, $self->{cluster}->webs) {
        my (undef, $out) = $self->{cluster}->on($host, qw(journalctl -q -o short-precise), '--since=@' . int $self->{began});
        spew("$dir/$host", $out);
    }

    return;
}


1;
