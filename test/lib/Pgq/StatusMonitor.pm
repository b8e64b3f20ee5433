package Pgq::StatusMonitor;

# Checks /status over time: a pool is "ok" while it has a connection, and for two seconds after its last connection was opened
# or ended with its worker. How long workers need to start and lanes to connect depends on the machine; so a pool that is not
# "ok" is wrong only when it had a connection within these two seconds.
#
#   my $status = Pgq::StatusMonitor->new($nginx);
#   $status->ask;               asks again; the HTTP status, undef without an answer
#   $status->complaints;        the answers that were wrong

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
