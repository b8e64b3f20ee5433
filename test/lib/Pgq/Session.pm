package Pgq::Session;

# An open psql session, for transactions and locks that last. Statements are sent one after the other, with or without waiting
# for their results.
#
#   my $session = $pg->session;
#   $session->query('begin; select …');        its output, errors included
#   $session->send('select … for update');     does not wait for its output
#   $session->result;                          waits for it

use strict;
use warnings;

use Carp qw(croak);
use IO::Select;
use IPC::Open3 qw(open3);

use Pgq::Wait qw(deadline);


# psql may be a list: a command and its first arguments.
sub new {
    my ($class, $psql, $conninfo) = @_;
    my $self = bless { number => 0, buffer => '' }, $class;

    delete local @ENV{ grep { /^PG(?!Q_|VERSION)/ } keys %ENV };
    $self->{pid} = open3(my $in, my $out, undef, ref $psql ? @$psql : $psql, '-XAtq', '-d', $conninfo);
    $in->autoflush(1);
    @$self{qw(in out)} = ($in, $out);

    return $self;
}


# Sends a statement without waiting for its result.
sub send {
    my ($self, $sql) = @_;
    my $mark = 'end-of-statement-' . ++$self->{number};

    local $SIG{PIPE} = 'IGNORE';
    print { $self->{in} } "$sql\n;\n\\echo $mark\n";
    push @{ $self->{marks} }, $mark;

    return $self;
}


# The output of the oldest statement whose result was not read; croaks after a timeout.
sub result {
    my ($self, $seconds) = @_;
    my $mark   = shift @{ $self->{marks} } // croak 'nothing was sent';
    my $left   = deadline($seconds // 60);
    my $select = IO::Select->new($self->{out});

    while ($self->{buffer} !~ /^\Q$mark\E\n/m) {
        my $time = $left->();
        croak "psql gives no answer: $self->{buffer}" if !$time;
        next if !$select->can_read($time);
        sysread $self->{out}, $self->{buffer}, 65536, length $self->{buffer} or croak "psql ended: $self->{buffer}";
    }

    $self->{buffer} =~ s/\A(.*?)^\Q$mark\E\n//ms;
    my $result = $1;
    $result =~ s/\n\z//;

    return $result;
}


# Whether the oldest statement is still running after this many seconds.
sub waits {
    my ($self, $seconds) = @_;
    my $mark   = $self->{marks}[0] // return 0;
    my $left   = deadline($seconds);
    my $select = IO::Select->new($self->{out});

    while ($self->{buffer} !~ /^\Q$mark\E\n/m) {
        my $time = $left->() or return 1;
        next if !$select->can_read($time);
        sysread $self->{out}, $self->{buffer}, 65536, length $self->{buffer} or return 0;
    }

    return 0;
}


sub query {
    my ($self, $sql, $seconds) = @_;

    return $self->send($sql)->result($seconds);
}


# Commits, which releases the locks, and ends the session.
sub release {
    my ($self) = @_;

    $self->query('commit');
    $self->quit;

    return;
}


sub quit {
    my ($self) = @_;
    my $pid = delete $self->{pid} // return;

    close $self->{in};
    close $self->{out};
    kill 'TERM', $pid;
    local $?;
    waitpid $pid, 0;

    return;
}


sub DESTROY {
    my ($self) = @_;

    $self->quit;
}


1;
