package Pgq::HttpLoad;

# Several HTTP clients, each a process, that post to one nginx or several while the test restarts, reloads or stops
# something. Pgq::Oracle then compares what they were told with posts.
#
#   my $load = Pgq::HttpLoad->new($nginx, $pg)->start;
#   $load->wait_for(20);                         each client has had 20 more messages accepted
#   $load->stop;                                 each client ends after its current request
#   my @complaints = $load->complaints;          after the queue is drained; empty when all is well
#   my $text = $load->failures;                  requests that failed; empty when there are none
#
# Pgq::HttpLoadClient describes the kinds of clients and the outcomes that are counted here. One more process reads
# /metrics and /status all the time: no counter may decrease.

use strict;
use warnings;

use List::Util qw(max);
use Time::HiRes qw(sleep time);

use parent 'Pgq::Load';

use Pgq::Client;
use Pgq::Host qw(temp_dir ended slurp);
use Pgq::HttpLoadClient;
use Pgq::Oracle;
use Pgq::StatusMonitor;

my $loads = 0;


# Takes one nginx or a list; each client has one of them, failover clients have all. Options: new, kept, failover, reader
# (how many clients of each kind), reconnects, strict, topics (see Pgq::HttpLoadClient), watch (0: do not read /metrics), pause
# (seconds between two requests of a client), number (distinguishes the messages in a database that outlives the test),
# since (only posts above this id are compared), order (0: ids need not be in the order of acceptance).
sub new {
    my ($class, $nginx, $pg, %option) = @_;

    my $self = bless {
        servers  => ref $nginx eq 'ARRAY' ? $nginx : [$nginx],
        pg       => $pg,
        new      => 2,
        kept     => 2,
        failover => 0,
        reader   => 0,
        pause    => 0.004,
        watch    => 1,
        since    => 0,
        order    => 1,
        dir      => temp_dir('http_load'),
        number   => ++$loads,
        parent   => $$,
        %option,
    }, $class;

    $self->{kinds} = [ map { ($_) x $self->{$_} } qw(new kept failover reader) ];

    return $self;
}


sub start {
    my ($self) = @_;

    $self->{pids} = [ map { my $n = $_; $self->_fork(sub { $self->_client($n) }) } 1 .. @{ $self->{kinds} } ];
    $self->{watcher} = $self->_fork(sub { $self->_watch }) if $self->{watch};

    return $self;
}


# Waits until each client has had this many more messages accepted; false at the deadline. With the number of a closed server
# it does not wait for clients that use only this server.
sub wait_for {
    my ($self, $more, $seconds, $closed) = @_;

    return $self->_wait($more, $seconds, grep {
        my $kind = $self->{kinds}[ $_ - 1 ];
        $kind ne 'reader' && ($kind eq 'failover' || !defined $closed || ($_ - 1) % @{ $self->{servers} } != $closed);
    } 1 .. @{ $self->{kinds} });
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

    $self->_open('stop');
    for my $pid (@{ $self->{pids} }, $self->{watcher} // ()) {
        my $status = ended($pid, 120);
        push @{ $self->{failed} }, defined $status ? "process $pid: status $status" : "process $pid did not end" if $status // 1;
    }
    $self->_collect;

    return $self;
}


# The number of requests with this outcome: to all servers, or to one.
sub count {
    my ($self, $outcome, $server) = @_;

    return (defined $server ? $self->{count_at}{$server}{$outcome} : $self->{count}{$outcome}) // 0;
}


# How often failover clients switched to the next server after this outcome.
sub switched { return $_[0]{switched}{ $_[1] } // 0 }


# The outcomes that occurred.
sub outcomes { return sort keys %{ $_[0]{count} } }


# The number of answers by status, as a reference to a hash.
sub answers { return $_[0]{answers} }


# The longest time in seconds without a 202. Options: from, to (times), server (its number), kind (a pattern: the longest
# time that any client of this kind had).
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
        my ($at, $server, $client) = @$accepted;

        next if $at < $from || defined $where{server} && $server != $where{server} || $where{client} && $client != $where{client};
        $longest = $at - $last if defined $last && $at - $last > $longest;
        $last = $at;
        last if $at > $to;
    }

    return defined $last && $last > $from ? $longest : $to - $from;
}


# The requests without an answer or with half of one, as text.
sub unanswered { return @{ $_[0]{unanswered} } }


# The requests that failed, as text; empty when none did.
sub failures {
    my ($self) = @_;
    my %good = map { $_ => 1 } qw(accepted read resent switched retried in_progress), $self->{reconnects} ? qw(closed unreachable) : ();

    return join ', ', map { "$self->{count}{$_} $_" } grep { !$good{$_} } sort keys %{ $self->{count} };
}


# All outcomes, for diag.
sub summary {
    my ($self) = @_;

    return join ', ', (map { "$self->{count}{$_} $_" } sort keys %{ $self->{count} }),
        sprintf 'longest answer %.0f ms', 1000 * $self->{longest};
}


# The complaints of Pgq::Oracle, of the readers and of the process that reads /metrics, after the queue is drained.
sub complaints {
    my ($self, $seconds) = @_;
    my $oracle = $self->{oracle}->drain($self->{pg}, $seconds)
        ->read($self->{pg}, "id > $self->{since} and data::text like '{\"http_load\": \"$self->{number} %'");

    return @{ $self->{wrong} }, @{ $self->{failed} || [] }, $oracle->complaints;
}


# Reads the logs of all processes.
sub _collect {
    my ($self) = @_;

    @$self{qw(count count_at switched answers longest accepted wrong unanswered)} = ({}, {}, {}, {}, 0, [], [], []);
    my $oracle = $self->{oracle} = Pgq::Oracle->new(message => qr/\A\{"http_load": "([^"]*)"\}\z/);

    for my $n (1 .. @{ $self->{kinds} }) {
        my (@posted, $seen);

        for my $line (split /\n/, slurp("$self->{dir}/$n")) {
            my ($outcome, $message, $rest, $seconds, $at, $server) = split /\t/, $line;

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
            $self->{count_at}{$server}{$outcome}++;
            $self->{switched}{$rest}++ if $outcome eq 'switched';
            push @{ $self->{unanswered} }, sprintf '%s %s of client %d (%s) at server %d after %.1f s', $outcome, $message || 'GET', $n,
                $self->{kinds}[ $n - 1 ], $server, $seconds if $outcome =~ /timeout|truncated/;
            $self->{longest} = $seconds if $seconds > $self->{longest};
            $self->{answers}{ $outcome eq 'accepted' ? 202 : $rest }++ if $outcome eq 'accepted' || $rest =~ /^\d{3}$/;

            if ($outcome eq 'accepted') {
                push @{ $self->{accepted} }, [ $at, $server, $n ];
                push @posted, $message;
                $oracle->told($message, 'accepted', id => $rest);
            } elsif ($message ne '' && $outcome =~ /^(?:refused|unknown|closed|timeout|truncated)$/) {
                $oracle->told($message, $outcome eq 'refused' ? $outcome : 'unknown', answer => $rest || $outcome);
            } elsif ($message ne '' && $outcome eq 'unreachable' && !$oracle->knows($message)) {
                $oracle->told($message, 'refused', answer => $outcome);
            }
        }

        push @{ $self->{wrong} }, "reader $n saw nothing" if $self->{kinds}[ $n - 1 ] eq 'reader' && !$seen;
        $oracle->ordered(@posted) if $self->{order};
    }

    @{ $self->{accepted} } = sort { $a->[0] <=> $b->[0] } @{ $self->{accepted} };

    my $watched = "$self->{dir}/watch";
    push @{ $self->{wrong} }, map { "/metrics or /status: $_" } split /\n/, -e $watched ? slurp($watched) : '';

    return;
}


# ---- the processes

sub _client {
    my ($self, $n) = @_;
    my $kind = $self->{kinds}[ $n - 1 ];

    Pgq::HttpLoadClient->new(
        kind       => $kind,
        servers    => $self->{servers},
        server     => ($n - 1) % @{ $self->{servers} },
        number     => "$self->{number} $n",
        out        => $self->_open($n),
        goes_on    => sub { $self->_goes_on },
        pause      => $kind eq 'reader' ? 0.05 : $self->{pause},
        reconnects => $self->{reconnects},
        strict     => $self->{strict},
        topics     => $self->{topics},
    )->run;

    return;
}


# Counters may not decrease, and the status has to be right. Each request has a new connection, so that it may reach any worker.
sub _watch {
    my ($self) = @_;
    my $out    = $self->_open('watch');
    my $status = Pgq::StatusMonitor->new($self->{servers}[0]);
    my %last;

    while ($self->_goes_on) {
        sleep 0.01;
        my $client = eval { Pgq::Client->new($self->{servers}[0]) } or next;
        my $answer = $client->get('/metrics', Connection => 'close') or next;

        if ($answer->status != 200) {
            print {$out} 'metrics ', $answer->status, "\n" if $answer->status != 404;
            next;
        }

        my %now = $answer->body =~ /^(pgq_\w+(?:_total|_count|_bucket|_sum)(?:\{[^}]*\})?) (\S+)$/mg;
        print {$out} map { "$_ decreased from $last{$_} to " . ($now{$_} // 'nothing') . "\n" }
            grep { ($now{$_} // -1) < $last{$_} } sort keys %last;
        %last = %now;

        $status->ask;
    }

    print {$out} map { "$_\n" } $status->complaints;

    return;
}


1;
