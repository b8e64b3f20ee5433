package Pgq::ClusterTest;

# A fault of the cluster under load, once or several times: what the clients had of it, and whether anything is wrong.
#
#   my $test = Pgq::ClusterTest->new('postmaster killed', bar => 5);
#   for (1 .. 5) {
#       $test->round(sub { $cluster->... });               the fault; then the load has to go on
#       $test->round(sub { ... }, mend => sub { ... });    and, after that, what ends it
#       $test->takeover(sub { my ($leader) = @_; ... });   one that the primary does not survive
#   }
#   $test->end;
#
# The load is clients of each kind of Pgq::HttpLoadClient at both doors. A round begins when all members are in their places and
# each client is answered, and ends when that is so again. Its gap is the longest time without a 202 from either door,
# from its beginning to its end.
#
# end() asserts what holds for every fault: what was accepted is in posts once, what was refused is not, what is unknown
# is there at most once; ids grow with what each client was told; what a reader saw stays; the queue drains; one
# timeline; no request fails; and the same holds for the load of test/tools/independent-load, whose clients share no code with
# these. It prints the answers by status and the gaps, which are measurements: no test fails by them. They are added to the file that PGQ_RESULTS names, if it does.
#
# Options: bar (seconds that a gap shall not exceed), gap (options of Pgq::HttpLoad::gap:
# whose), allow (a pattern: outcomes of Pgq::HttpLoadClient that belong to the fault), hit (the number of the door that alone has
# the fault: at the other one nothing is allowed), log (a pattern: lines of logs that belong to it), load (options of
# Pgq::HttpLoad).

use strict;
use warnings;

use POSIX ();
use Time::HiRes qw(time);

use Pgq::Cluster;
use Pgq::Host qw(temp_dir spew run ended top);
use Pgq::Oracle;
use Pgq::Wait qw(poll_until);

my $oracle = top() . '/test/tools/independent-load';
my $runs   = 0;


sub new {
    my ($class, $name, %option) = @_;
    my $self = bless { name => $name, cluster => Pgq::Cluster->new, began => time, %option }, $class;

    $self->{cluster}->settled or $self->{cluster}->repair;
    Test::More::ok($self->{cluster}->settled(120), 'all members are in their places')
        or Test::More::BAIL_OUT('the cluster is not whole');

    $self->{since}   = $self->{cluster}->safe_psql('select coalesce(max(id), 0) from posts');
    $self->{load} = $self->{cluster}->load(
        roaming => 2, reader => 2, pause => 0.01, careful => 1, patient => 1, since => $self->{since}, %{ $option{load} || {} },
    )->start;
    $self->_oracle_starts;

    # What nginx logs from here on: the time in its lines may be anything.
    $self->{logged}{ $_->name } = 1 + $self->{cluster}->must($_, qw(stat -c %s /var/log/nginx/error.log)) for $self->{cluster}->webs;

    return $self;
}


# ---- the independent load: test/tools/independent-load

sub _oracle_starts {
    my ($self) = @_;

    $self->{run}    = join '-', int time, $$, ++$runs;
    $self->{oracle} = temp_dir('oracle');
    defined(my $pid = fork) or die "fork: $!\n";
    if (!$pid) {
        exec $oracle, 'write', $self->{oracle}, $self->{run}, 2, 1, map { $_->address } $self->{cluster}->webs or POSIX::_exit(1);
    }
    $self->{oracle_pid} = $pid;

    return;
}


sub _oracle_judges {
    my ($self) = @_;
    my $order = $self->{load}{order};
    my $posts = $self->{cluster}->safe_psql(
        Pgq::Oracle::query("id > $self->{since} and data::text like '{\"oracle\":\"$self->{run}\"%'"));
    my ($status, $out, $err) = run([ $oracle, 'check', $order ? () : '--no-order', $self->{oracle}, $self->{run} ], in => "$posts\n");

    Test::More::is($status, 0, "$self->{name}: the independent load has no complaint") or Test::More::diag($out . $err);
    Test::More::diag($out =~ /^(oracle: .*)$/m ? $1 : $err);

    return;
}


sub cluster { return $_[0]{cluster} }


# The newest post from before this trial.
sub since { return $_[0]{since} }


# How many messages were accepted until now.
sub accepted { return $_[0]{load}->accepted }


# How many clients that know both doors went to the other one for a reason: cut, away, late, broken. After end().
sub moved { my ($self, $reason) = @_; return $self->{load}->moved($reason) }


# Each client is answered, but for those of a door that is closed; false when that takes too long.
sub flows {
    my ($self, $closed) = @_;

    return $self->{load}->wait_for(5, 120, $closed);
}


# A fault goes on for so many seconds.
sub lasts {
    my ($self, $seconds) = @_;
    my $end = time + $seconds;

    poll_until { time >= $end } $seconds + 1;

    return;
}


# Nobody is told 202 for so many seconds, but for what is on its way to clients already.
sub stands {
    my ($self, $seconds) = @_;

    $self->lasts(1);
    my $accepted = $self->{load}->accepted;
    $self->lasts($seconds);
    Test::More::is($self->{load}->accepted - $accepted, 0, "$self->{name}: no 202 for $seconds seconds");

    return;
}


# The fault, then what mends it. Both are code; the load has to go on after each, except for a fault that `stops` it
# until it is mended, or `closes` a door, by its number.
sub round {
    my ($self, $fault, %option) = @_;
    my $round = sprintf '%s%s', $self->{name}, @{ $self->{rounds} || [] } ? ', again' : '';

    Test::More::ok($self->flows, "$round: a load at both doors");

    my $from = time;
    $fault->();
    Test::More::ok($self->flows($option{closes}), "$round: the load goes on") if !$option{stops};

    if ($option{mend}) {
        $option{mend}->();
        Test::More::ok($self->flows, "$round: mended, and the load goes on");
    }

    Test::More::ok($self->{cluster}->settled(180), "$round: all members are back")
        or Test::More::diag(join "\n", map { join ' ', map { $_ // '-' } @$_{qw(Member Role State TL)} } $self->{cluster}->members);
    Test::More::ok($self->flows, "$round: and each client is answered");
    push @{ $self->{rounds} }, [ $from, time ];

    return;
}


# A round after which another member leads; both codes are told who led.
sub takeover {
    my ($self, $fault, %option) = @_;
    my $leader = $self->{cluster}->leader;
    my $mend   = delete $option{mend};

    $self->round(sub { $fault->($leader) }, %option, $mend ? (mend => sub { $mend->($leader) }) : ());
    Test::More::isnt($self->{cluster}->leader, $leader, "$self->{name}: another member leads");

    return $leader;
}


sub end {
    my ($self) = @_;
    open my $stop, '>', "$self->{oracle}/stop" or die "$self->{oracle}/stop: $!\n";
    my $load = $self->{load}->stop;
    Test::More::is(ended($self->{oracle_pid}, 120), 0, "$self->{name}: the independent load ends");
    my @failed  = $self->_failed;
    my @wrong   = $load->complaints(60);

    $self->_print(scalar grep { /^lost/ } @wrong);

    Test::More::is(join("\n", @failed), '', "$self->{name}: no request fails");
    Test::More::is(join("\n", splice @wrong, 0, 20), '',
        "$self->{name}: what was accepted is in posts once, in order, and what was seen stays");
    $self->_oracle_judges;
    Test::More::like($self->{cluster}->timelines, qr/^\d+$/, "$self->{name}: one timeline");
    Test::More::is(join("\n", $self->_logs), '', "$self->{name}: and nothing in the logs that must not be");
    $self->_keep if !Test::More->builder->is_passing;

    return;
}


# Outcomes that are not allowed. A roaming client may be turned away where others may be refused, and there alone.
sub _failed {
    my ($self) = @_;
    my $load = $self->{load};
    my $good    = 'accepted|read|again|busy';
    my $allow   = $self->{allow} // 'none';
    my $may     = join '|', $good, 'moved', $allow, $allow =~ /refused/ ? 'turned' : ();
    my @failed;

    for my $door (0 .. $self->{cluster}->webs - 1) {
        my $pattern = defined $self->{hit} && $door != $self->{hit} ? $good : $may;

        push @failed, map { $load->count($_, $door) . " $_ at door $door" }
            grep { !/^(?:$pattern)$/ && $load->count($_, $door) } $load->outcomes;
    }

    return @failed;
}


# What was answered, and how long nobody was.
sub _print {
    my ($self, $lost) = @_;
    my $load = $self->{load};
    my $answers = $load->answers;
    my %other   = map { $_ => $load->count($_) } qw(moved turned cut away late broken);
    my @gaps    = sort { $a <=> $b } map {
        $load->gap(from => $_->[0], to => $_->[1], %{ $self->{gap} || {} })
    } @{ $self->{rounds} };

    my $line = sprintf '%s: %s%s; lost %d; %s', $self->{name},
        join(', ', map { "$_: $answers->{$_}" } sort keys %$answers),
        join('', map { ", $_: $other{$_}" } grep { $other{$_} } sort keys %other), $lost,
        @gaps > 1
            ? sprintf('longest gap %.2f s, median of %d (%s)', $gaps[ @gaps / 2 ], scalar @gaps, join ' ', map { sprintf '%.2f', $_ } @gaps)
            : sprintf('longest gap %.2f s', $gaps[0]);
    $line .= sprintf ', bar %g s: %s', $self->{bar}, $gaps[ @gaps / 2 ] <= $self->{bar} ? 'met' : 'not met' if $self->{bar};

    Test::More::diag(join "\n", $line, $load->odd);

    if ($ENV{PGQ_RESULTS}) {
        open my $out, '>>', $ENV{PGQ_RESULTS} or die "$ENV{PGQ_RESULTS}: $!\n";
        print {$out} "$line\n";
        close $out or die "$ENV{PGQ_RESULTS}: $!\n";
    }

    return;
}


# Lines of this trial's time: nginx's own bugs, and PostgreSQL's.
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


# What the hosts logged since the trial began, to where the logs of a test that fails are kept: the hosts are not.
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
