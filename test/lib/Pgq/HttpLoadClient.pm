package Pgq::HttpLoadClient;

# One process of Pgq::HttpLoad. It sends requests and logs the outcome of each. Kinds of clients:
#
#   new        opens a connection for each request
#   kept       keeps its connection
#   failover   sends each message to the next of all servers, with an Idempotency-Key. It asks the next server again after
#              three seconds without an answer, after a connection that failed, and after 409, 503 and 504
#   reader     reads the newest posts and compares them with what it read before
#
# It logs a line for each event: outcome, message, id or status or reason, seconds since the first try, time, server.
#
#   accepted      the answer was 202
#   unknown       the answer was 500 or 504
#   refused       the answer had another status
#   resent        a kept connection was closed before the first byte of an answer: nginx had not begun with the request
#   closed        the same on a new connection, or on any connection with the option strict
#   unreachable   the server accepts no connection
#   timeout       there was no answer within 40 seconds
#   truncated     the connection was closed in the middle of an answer
#   switched      a failover client tries the next server after closed, unreachable, timeout or truncated
#   retried       the same after 503 or 504
#   in_progress   the same after 409
#   read, read_failed   the answer to GET was 200, or had another status
#   seen          a reader saw this message as this post
#   wrong         what a reader read contradicts what it read before

use strict;
use warnings;

use Time::HiRes qw(sleep time);

use Pgq::Client;
use Pgq::Wait qw(deadline);


# Options: kind, servers (a list), number (distinguishes its messages from those of others), out (its log), goes_on
# (code), pause (seconds between two requests), reconnects (tries for a minute while the server is unreachable), strict,
# topics (it posts without a topic, to t/1, t/2, … in turn: this many paths).
sub new {
    my ($class, %option) = @_;

    return bless { server => 0, client => undef, %option }, $class;
}


sub run {
    my ($self) = @_;

    for (my $i = 1; $self->{goes_on}->(); $i++) {
        $self->_next_server if $self->{kind} eq 'failover';

        if ($self->{kind} eq 'reader') {
            $self->_read;
        } elsif ($i % 10 == 0) {
            $self->_ask('', 'GET', '/get?limit=1');
        } else {
            my $message = "$self->{number}-$i";
            my $topic   = $i % ($self->{topics} || 1);

            $self->_ask($message, 'POST', $topic ? "/post/t/$topic" : '/post', body => qq({"http_load": "$message"}), headers => {
                'Content-Type' => 'application/json',
                $self->{kind} eq 'failover' ? ('Idempotency-Key' => qq("$message")) : (),
            });
        }

        sleep $self->{pause};
    }

    return;
}


sub _log {
    my ($self, $outcome, $message, $rest, $start) = @_;
    my $now = time;

    print { $self->{out} } join("\t", $outcome, $message, $rest // '',
        (map { sprintf '%.4f', $_ } $now - ($start // $now), $now), $self->{server}), "\n";

    return;
}


# ---- requests

sub _next_server {
    my ($self) = @_;

    $self->{server} = ($self->{server} + 1) % @{ $self->{servers} };

    return;
}


# One request, until there is an answer or a failure.
sub _ask {
    my ($self, $message, @request) = @_;
    my $start  = time;
    my $left   = deadline(60);
    my $maybe  = 0;    # an earlier try may have enqueued the message

    while (1) {
        my ($outcome, $rest) = $self->_try(@request);
        my $next = $outcome =~ /^(?:unreachable|closed|timeout|truncated)$/ ? 'switched' : { 409 => 'in_progress', 503 => 'retried', 504 => 'retried' }->{ $rest // '' };

        if ($next && $self->{kind} eq 'failover' && $left->()) {
            $self->_log($next, $message, $rest || $outcome, $start);
            $maybe ||= $next eq 'in_progress' || $outcome =~ /^(?:closed|timeout|truncated|unknown)$/;
            $self->_next_server;
            sleep 0.05;
            next;
        }

        $outcome = 'unknown' if $maybe && $outcome =~ /^(?:refused|unreachable)$/;
        $self->_log($outcome, $message, $rest, $start);

        next if $outcome eq 'resent';
        return if !$self->{reconnects} || !$left->() || $outcome !~ ($self->{strict} ? qr/^unreachable$/ : qr/^(?:unreachable|closed)$/);
        sleep 0.01;
    }
}


# One try at the current server: the outcome, and the id, status or reason.
sub _try {
    my ($self, $method, $path, %request) = @_;
    my $failover = $self->{kind} eq 'failover';
    my $keeps    = $self->{kind} ne 'new' && !$failover;
    my $kept     = delete $self->{client};
    my $client   = $kept || eval { Pgq::Client->new($self->{servers}[ $self->{server} ], timeout => $failover ? 1 : 10) };

    return 'unreachable' if !$client;

    $request{headers}{Connection} = 'close' if !$keeps;
    $client->send($client->request($method, $path, %request));

    if (my $answer = $client->answer(timeout => $failover ? 3 : 40)) {
        $self->{client} = $client if $keeps && ($answer->header('connection') // '') ne 'close';
        return ref $request{read} ? $request{read}->($answer) : _outcome($answer);
    }

    return 'timeout' if $client->{late};
    return ('truncated', $client->{buffer} =~ s/\s+/ /gr) if $client->{buffer} ne '';
    return $kept && !$self->{strict} ? 'resent' : 'closed';
}


sub _outcome {
    my ($answer) = @_;
    my $status = $answer->status;

    return (accepted => $answer->json->{id}) if $status == 202;
    return (read => $status) if $status == 200;
    return ($status == 504 || $status == 500 ? 'unknown' : 'refused', $status);
}


# ---- reading

# Reads the newest posts. Between two reads no post may appear between others, disappear or change.
sub _read {
    my ($self) = @_;
    my $posts;
    my ($outcome, $rest) = $self->_try('GET', '/get?limit=100', read => sub {
        my ($answer) = @_;
        $posts = $answer->json->{msg} if $answer->status == 200;
        return ($posts ? 'read' : 'read_failed', $answer->status);
    });

    if (!$posts) {
        $self->_log($outcome eq 'read_failed' ? $outcome : "reader $outcome", '', $rest);
        return;
    }

    $self->_log(read => '', $rest);

    my %now = map { $_->{id} => ref $_->{data} eq 'HASH' ? $_->{data}{http_load} // '' : '' } @$posts;
    my @id  = map { $_->{id} } @$posts;
    my ($before, $least, $most) = @{ $self->{before} || [ {}, 0, 0 ] };

    $self->_log(wrong => "ids of one page are not descending: @id") if "@id" ne join ' ', sort { $b <=> $a } @id;

    for my $id (@id) {
        $self->_log(seen => $now{$id}, $id) if !exists $before->{$id} && $now{$id} ne '';
        $self->_log(wrong => "post $id appeared between others") if $id < $most && $id > $least && !exists $before->{$id};
    }
    for my $id (grep { @id && $_ >= $id[-1] } keys %$before) {
        $self->_log(wrong => "post $id disappeared") if !exists $now{$id};
    }

    $self->{before} = [ \%now, $id[-1] // 0, $id[0] // 0 ];

    return;
}


1;
