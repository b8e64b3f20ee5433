package Pgq::Cluster;

# The five hosts of `make cluster`, as a test sees them.
#
#   my $cluster = Pgq::Cluster->new;                    the one that runs; else one is made, and removed at the end
#   $cluster->settled;                                  a leader, and every other member a synchronous standby of it
#   my $callers = $cluster->callers->start;             Pgq::Callers at each web host
#   $cluster->switchover;   $cluster->on('pg1', 'systemctl', 'stop', 'etcd')
#   $callers->stop;   $callers->gap;   $callers->complaints
#
# It answers safe_psql and poll_query_until as a Pgq::Postgres does, from whichever member leads. All that happens to a
# host goes through provision/cluster.

use strict;
use warnings;

use Carp qw(croak);
use JSON::PP ();

use Pgq::Callers;
use Pgq::Host qw(top run);
use Pgq::Wait qw(poll_until);

my $command = top() . '/provision/cluster';
my $started;


# Says why and ends the test where no cluster can run.
sub new {
    my ($class) = @_;
    my $peers = top() . '/run/cluster/peers';

    # Not by run(): what it starts ends with the test.
    if (!-e $peers) {
        $started = $$;
        system("$command start > /dev/null") == 0 or croak 'there is no cluster';
    }

    open my $in, '<', $peers or croak "$peers: $!";
    my @hosts = map { /^(\w+):(\w+):(\S+)$/ ? { role => $1, name => $2, address => $3, port => 80 } : () } <$in>;

    return bless { hosts => [ map { bless $_, 'Pgq::Cluster::Host' } @hosts ] }, $class;
}


END {
    if ($started && $started == $$) {
        my $status = $?;
        system("$command stop") if !$ENV{PGQ_KEEP};
        $? = $status;
    }
}


sub webs      { return grep { $_->{role} eq 'web' } @{ $_[0]{hosts} } }
sub databases { return grep { $_->{role} eq 'database' } @{ $_[0]{hosts} } }


# Runs a command on a host, as root; status, output, errors.
sub on {
    my ($self, $host, @command) = @_;

    return run([ $command, 'on', ref $host ? $host->name : $host, @command ]);
}


# What Patroni's members say of each other, as patronictl's JSON has it; empty when none answers.
sub members {
    my ($self) = @_;

    for my $host ($self->databases) {
        my ($status, $out) = $self->on($host, qw(timeout 10 patronictl -c /etc/patroni/config.yml list -f json));
        my $list = $status ? undef : eval { JSON::PP::decode_json($out) };
        return @$list if $list;
    }

    return;
}


sub leader {
    my ($self) = @_;
    my ($leader) = map { $_->{Member} } grep { $_->{Role} eq 'Leader' } $self->members;

    return $leader;
}


# Waits until there is a leader and every other member streams from it, as one of the quorum; false when that takes
# too long.
sub settled {
    my ($self, $seconds) = @_;

    return poll_until {
        my @members = $self->members;
        my %count;

        $count{"$_->{Role} $_->{State}"}++ for @members;

        return ($count{'Leader running'} // 0) == 1 && ($count{'Quorum Standby streaming'} // 0) == $self->databases - 1;
    } $seconds // 60;
}


# Another member becomes the primary; false when none does.
sub switchover {
    my ($self) = @_;
    my ($status, $out, $err) = run([ $command, 'switchover' ]);

    Test::More::diag($out . $err) if $status;

    return !$status;
}


sub psql {
    my ($self, $sql) = @_;
    my ($status, $out, $err) = run([ $command, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', '-' ], in => $sql);

    $out =~ s/\n\z//;

    return ($status, $out, $err);
}


sub safe_psql {
    my ($self, $sql) = @_;
    my ($status, $out, $err) = $self->psql($sql);

    croak "psql: status $status\n$err\nin: $sql" if $status;

    return $out;
}


sub poll_query_until {
    my ($self, $sql, $expected, $seconds) = @_;
    my $last = '';

    my $good = poll_until {
        my ($status, $out, $err) = $self->psql($sql);
        $last = $status ? $err : $out;
        return !$status && $out eq $expected;
    } $seconds // 30;

    Test::More::diag("$sql\nexpected: $expected\nlast seen: $last") if !$good;

    return $good;
}


# Load for every web host: takes the options of Pgq::Callers, and answers to its names for all of them.
sub callers {
    my ($self, %option) = @_;

    return Pgq::Cluster::Callers->new($self, %option);
}


package Pgq::Cluster::Host;

sub name    { return $_[0]{name} }
sub address { return $_[0]{address} }
sub port    { return $_[0]{port} }


package Pgq::Cluster::Callers;

use Time::HiRes ();

sub new {
    my ($class, $cluster, %option) = @_;

    return bless [
        map { Pgq::Callers->new($_, $cluster, new => 1, watch => 0, number => $_->name . '-' . int Time::HiRes::time, %option) }
            $cluster->webs
    ], $class;
}

sub start { $_->start for @{ $_[0] }; return $_[0] }
sub stop  { $_->stop for @{ $_[0] }; return $_[0] }

sub wait_for {
    my ($self, @arguments) = @_;

    return !grep { !$_->wait_for(@arguments) } @$self;
}

sub count {
    my ($self, $kind) = @_;
    my $sum = 0;

    $sum += $_->count($kind) for @$self;

    return $sum;
}

sub failures   { return join ', ', grep { $_ ne '' } map { $_->failures } @{ $_[0] } }
sub summary    { return join '; ', map { $_->summary } @{ $_[0] } }
sub complaints { return map { $_->complaints(60) } @{ $_[0] } }

# The longest time in seconds without a 202 from any of them.
sub gap {
    my ($self) = @_;
    my ($longest, $last) = (0);

    for my $at (sort { $a <=> $b } map { $_->accepted_at } @$self) {
        $longest = $at - $last if defined $last && $at - $last > $longest;
        $last = $at;
    }

    return $longest;
}


1;
