package Pgq::Callers;

# Several clients of one nginx, each a process, that post one message after the other while somebody does something to
# that nginx; afterwards, what each of them was told is compared with posts.
#
#   my $callers = Pgq::Callers->new($nginx, $pg)->start;
#   $callers->wait_for(20);                         each had so many more messages accepted
#   $callers->stop;                                 each ends after an answer
#   my @complaints = $callers->complaints;          the queue is drained, then nothing may be said
#   my $text = $callers->failures;                  what was neither accepted nor sent again with success
#
# Some open a connection for each request, others keep theirs. A kept connection that the server closes before any byte
# of an answer is opened again and the request sent again (counted as `again`): the server has not begun with it, or
# posts would show it twice. The same on a connection that is new is a failure (`cut`), as is nobody listening (`away`)
# - unless they are patient: then they come back until they are answered. Each tenth request is a GET. A watcher reads
# metrics and status all the time: no counter may fall.

use strict;
use warnings;

use JSON::PP ();
use POSIX ();
use Time::HiRes qw(sleep time);

use Pgq::Client;
use Pgq::Host qw(temp_dir ended slurp);
use Pgq::Wait qw(poll_until deadline timeout);

my $crowds = 0;


# Options: new (how many open a connection each time), kept (how many keep theirs), patient, watch (0: no watcher),
# pause (seconds between two requests of one).
sub new {
    my ($class, $nginx, $pg, %option) = @_;

    return bless {
        nginx  => $nginx,
        pg     => $pg,
        new    => 2,
        kept   => 2,
        pause  => 0.004,
        watch  => 1,
        dir    => temp_dir('callers'),
        number => ++$crowds,
        parent => $$,
        %option,
    }, $class;
}


sub start {
    my ($self) = @_;

    $self->{callers} = [ map { my $n = $_; $self->_fork(sub { $self->_call($n) }) } 1 .. $self->{new} + $self->{kept} ];
    $self->{watcher} = $self->_fork(sub { $self->_watch }) if $self->{watch};

    return $self;
}


# Waits until each of them had so many more messages accepted; false when that takes too long.
sub wait_for {
    my ($self, $more, $seconds) = @_;
    my @count = map { $self->_accepted($_) } 1 .. @{ $self->{callers} };

    return poll_until {
        !grep { $self->_accepted($_) < $count[ $_ - 1 ] + $more } 1 .. @count;
    } $seconds // 30;
}


sub stop {
    my ($self) = @_;

    open my $out, '>', "$self->{dir}/stop" or die "$self->{dir}/stop: $!\n";
    push @{ $self->{stuck} }, grep { !defined ended($_, 60) } @{ $self->{callers} }, $self->{watcher} // ();
    $self->_read;

    return $self;
}


# How many of a kind there were: accepted, read (GETs), refused, unknown, again, cut, away, broken, late.
sub count { return $_[0]{count}{ $_[1] } // 0 }


# The requests that failed, in words; empty when none did.
sub failures {
    my ($self) = @_;
    my %no = map { $_ => 1 } qw(accepted read again), $self->{patient} ? qw(cut away) : ();

    return join ', ', map { "$self->{count}{$_} $_" } grep { !$no{$_} } sort keys %{ $self->{count} };
}


# All of it, for diag.
sub summary {
    my ($self) = @_;

    return join ', ', (map { "$self->{count}{$_} $_" } sort keys %{ $self->{count} }),
        sprintf 'longest answer %.0f ms', 1000 * $self->{longest};
}


# What is wrong with posts, as sentences, and what the watcher saw. Waits until the queue is drained first.
sub complaints {
    my ($self, $seconds) = @_;
    my $pg    = $self->{pg};
    my @wrong = (@{ $self->{seen} }, map { "process $_ did not end" } @{ $self->{stuck} });
    my (%id, %count);

    push @wrong, 'the queue is not drained'
        if !$pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, $seconds // 30);

    for my $row (split /\n/, $pg->safe_psql(
        "select data::jsonb->>'caller', message_id from posts where data::text like '{\"caller\": \"$self->{number} %'")) {
        my ($message, $id) = split /\|/, $row;
        $count{$message}++;
        $id{$message} = $id;
    }

    for my $message (sort keys %{ $self->{told} }) {
        my ($outcome, $id) = @{ $self->{told}{$message} };
        my $there = delete $count{$message} // 0;

        push @wrong, "lost: $message"                      if !$there && $outcome eq 'accepted';
        push @wrong, "$message is there $there times"      if $there > 1;
        push @wrong, "refused, and yet there: $message"    if $there && $outcome eq 'refused';
        push @wrong, "$message is there under another id"  if $there && $outcome eq 'accepted' && $id ne $id{$message};
    }

    return @wrong, map { "nobody sent $_" } sort keys %count;
}


# ---- what they wrote

sub _accepted {
    my ($self, $n) = @_;
    my $file = "$self->{dir}/$n";

    return -e $file ? scalar(() = slurp($file) =~ /^accepted/mg) : 0;
}


sub _read {
    my ($self) = @_;

    @$self{qw(count told longest)} = ({}, {}, 0);

    for my $n (1 .. @{ $self->{callers} }) {
        for my $line (split /\n/, slurp("$self->{dir}/$n")) {
            my ($outcome, $message, $rest, $seconds) = split /\t/, $line;
            $self->{count}{$outcome}++;
            $self->{longest} = $seconds if ($seconds // 0) > $self->{longest};
            $self->{told}{$message} = [ $outcome, $rest ] if $outcome !~ /^(?:again|cut|away|read)$/;
        }
    }

    my $watched = "$self->{dir}/watch";
    $self->{seen} = [ map { "the watcher saw: $_" } split /\n/, -e $watched ? slurp($watched) : '' ];

    return;
}


# ---- the processes

# A child must run nothing of what this process has at its end.
sub _fork {
    my ($self, $code) = @_;

    defined(my $pid = fork) or die "fork: $!\n";
    return $pid if $pid;

    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
    eval { $code->(); 1 } or print STDERR $@;
    POSIX::_exit(0);
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
    my $caller = { out => $self->_open($n), keeps => $n > $self->{new} };

    for (my $i = 1; $self->_goes_on; $i++) {
        my $message = "$self->{number} $n-$i";

        $self->_request($caller, $message, $i % 10 ? Pgq::Client->request(
            'POST', '/post', body => qq({"caller": "$message"}),
            headers => { 'Content-Type' => 'application/json', $caller->{keeps} ? () : (Connection => 'close') },
        ) : Pgq::Client->request('GET', '/get?limit=1', headers => { $caller->{keeps} ? () : (Connection => 'close') }));

        sleep $self->{pause};
    }

    return;
}


# One request, until there is an answer or a failure; one line for each thing that happened to it.
sub _request {
    my ($self, $caller, $message, $text) = @_;
    my $start = time;
    my $left  = deadline(60);
    my $tell  = sub {
        my ($outcome, $rest) = @_;
        print { $caller->{out} } join("\t", $outcome, $message, $rest // '', sprintf '%.4f', time - $start), "\n";
    };

    while (1) {
        my $kept   = delete $caller->{client};
        my $client = $kept || eval { Pgq::Client->new($self->{nginx}) };

        if (!$client) {
            $tell->('away');
        } else {
            $client->send($text);
            my $answer = $client->answer(timeout => 30);

            if ($answer) {
                $caller->{client} = $client if $caller->{keeps} && ($answer->header('connection') // '') ne 'close';
                return $tell->(_outcome($answer));
            }

            return $tell->('late') if $client->{late};
            return $tell->('broken', $client->{buffer} =~ s/\s+/ /gr) if $client->{buffer} ne '';

            $tell->($kept ? 'again' : 'cut');
            next if $kept;
        }

        return if !$self->{patient} || !$left->();
        sleep 0.01;
    }
}


sub _outcome {
    my ($answer) = @_;
    my $status = $answer->status;

    return (accepted => $answer->json->{id}) if $status == 202;
    return 'read' if $status == 200;
    return ($status == 504 || $status == 500 ? 'unknown' : 'refused', $status);
}


# Counters only grow, and a status is one of two; asked for on new connections, so that each worker has its turn.
sub _watch {
    my ($self) = @_;
    my $out = $self->_open('watch');
    my %last;

    while ($self->_goes_on) {
        sleep 0.01;
        my $client = eval { Pgq::Client->new($self->{nginx}) } or next;
        my $answer = $client->get('/metrics', Connection => 'close') or next;

        if ($answer->status != 200) {
            print {$out} 'metrics ', $answer->status, "\n" if $answer->status != 404;
            next;
        }

        my %now = $answer->body =~ /^(pgq_\w+(?:_total|_count|_bucket|_sum)(?:\{[^}]*\})?) (\S+)$/mg;
        print {$out} map { "$_ fell from $last{$_} to " . ($now{$_} // 'nothing') . "\n" }
            grep { ($now{$_} // -1) < $last{$_} } sort keys %last;
        %last = %now;

        $client = eval { Pgq::Client->new($self->{nginx}) } or next;
        $answer = $client->get('/status', Connection => 'close') or next;
        print {$out} 'status ', $answer->status, ' ', $answer->body =~ s/\s+/ /gr, "\n" if $answer->status != 200;
    }

    return;
}


1;
