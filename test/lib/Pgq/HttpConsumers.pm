package Pgq::HttpConsumers;

# Processes that consume subscriptions by HTTP, at any of several nginx, while the test kills servers. Each process kills itself
# (SIGKILL) after some batches, each time at another step, and is started again by tend(). Some keep their part, others release
# it; sometimes one is slower than its lease of a second. An effect is a line of a file, which is written before the
# acknowledgement.
#
#   my $consumers = Pgq::HttpConsumers->new([$nginx, …], orders => 2, all => 4)->start;     how many for each subscription
#   poll_until { $consumers->tend; $consumers->effects('all') == 100 };
#   my @complaints = $consumers->stop->complaints($pg, all => 'true');          which posts each subscription must have had
#   $consumers->count('acked');          the number of lines of this kind:
#
#   got       the answer to a GET has posts: when the GET was sent, the subscription, the part, ids and data, when it came
#   effect    the subscription, ids
#   acked     an acknowledgement was answered 204: when, the subscription, the part, the last id
#   fenced    an answer was 409
#   failed    the connection was lost, or the answer was 500, 503 or 504
#   killed    the process kills itself: the step
#   wrong     anything else

use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use JSON::PP ();
use List::Util qw(max);
use POSIX qw(WNOHANG);
use Socket qw(IPPROTO_TCP SOL_SOCKET SO_KEEPALIVE TCP_KEEPCNT TCP_KEEPIDLE TCP_KEEPINTVL);
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime sleep);

use parent 'Pgq::Load';

use Pgq::Client;
use Pgq::Host qw(temp_dir ended slurp);

my $json  = JSON::PP->new->utf8->canonical->allow_nonref;
my @steps = qw(asked answered processed acknowledging acknowledged);


sub new {
    my ($class, $servers, %consumers) = @_;

    return bless {
        servers => $servers,
        dir     => temp_dir('http_consumers'),
        names   => [ map { ($_) x $consumers{$_} } sort keys %consumers ],
        started => 0,
        read    => 0,
        parent  => $$,
    }, $class;
}


# Option: lives (how often a consumer is at its step before it kills itself; default: 2 to 9 times).
sub start {
    my ($self, %option) = @_;

    $self->{most} = $option{lives};

    $self->_spawn($_) for 0 .. $#{ $self->{names} };

    return $self;
}


# Starts those again that have ended.
sub tend {
    my ($self) = @_;

    for my $n (0 .. $#{ $self->{names} }) {
        next if waitpid($self->{pids}[$n], WNOHANG) != $self->{pids}[$n];
        push @{ $self->{wrong} }, "consumer $n ended with status $?" if ($? & 127) != 9;
        $self->_spawn($n);
    }

    return $self;
}


sub stop {
    my ($self) = @_;

    $self->_open('stop');
    push @{ $self->{wrong} }, map { "consumer $_ did not end" } grep { !defined ended($self->{pids}[$_], 60) } 0 .. $#{ $self->{names} };

    return $self;
}


# How many posts of a subscription have an effect.
sub effects {
    my ($self, $name) = @_;
    $self->_read;

    return scalar keys %{ $self->{effects}{$name} || {} };
}


sub count { my ($self, $what) = @_; $self->_read; return $self->{count}{$what} // 0 }


# Posts without an effect, first effects that are not in the order of their topic, wrong data, and posts that were given to a
# consumer that asked after they had been acknowledged.
sub complaints {
    my ($self, $pg, %posts) = @_;
    my (%topic, %data, %first, %acked);
    my @wrong = @{ $self->{wrong} || [] };
    $self->_read;

    for my $row (split /\n/, $pg->safe_psql('select id, topic, data from posts where ' . join ' or ', map { "($_)" } values %posts)) {
        my ($id, $topic, $data) = split /\|/, $row, 3;
        $topic{$id} = $topic;
        $data{$id}  = _digest($json->decode($data));
    }

    for my $name (sort keys %posts) {
        my %missing = map { $_ => 1 } split /\n/, $pg->safe_psql("select id from posts where $posts{$name}");

        push @wrong, map { "$name: post $_ does not belong to it" } grep { !$missing{$_} } keys %{ $self->{effects}{$name} };
        delete @missing{ keys %{ $self->{effects}{$name} } };
        push @wrong, map { "$name: post $_ has no effect" } sort { $a <=> $b } keys %missing;

        for my $id (sort { $self->{effects}{$name}{$a} <=> $self->{effects}{$name}{$b} } keys %{ $self->{effects}{$name} }) {
            my $last = $first{$name}{ $topic{$id} } // 0;
            push @wrong, "$name: the first effect of post $id is not in order" if $id < $last;
            $first{$name}{ $topic{$id} } = $id;
        }
    }

    for my $event (sort { $a->[0] <=> $b->[0] } @{ $self->{events} }) {
        my ($time, $what, $name, $part, $value) = @$event;
        my $upto = \$acked{$name}{$part};

        if ($what eq 'acked') {
            $$upto = $value if $value > ($$upto // 0);
            next;
        }
        my %got = map { split /:/, $_, 2 } split /,/, $value;
        push @wrong, map { "$name: post $_ was given after its acknowledgement" } grep { $_ <= ($$upto // 0) } keys %got;
        push @wrong, map { "$name: post $_ was given with other data" } grep { $got{$_} ne ($data{$_} // '') } keys %got;
    }

    return @wrong;
}


# The longest time in seconds without an answer that has posts of a subscription, from this time (of CLOCK_MONOTONIC) until now.
sub gap {
    my ($self, $name, $from) = @_;
    $self->_read;
    my @came  = sort { $a <=> $b } grep { $_ > $from } map { $_->[1] eq 'got' && $_->[2] eq $name ? $_->[5] : () } @{ $self->{events} };
    my @times = ($from, @came, clock_gettime(CLOCK_MONOTONIC));

    return max map { $times[$_] - $times[ $_ - 1 ] } 1 .. $#times;
}


sub _digest { return md5_hex($json->encode($_[0])) }


# Reads the lines that are new. The number of a first effect is its place in the file.
sub _read {
    my ($self) = @_;

    open my $in, '<', "$self->{dir}/lines" or return;
    seek $in, $self->{read}, 0;

    while (my $line = <$in>) {
        last if $line !~ /\n\z/;
        $self->{read} += length $line;
        chomp $line;
        my ($what, @field) = split /\t/, $line;
        $self->{count}{$what}++;

        if ($what eq 'effect') {
            $self->{effects}{ $field[0] }{$_} //= ++$self->{place} for split /,/, $field[1];
        } elsif ($what eq 'got' || $what eq 'acked') {
            my ($time, @rest) = @field;
            push @{ $self->{events} }, [ $time, $what, @rest ];
        } elsif ($what eq 'killed') {
            $self->{count}{"killed $field[0]"}++;
        } elsif ($what eq 'wrong') {
            push @{ $self->{wrong} }, "@field";
        }
    }

    return;
}


# ---- the processes

sub _spawn {
    my ($self, $n) = @_;
    my $step = $steps[ $self->{started}++ % @steps ];
    my $seed = int rand 1_000_000;

    $self->{pids}[$n] = $self->_fork(sub {
        srand $seed;
        @$self{qw(out dies_at lives)} = ($self->_open('lines'), $step, $self->{most} // 2 + int rand 8);
        $self->_consume($self->{names}[$n], $n % 2);
    });

    return;
}


# Each line is one write at the end of the file.
sub _line {
    my ($self, @fields) = @_;

    syswrite $self->{out}, join("\t", @fields) . "\n";

    return;
}


# The process is at a step: sometimes it is slow there, and once it dies.
sub _step {
    my ($self, $step) = @_;

    if ($step eq $self->{dies_at} && --$self->{lives} <= 0) {
        $self->_line(killed => $step);
        kill 'KILL', $$;
    }
    sleep 1.2 if rand 100 < 1;

    return;
}


sub _consume {
    my ($self, $name, $keeps) = @_;
    my $have = '';

    while ($self->_goes_on) {
        my $sent   = clock_gettime(CLOCK_MONOTONIC);
        my $answer = $self->_ask('asked', 'GET', "/sub/$name?wait=1&limit=50&lease=1$have") or next;
        $have = '' if $answer->status == 409;
        next if $answer->status != 200;

        my $batch = $answer->json;
        my ($part, $generation) = @$batch{qw(part generation)};
        my @ids = map { $_->{id} } @{ $batch->{msg} };
        if (!@ids) {
            $have = '';
            next;
        }

        $self->_line(got => $sent, $name, $part, join(',', map { "$_->{id}:" . _digest($_->{data}) } @{ $batch->{msg} }),
            clock_gettime(CLOCK_MONOTONIC));
        $self->_line(wrong => "ids @ids, next $batch->{next}") if $batch->{next} != $ids[-1] || "@ids" ne join ' ', sort { $a <=> $b } @ids;
        $self->_step('answered');
        $self->_line(effect => $name, join ',', @ids);
        $self->_step('processed');

        my $ack = sprintf '{"upto":%d,"generation":%d,"part":%d%s}', $batch->{next}, $generation, $part, $keeps ? '' : ',"release":true';
        my $end;
        while ($self->_goes_on && !$end) {
            $end = $self->_ask('acknowledging', 'POST', "/sub/$name/ack", $ack);
            $end = undef if $end && $end->status >= 500;
        }
        next if !$end;

        $self->_line(acked => clock_gettime(CLOCK_MONOTONIC), $name, $part, $batch->{next}) if $end->status == 204;
        $self->_step('acknowledged');
        $have = $keeps && $end->status == 204 ? "&part=$part&generation=$generation" : '';
    }

    return;
}


# A connection to one of the servers. Keep-alives end it two seconds after a host lost its power; they do not limit the time
# for an answer.
sub _connect {
    my ($self) = @_;
    my $client = eval { Pgq::Client->new($self->{servers}[ rand @{ $self->{servers} } ], timeout => 1) } or return;

    setsockopt $client->socket, SOL_SOCKET, SO_KEEPALIVE, 1;
    setsockopt $client->socket, IPPROTO_TCP, $_, 1 for TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT;

    return $client;
}


# One request at one of the servers. Returns nothing if there was no answer.
sub _ask {
    my ($self, $step, @request) = @_;

    delete $self->{client} if rand 10 < 1;
    my $client = delete $self->{client} // $self->_connect;
    my $answer;

    if ($client) {
        my ($method, $path, $body) = @request;
        $client->send($client->request($method, $path, defined $body ? (body => $body, headers => { 'Content-Type' => 'application/json' }) : ()));
        $self->_step($step);
        $answer = $client->answer;
    }

    if (!$answer || $answer->status >= 500) {
        $self->_line('failed', $answer ? $answer->status : 'lost');
        $self->_line(wrong => "@request: " . $answer->status . ' ' . $answer->body) if $answer && $answer->status !~ /^50[034]$/;
        sleep 0.05;
        return $answer;
    }

    $self->{client} = $client if ($answer->header('connection') // '') ne 'close';
    $self->_line('fenced') if $answer->status == 409;
    $self->_line(wrong => "@request: " . $answer->status . ' ' . $answer->body) if $answer->status !~ /^20[04]$/ && $answer->body !~ /"code":"fenced"/;

    return $answer;
}


1;
