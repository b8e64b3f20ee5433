package Pgq::StatusMonitor;

# What /status says over a time, and whether it may: a pool is well while it has a connection, and for two seconds after
# the last one was made or left with its worker. How long workers take to start, and lanes to connect, is the machine's
# affair; so a pool that is down is wrong only when two seconds cannot have passed since a connection was there.
#
#   my $status = Pgq::StatusMonitor->new($nginx);
#   $status->ask;               once more; the HTTP status, undef without an answer
#   $status->complaints;        what was wrong

use strict;
use warnings;

use JSON::PP ();
use Time::HiRes qw(time);

my $grace = 2;


sub new {
    my ($class, $server) = @_;

    return bless { server => $server, connected => {}, complaints => [] }, $class;
}


sub ask {
    my ($self) = @_;
    my $asked  = time;
    my $client = eval { Pgq::Client->new($self->{server}) } or return;
    my $answer = $client->get('/status', Connection => 'close') or return;
    my $pools  = eval { JSON::PP::decode_json($answer->body)->{pools} } || [];
    my $since  = $self->{connected};

    my @down = grep { $_->{status} ne 'ok' } @$pools;
    my @wrong = grep { time < ($since->{ $_->{name} } // $asked) + $grace } @down;

    push @{ $self->{complaints} }, 'status ' . $answer->status . ' ' . $answer->body =~ s/\s+/ /gr
        if @wrong || ($answer->status == 200) != !@down;

    $since->{ $_->{name} } = $asked for grep { $_->{connected} } @$pools;

    return $answer->status;
}


sub complaints { return @{ $_[0]{complaints} } }


1;
