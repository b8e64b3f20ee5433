package Pgq::Wire;

# A proxy between nginx and PostgreSQL that knows the messages of the protocol and disturbs the connection at one of them. It
# is a process that listens on a port and connects to the server's unix socket.
#
#   my $wire  = Pgq::Wire->new($pg)->start;
#   my $nginx = Pgq::Nginx->new(pg => $pg, conninfo => $wire->conninfo(user => 'ngx_pgq_web'))->start;
#   $wire->plan({ in => 'enqueue', before => 'Sync', do => 'cut' });
#   …;   $wire->happened;          how many steps of the plan have happened
#
# A plan is a list of steps. A step has a message (in, and before or after), its number among these messages (nth, 1), how many
# from there on (times, 1; 0 for all), and an action (do):
#
#   cut       close both sides
#   break     pass on the first half of the message, then close both sides (before)
#   leave     close the client's side; the server receives what the client has sent, the rest of it `for` seconds later
#   hold      stop this direction for `for` seconds, or until the next plan
#   gather    send this direction's bytes up to the end of the statement in one write, or in pieces of `size` bytes
#   insert    send these `bytes` to the client
#   answer    keep the statement from the server (before Parse or Bind), send these `bytes` to the client, and with `end`
#             close the connection
#
# `in` is the state of the connection: connect, prepare (or a simple query), the name of the statement that it executes, or
# for an unnamed statement the name of the function that it calls.
#
# The proxy refuses TLS. With Pgq::Wire->new($pg, tls => 1) it passes TLS on, to the server's port. All bytes after the message
# Encryption are then messages Bytes, in connect.

use strict;
use warnings;

use Carp qw(croak);
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time sleep);

use parent 'Pgq::Background';

use Pgq::Host qw(free_port);

my %name = (
    front => {
        P => 'Parse', B => 'Bind', D => 'Describe', E => 'Execute', S => 'Sync', Q => 'Query', X => 'Terminate',
        p => 'Password',
    },
    back => {
        R => 'Authentication', S => 'ParameterStatus', K => 'BackendKeyData', 1 => 'ParseComplete', 2 => 'BindComplete',
        n => 'NoData', T => 'RowDescription', D => 'DataRow', C => 'CommandComplete', Z => 'ReadyForQuery',
        E => 'ErrorResponse', N => 'NoticeResponse',
    },
);
my %end   = (Sync => 1, ReadyForQuery => 1);
my $pause = 0.0002;


sub new {
    my ($class, $pg, %option) = @_;

    return bless { pg => $pg, port => free_port(), %option }, $class;
}


sub port { return $_[0]{port} }


# How a client connects to the server through the proxy. Options: user, database.
sub conninfo {
    my ($self, %option) = @_;

    return join ' ', 'host=127.0.0.1', "port=$self->{port}", 'dbname=' . ($option{database} // 'posts'),
        'user=' . ($option{user} // 'postgres');
}


sub start {
    my ($self) = @_;

    return $self->_start(IO::Socket::INET->new(
        LocalAddr => '127.0.0.1', LocalPort => $self->{port}, Proto => 'tcp', Listen => 64, ReuseAddr => 1,
    ) || croak "listen on $self->{port}: $@");
}


# Replaces the plan, and releases what is held.
sub plan {
    my ($self, @steps) = @_;

    $self->_ask([ plan => \@steps ]);

    return $self;
}


# Closes all connections.
sub cut {
    my ($self) = @_;

    $self->_ask(['cut']);

    return $self;
}


sub happened { return $_[0]->_ask(['state'])->{happened} }

# The first parameter, in hexadecimal, of each statement that was sent since the last plan.
sub sent { return @{ $_[0]->_ask(['state'])->{sent} } }

# The number of connections with a client, and of those that the client has left.
sub clients { return $_[0]->_ask(['state'])->{clients} }
sub left    { return $_[0]->_ask(['state'])->{left} }


# ---- messages to insert

# The third argument is the severity.
sub error   { return _fields('E', $_[3] // 'ERROR', @_[1, 2]) }
sub warning { return _fields('N', 'WARNING', @_[1, 2]) }


# ReadyForQuery; status is I, T or E.
sub ready { return _message('Z', $_[1] // 'I') }


# The answer to a statement without rows, up to its completion.
sub nothing {
    return join '', _message('2', ''), _message('T', pack 'n', 0), _message('C', "SELECT 0\0");
}


sub _fields {
    my ($type, $severity, $sqlstate, $text) = @_;

    return _message($type, join('', map { "$_\0" } "S$severity", "V$severity", "C$sqlstate", "M$text") . "\0");
}


sub _message { return $_[0] . pack('N', 4 + length $_[1]) . $_[1] }


# ---- the process

sub _run {
    my ($self) = @_;

    @$self{qw(connections steps happened sent)} = ([], [], 0, []);

    while (1) {
        my %handler = ($self->{socket} => sub { $self->_accept }, $self->{control} => sub { $self->_orders(sub { $self->_order(@{ $_[0] }) }) });
        my $select  = IO::Select->new(@$self{qw(socket control)});

        for my $c (@{ $self->{connections} }) {
            for my $direction (qw(front back)) {
                my $socket = $c->{$direction} // next;
                next if $c->{ended}{$direction};
                $select->add($socket);
                $handler{$socket} = sub { $self->_read($c, $direction) };
            }
        }

        $handler{$_}->() for $select->can_read($self->_next_due);
        $self->_release;
        @{ $self->{connections} } = grep { $_->{front} || $_->{back} } @{ $self->{connections} };
    }
}


sub _order {
    my ($self, $order, $steps) = @_;
    my @all = @{ $self->{connections} };

    if ($order eq 'plan') {
        @$self{qw(steps happened sent)} = ($steps, 0, []);
        $_->{held} = {} for @all;
        $self->_pump($_) for @all;
    } elsif ($order eq 'cut') {
        _close($_) for @all;
    }

    return {
        happened => $self->{happened},
        sent     => $self->{sent},
        clients  => scalar(grep { $_->{front} } @all),
        left     => scalar(grep { !$_->{front} && $_->{back} } @all),
    };
}


sub _accept {
    my ($self) = @_;
    my $client = $self->{socket}->accept or return;
    my $pg     = $self->{pg};
    my $server = $self->{tls} ? IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $pg->{port}, Proto => 'tcp')
        : IO::Socket::UNIX->new(Peer => "$pg->{socket}/.s.PGSQL.$pg->{port}");

    return if !$server;

    setsockopt $client, IPPROTO_TCP, TCP_NODELAY, 1;
    push @{ $self->{connections} }, {
        front => $client, back => $server, in => 'connect', starts => 1, buffer => { front => '', back => '' },
        held => {}, gathered => {}, known => {}, ended => {},
    };

    return;
}


# When the client closes, both sides are closed. When the server closes, its data is passed on first.
sub _read {
    my ($self, $c, $direction) = @_;
    my $socket = $c->{$direction} // return;
    my $count  = sysread $socket, $c->{buffer}{$direction}, 65536, length $c->{buffer}{$direction};

    if (!$count) {
        return _close($c) if $direction eq 'front';
        $c->{ended}{back} = 1;
    }

    return $self->_pump($c);
}


sub _next_due {
    my ($self) = @_;
    my ($least) = sort { $a <=> $b } map { values %{ $_->{held} } } @{ $self->{connections} };

    return 60 if !defined $least;

    my $left = $least - time;

    return $left < 0 ? 0 : $left > 60 ? 60 : $left;
}


sub _release {
    my ($self) = @_;
    my $now = time;

    for my $c (@{ $self->{connections} }) {
        my @due = grep { $c->{held}{$_} <= $now } keys %{ $c->{held} } or next;
        delete @{ $c->{held} }{@due};
        $self->_pump($c);
    }

    return;
}


sub _close {
    my ($c) = @_;

    close $_ for grep { $_ } delete @$c{qw(front back)};

    return;
}


# Passes on the messages that are complete and not held.
sub _pump {
    my ($self, $c) = @_;

    for my $direction (qw(front back)) {
        while ($c->{back} && !$c->{held}{$direction}) {
            my ($name, $frame) = _frame($c, $direction) or last;
            $self->_message_of($c, $direction, $name, $frame);
        }
    }

    return if !$c->{back};
    return _close($c) if $c->{ended}{back} && !$c->{held}{back};
    return _close($c) if !$c->{front} && !$c->{asked} && !$c->{held}{front};

    return;
}


# Takes one message out of a buffer: its name and its bytes.
sub _frame {
    my ($c, $direction) = @_;
    my $buffer = \$c->{buffer}{$direction};
    my $starts = $direction eq 'front' && $c->{starts};
    my $head   = $starts ? 0 : 1;

    if ($c->{raw}) {
        return if $$buffer eq '';
        my $bytes = $$buffer;
        $$buffer = '';
        return ('Bytes', $bytes);
    }

    return if length $$buffer < $head + 4;
    my $length = $head + unpack 'N', substr $$buffer, $head, 4;
    return if length $$buffer < $length;

    my $frame = substr $$buffer, 0, $length, '';

    return ($name{$direction}{ substr $frame, 0, 1 } // 'Other', $frame) if !$starts;

    # a request for encryption has eight bytes
    return ('Encryption', $frame) if $length == 8;
    $c->{starts} = 0;

    return ('Startup', $frame);
}


sub _message_of {
    my ($self, $c, $direction, $name, $frame) = @_;

    return syswrite $c->{front}, 'N' if $name eq 'Encryption' && !$self->{tls};
    $c->{raw} = 1 if $name eq 'Encryption';

    if ($name eq 'Parse') {
        my ($statement, $text) = $frame =~ /\A.{5}([^\0]*)\0([^\0]*)\0/s;
        $c->{in} = $statement ne '' ? 'prepare' : $text =~ /ngx_pgq\.(\w+)\(/ ? $1 : 'unnamed';
    }

    $c->{in} = 'prepare' if $name eq 'Query';

    if ($name eq 'Bind' && !$c->{known}{$direction}) {
        my ($statement, $rest) = $frame =~ /\A.{5}[^\0]*\0([^\0]*)\0(.*)\z/s;
        $c->{in} = $statement if $statement ne '';
        my $formats = unpack 'n', $rest;
        push @{ $self->{sent} }, unpack 'H*', unpack 'N/a', substr $rest, 4 + 2 * $formats;
    }

    # the proxy answers the statement
    if ($c->{answer} && $direction eq 'front') {
        return $name eq 'Sync' ? _answer($c) : 1;
    }

    my $step = delete $c->{known}{$direction} ? undef : $self->_step($c, $name);
    my $before = $step && $step->{before};

    if ($before && $step->{do} =~ /^(?:cut|break|leave|hold|answer)$/) {
        _send($c, $direction, substr $frame, 0, length($frame) / 2) if $step->{do} eq 'break';

        # a held message has been seen by the plan
        if ($step->{do} =~ /^(?:leave|hold)$/) {
            $c->{buffer}{$direction} = $frame . $c->{buffer}{$direction};
            $c->{known}{$direction}  = 1;
        }
        return _do($c, $direction, $step);
    }

    _do($c, $direction, $step) if $before;
    $c->{asked} = 1 if $name eq 'Sync';
    $c->{asked} = 0 if $name eq 'ReadyForQuery';
    _send($c, $direction, $frame);
    _flush($c, $direction) if $end{$name};
    _do($c, $direction, $step) if $step && !$before;
    $c->{in} = 'idle' if $name eq 'ReadyForQuery';

    return;
}


# The step of the plan for this message, if there is one and the client is still connected.
sub _step {
    my ($self, $c, $name) = @_;

    return if !$c->{front};

    for my $step (@{ $self->{steps} }) {
        next if $step->{in} ne $c->{in} || ($step->{before} // $step->{after}) ne $name || $step->{over};
        next if ++$step->{seen} < ($step->{nth} // 1);

        $step->{over} = 1 if ++$step->{done} == ($step->{times} // 1);
        $self->{happened}++;
        return $step;
    }

    return;
}


sub _do {
    my ($c, $direction, $step) = @_;
    my $do = $step->{do};

    if ($do eq 'cut' || $do eq 'break') {
        _close($c);
    } elsif ($do eq 'leave') {
        close delete $c->{front};
        $c->{held}{front} = time + $step->{for} if $step->{for};
    } elsif ($do eq 'hold') {
        $c->{held}{$direction} = time + ($step->{for} // 1e6);
    } elsif ($do eq 'gather') {
        $c->{gathered}{$direction} = { bytes => '', size => $step->{size} };
    } elsif ($do eq 'insert') {
        _send($c, 'back', $step->{bytes});
    } elsif ($do eq 'answer') {
        $c->{answer} = $step;
    }

    return;
}


sub _answer {
    my ($c) = @_;
    my $step = delete $c->{answer};

    $c->{in} = 'idle';
    _write($c->{front}, $step->{bytes});
    _close($c) if $step->{end};

    return;
}


sub _send {
    my ($c, $direction, $bytes) = @_;

    if ($c->{gathered}{$direction}) {
        $c->{gathered}{$direction}{bytes} .= $bytes;
        return;
    }

    return _write($c->{ $direction eq 'front' ? 'back' : 'front' }, $bytes);
}


sub _flush {
    my ($c, $direction) = @_;
    my $gathered = delete $c->{gathered}{$direction} or return;

    return _write($c->{ $direction eq 'front' ? 'back' : 'front' }, @$gathered{qw(bytes size)});
}


# An error is ignored: the next read finds that the peer has closed.
sub _write {
    my ($socket, $bytes, $size) = @_;

    return if !$socket;

    for (my $at = 0; $at < length $bytes;) {
        my $count = syswrite $socket, $bytes, $size // length $bytes, $at;
        return if !defined $count;
        $at += $count;
        sleep $pause if $size;
    }

    return;
}


1;
