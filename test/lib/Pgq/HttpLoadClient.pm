package Pgq::HttpLoadClient;

# One client: what it asks, how it takes an answer or the lack of one, and what it writes down of that. It is a process
# of Pgq::HttpLoad, which says what the kinds are for:
#
#   new       a connection for each request            kept     one connection as long as it lasts
#   roaming   knows all doors, takes one after the other, and gives each message an Idempotency-Key: whatever is no answer
#             within three seconds is asked again at the next door, and so is 409, 503 and 504
#   reader    reads the newest posts all the time, and compares what it reads with what it read before
#
# A line for each thing that happened: outcome, message, id or status or reason, seconds since the first try, when, door.
#
#   accepted, refused, unknown     it was answered: 202, anything else, 500 or 504
#   again     a kept connection was closed before any byte of an answer: sent again, since nginx has not begun with it
#   cut       the same on a new connection, or when the client is careful: it takes nothing for granted
#   away      nobody listens       late     no answer in 40 seconds       broken   half an answer
#   moved     a roaming client goes on to the next door         turned, busy   and since it was told 503 or 504; 409
#   read, unread     an answer to GET, and a bad one
#   seen      a reader saw this message under that id           wrong    what it read cannot be

use strict;
use warnings;

use Time::HiRes qw(sleep time);

use Pgq::Client;
use Pgq::Wait qw(deadline);


# Takes: kind, doors (a list), number (what tells its messages from those of others), out (where it writes), goes_on
# (code), pause (seconds between two requests), patient (comes back while nobody listens, a minute long), careful.
sub new {
    my ($class, %option) = @_;

    return bless { door => 0, client => undef, %option }, $class;
}


sub run {
    my ($self) = @_;

    for (my $i = 1; $self->{goes_on}->(); $i++) {
        $self->_next_door if $self->{kind} eq 'roaming';

        if ($self->{kind} eq 'reader') {
            $self->_read;
        } elsif ($i % 10 == 0) {
            $self->_ask('', 'GET', '/get?limit=1');
        } else {
            my $message = "$self->{number}-$i";

            $self->_ask($message, 'POST', '/post', body => qq({"http_load": "$message"}), headers => {
                'Content-Type' => 'application/json',
                $self->{kind} eq 'roaming' ? ('Idempotency-Key' => qq("$message")) : (),
            });
        }

        sleep $self->{pause};
    }

    return;
}


sub _tell {
    my ($self, $outcome, $message, $rest, $start) = @_;
    my $now = time;

    print { $self->{out} } join("\t", $outcome, $message, $rest // '',
        (map { sprintf '%.4f', $_ } $now - ($start // $now), $now), $self->{door}), "\n";

    return;
}


# ---- requests

sub _next_door {
    my ($self) = @_;

    $self->{door} = ($self->{door} + 1) % @{ $self->{doors} };

    return;
}


# One request, until there is an answer or a failure.
sub _ask {
    my ($self, $message, @request) = @_;
    my $start  = time;
    my $left   = deadline(60);
    my $untold = 0;    # an earlier try may have done it

    while (1) {
        my ($outcome, $rest) = $self->_try(@request);
        my $on = $outcome =~ /^(?:away|cut|late|broken)$/ ? 'moved' : { 409 => 'busy', 503 => 'turned', 504 => 'turned' }->{ $rest // '' };

        if ($on && $self->{kind} eq 'roaming' && $left->()) {
            $self->_tell($on, $message, $rest || $outcome, $start);
            $untold ||= $on eq 'busy' || $outcome =~ /^(?:cut|late|broken|unknown)$/;
            $self->_next_door;
            sleep 0.05;
            next;
        }

        $outcome = 'unknown' if $untold && $outcome =~ /^(?:refused|away)$/;
        $self->_tell($outcome, $message, $rest, $start);

        next if $outcome eq 'again';
        return if !$self->{patient} || !$left->() || $outcome !~ ($self->{careful} ? qr/^away$/ : qr/^(?:away|cut)$/);
        sleep 0.01;
    }
}


# One try, at the door where it is: an outcome, and what belongs to it.
sub _try {
    my ($self, $method, $path, %request) = @_;
    my $roams  = $self->{kind} eq 'roaming';
    my $keeps  = $self->{kind} ne 'new' && !$roams;
    my $kept   = delete $self->{client};
    my $client = $kept || eval { Pgq::Client->new($self->{doors}[ $self->{door} ], timeout => $roams ? 1 : 10) };

    return 'away' if !$client;

    $request{headers}{Connection} = 'close' if !$keeps;
    $client->send($client->request($method, $path, %request));

    if (my $answer = $client->answer(timeout => $roams ? 3 : 40)) {
        $self->{client} = $client if $keeps && ($answer->header('connection') // '') ne 'close';
        return ref $request{read} ? $request{read}->($answer) : _outcome($answer);
    }

    return 'late' if $client->{late};
    return ('broken', $client->{buffer} =~ s/\s+/ /gr) if $client->{buffer} ne '';
    return $kept && !$self->{careful} ? 'again' : 'cut';
}


sub _outcome {
    my ($answer) = @_;
    my $status = $answer->status;

    return (accepted => $answer->json->{id}) if $status == 202;
    return (read => $status) if $status == 200;
    return ($status == 504 || $status == 500 ? 'unknown' : 'refused', $status);
}


# ---- reading

# The newest posts. What was seen stays seen: no post comes in between two that were there, none goes, none changes.
sub _read {
    my ($self) = @_;
    my $posts;
    my ($outcome, $rest) = $self->_try('GET', '/get?limit=100', read => sub {
        my ($answer) = @_;
        $posts = $answer->json->{msg} if $answer->status == 200;
        return ($posts ? 'read' : 'unread', $answer->status);
    });

    if (!$posts) {
        $self->_tell($outcome eq 'unread' ? $outcome : "reader $outcome", '', $rest);
        return;
    }

    $self->_tell(read => '', $rest);

    my %now = map { $_->{id} => ref $_->{data} eq 'HASH' ? $_->{data}{http_load} // '' : '' } @$posts;
    my @id  = map { $_->{id} } @$posts;
    my ($before, $least, $most) = @{ $self->{before} || [ {}, 0, 0 ] };

    $self->_tell(wrong => "ids of one page do not fall: @id") if "@id" ne join ' ', sort { $b <=> $a } @id;

    for my $id (@id) {
        $self->_tell(seen => $now{$id}, $id) if !exists $before->{$id} && $now{$id} ne '';
        $self->_tell(wrong => "post $id came in between") if $id < $most && $id > $least && !exists $before->{$id};
    }
    for my $id (grep { @id && $_ >= $id[-1] } keys %$before) {
        $self->_tell(wrong => "post $id is gone") if !exists $now{$id};
    }

    $self->{before} = [ \%now, $id[-1] // 0, $id[0] // 0 ];

    return;
}


1;
