package Pgq::HttpLoad;

# Several clients of one nginx or of several, each a process, that post one message after the other while somebody does
# something to what is behind; afterwards, what each of them was told is compared with posts.
#
#   my $load = Pgq::HttpLoad->new($nginx, $pg)->start;
#   $load->wait_for(20);                         each had so many more messages accepted
#   $load->stop;                                 each ends after an answer
#   my @complaints = $load->complaints;          the queue is drained, then nothing may be said
#   my $text = $load->failures;                  what was neither accepted nor sent again with success
#
# Pgq::HttpLoadClient is one of them: its kinds, and the outcomes that are counted here. A watcher reads metrics and status all
# the time: no counter may fall.

use strict;
use warnings;

use List::Util qw(max);
use POSIX ();
use Time::HiRes qw(sleep time);

use Pgq::HttpLoadClient;
use Pgq::Client;
use Pgq::Host qw(temp_dir ended slurp);
use Pgq::Oracle;
use Pgq::StatusMonitor;
use Pgq::Wait qw(poll_until);

my $loads = 0;


# The nginx is one or a list: each client has one door, in turn, but for those that roam. Options: new, kept, roaming,
# reader (how many of each kind), patient, careful (see Pgq::HttpLoadClient), watch (0: no watcher), pause (seconds between two
# requests of one), number (what tells their messages from those of others: in a database that outlives the test),
# since (only posts beyond this id are looked at), order (0: what a client sent later may have a smaller id).
sub new {
    my ($class, $nginx, $pg, %option) = @_;

    my $self = bless {
        doors   => ref $nginx eq 'ARRAY' ? $nginx : [$nginx],
        pg      => $pg,
        new     => 2,
        kept    => 2,
        roaming => 0,
        reader  => 0,
        pause   => 0.004,
        watch   => 1,
        since   => 0,
        order   => 1,
        dir     => temp_dir('http_load'),
        number  => ++$loads,
        parent  => $$,
        %option,
    }, $class;

    $self->{kinds} = [ map { ($_) x $self->{$_} } qw(new kept roaming reader) ];

    return $self;
}


sub start {
    my ($self) = @_;

    $self->{pids} = [ map { my $n = $_; $self->_fork(sub { $self->_call($n) }) } 1 .. @{ $self->{kinds} } ];
    $self->{watcher} = $self->_fork(sub { $self->_watch }) if $self->{watch};

    return $self;
}


# Waits until each of them had so many more messages accepted, but for those who know only a door that is closed, if one
# is; false when that takes too long.
sub wait_for {
    my ($self, $more, $seconds, $closed) = @_;
    my @posting = grep {
        my $kind = $self->{kinds}[ $_ - 1 ];
        $kind ne 'reader' && ($kind eq 'roaming' || !defined $closed || ($_ - 1) % @{ $self->{doors} } != $closed);
    } 1 .. @{ $self->{kinds} };
    my %count   = map { $_ => $self->_accepted($_) } @posting;

    return poll_until {
        !grep { $self->_accepted($_) < $count{$_} + $more } @posting;
    } $seconds // 30;
}


# How many messages were accepted until now.
sub accepted {
    my ($self) = @_;
    my $sum = 0;

    $sum += $self->_accepted($_) for 1 .. @{ $self->{kinds} };

    return $sum;
}


sub stop {
    my ($self) = @_;

    open my $out, '>', "$self->{dir}/stop" or die "$self->{dir}/stop: $!\n";
    for my $pid (@{ $self->{pids} }, $self->{watcher} // ()) {
        my $status = ended($pid, 120);
        push @{ $self->{died} }, defined $status ? "process $pid: status $status" : "process $pid did not end" if $status // 1;
    }
    $self->_collect;

    return $self;
}


# How many outcomes of a kind there were; at one door, if it is given.
sub count {
    my ($self, $outcome, $door) = @_;

    return (defined $door ? $self->{count_at}{$door}{$outcome} : $self->{count}{$outcome}) // 0;
}


# How many roaming clients went on for a reason: an outcome that is no answer.
sub moved { return $_[0]{moved}{ $_[1] } // 0 }


# The kinds of outcomes that there were.
sub outcomes { return sort keys %{ $_[0]{count} } }


# How many answers of a status there were, as a reference to a hash.
sub answers { return $_[0]{answers} }


# The longest time in seconds without a 202: between two moments, if they are given; of one door; of one kind of client,
# and then of whichever of them had the longest.
sub gap {
    my ($self, %where) = @_;
    my @kinds = @{ $self->{kinds} };

    return max map { $self->_gap(%where, client => $_) } grep { $kinds[ $_ - 1 ] =~ $where{kind} } 1 .. @kinds if $where{kind};
    return $self->_gap(%where);
}


sub _gap {
    my ($self, %where) = @_;
    my ($from, $to) = ($where{from} // 0, $where{to} // time);
    my ($longest, $last) = (0, $where{from});

    for my $accepted (@{ $self->{accepted} }) {
        my ($at, $door, $client) = @$accepted;

        next if $at < $from || defined $where{door} && $door != $where{door} || $where{client} && $client != $where{client};
        $longest = $at - $last if defined $last && $at - $last > $longest;
        $last = $at;
        last if $at > $to;
    }

    return defined $last && $last > $from ? $longest : $to - $from;
}


# Those that were not answered at all, or by half, each in words.
sub odd { return @{ $_[0]{odd} } }


# The requests that failed, in words; empty when none did.
sub failures {
    my ($self) = @_;
    my %no = map { $_ => 1 } qw(accepted read again moved turned busy), $self->{patient} ? qw(cut away) : ();

    return join ', ', map { "$self->{count}{$_} $_" } grep { !$no{$_} } sort keys %{ $self->{count} };
}


# All of it, for diag.
sub summary {
    my ($self) = @_;

    return join ', ', (map { "$self->{count}{$_} $_" } sort keys %{ $self->{count} }),
        sprintf 'longest answer %.0f ms', 1000 * $self->{longest};
}


# What is wrong with posts, as sentences, and what readers and the watcher saw. Waits until the queue is drained first.
sub complaints {
    my ($self, $seconds) = @_;
    my $oracle = $self->{oracle}->drain($self->{pg}, $seconds)
        ->read($self->{pg}, "id > $self->{since} and data::text like '{\"http_load\": \"$self->{number} %'");

    return @{ $self->{wrong} }, @{ $self->{died} || [] }, $oracle->complaints;
}


# ---- what they wrote

# How many that one had accepted: what it wrote since this was asked last is added.
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


sub _collect {
    my ($self) = @_;

    @$self{qw(count count_at moved answers longest accepted wrong odd)} = ({}, {}, {}, {}, 0, [], [], []);
    my $oracle = $self->{oracle} = Pgq::Oracle->new(message => qr/\A\{"http_load": "([^"]*)"\}\z/);

    for my $n (1 .. @{ $self->{kinds} }) {
        my (@posted, $seen);

        for my $line (split /\n/, slurp("$self->{dir}/$n")) {
            my ($outcome, $message, $rest, $seconds, $at, $door) = split /\t/, $line;

            if ($outcome eq 'seen') {
                $seen++;
                $oracle->saw($rest, $message) if index($message, "$self->{number} ") == 0;
                next;
            }
            if ($outcome eq 'wrong') {
                push @{ $self->{wrong} }, "a reader saw: $message";
                next;
            }

            $self->{count}{$outcome}++;
            $self->{count_at}{$door}{$outcome}++;
            $self->{moved}{$rest}++ if $outcome eq 'moved';
            push @{ $self->{odd} }, sprintf '%s %s of client %d (%s) at door %d after %.1f s', $outcome, $message || 'GET', $n,
                $self->{kinds}[ $n - 1 ], $door, $seconds if $outcome =~ /late|broken/;
            $self->{longest} = $seconds if $seconds > $self->{longest};
            $self->{answers}{ $outcome eq 'accepted' ? 202 : $rest }++ if $outcome eq 'accepted' || $rest =~ /^\d{3}$/;

            if ($outcome eq 'accepted') {
                push @{ $self->{accepted} }, [ $at, $door, $n ];
                push @posted, $message;
                $oracle->told($message, 'accepted', id => $rest);
            } elsif ($message ne '' && $outcome =~ /^(?:refused|unknown|cut|late|broken)$/) {
                $oracle->told($message, $outcome eq 'refused' ? $outcome : 'unknown', answer => $rest || $outcome);
            } elsif ($message ne '' && $outcome eq 'away' && !$oracle->knows($message)) {
                $oracle->told($message, 'refused', answer => $outcome);
            }
        }

        push @{ $self->{wrong} }, "reader $n saw nothing" if $self->{kinds}[ $n - 1 ] eq 'reader' && !$seen;
        $oracle->ordered(@posted) if $self->{order};
    }

    @{ $self->{accepted} } = sort { $a->[0] <=> $b->[0] } @{ $self->{accepted} };

    my $watched = "$self->{dir}/watch";
    push @{ $self->{wrong} }, map { "the watcher saw: $_" } split /\n/, -e $watched ? slurp($watched) : '';

    return;
}


# ---- the processes

# A child must run nothing of what this process has at its end.
sub _fork {
    my ($self, $code) = @_;

    defined(my $pid = fork) or die "fork: $!\n";
    return $pid if $pid;

    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
    my $good = eval { $code->(); 1 } or print STDERR $@;
    POSIX::_exit($good ? 0 : 1);
}


sub _goes_on {
    my ($self) = @_;

    return !-e "$self->{dir}/stop" && getppid() == $self->{parent};
}


sub _open {
    my ($self, $file) = @_;

    open my $out, '>>', "$self->{dir}/$file" or die "$self->{dir}/$file: $!\n";
    $out->autoflush(1);

    return $out;
}


sub _call {
    my ($self, $n) = @_;
    my $kind = $self->{kinds}[ $n - 1 ];

    Pgq::HttpLoadClient->new(
        kind    => $kind,
        doors   => $self->{doors},
        door    => ($n - 1) % @{ $self->{doors} },
        number  => "$self->{number} $n",
        out     => $self->_open($n),
        goes_on => sub { $self->_goes_on },
        pause   => $kind eq 'reader' ? 0.05 : $self->{pause},
        patient => $self->{patient},
        careful => $self->{careful},
    )->run;

    return;
}


# Counters only grow, and the status is what it may be; asked for on new connections, so that each worker has its turn.
sub _watch {
    my ($self) = @_;
    my $out    = $self->_open('watch');
    my $status = Pgq::StatusMonitor->new($self->{doors}[0]);
    my %last;

    while ($self->_goes_on) {
        sleep 0.01;
        my $client = eval { Pgq::Client->new($self->{doors}[0]) } or next;
        my $answer = $client->get('/metrics', Connection => 'close') or next;

        if ($answer->status != 200) {
            print {$out} 'metrics ', $answer->status, "\n" if $answer->status != 404;
            next;
        }

        my %now = $answer->body =~ /^(pgq_\w+(?:_total|_count|_bucket|_sum)(?:\{[^}]*\})?) (\S+)$/mg;
        print {$out} map { "$_ fell from $last{$_} to " . ($now{$_} // 'nothing') . "\n" }
            grep { ($now{$_} // -1) < $last{$_} } sort keys %last;
        %last = %now;

        $status->ask;
    }

    print {$out} map { "$_\n" } $status->complaints;

    return;
}


1;
