package Pgq::Stream;

# A reader of GET /stream, by SSE, as lines or by WebSocket. It keeps the id of the last post, connects again where it was cut, and checks at
# the end that it has got each post once and in order.
#
#   my $reader = Pgq::Stream->new($nginx, query => 'after=0', form => 'ndjson');
#   $reader->wait_for(3);   is_deeply $reader->ids, [ 1, 2, 3 ];   $reader->cut;   $reader->open;
#   Pgq::Stream->pump(sub { … }, 30, @readers);        reads for all of them until the code returns a true value
#   is $_->complaint(\@ids), '' for @readers;

use strict;
use warnings;

use Carp qw(croak);
use IO::Socket::INET;
use JSON::PP ();
use Time::HiRes qw(sleep);

use Pgq::Wait qw(deadline);
use Pgq::WebSocket;


# Options: path (/stream), query, form (sse, ndjson or websocket), headers, again (connects again when the server ends the
# response), port (other than that of the server), last (the id after which it begins), connect (0: new() does not connect).
sub new {
    my ($class, $server, %option) = @_;
    my $self = bless {
        port    => $option{port} // $server->port,
        address => $server->can('address') ? $server->address : '127.0.0.1',
        path    => '/stream',
        form    => 'sse',
        query   => '',
        headers => {},
        ids     => [],
        objects => [],
        resets  => [],
        opens   => 0,
        beats   => 0,
        %option,
    }, $class;

    $self->open if $option{connect} // 1;

    return $self;
}


sub ids     { return $_[0]{ids} }
sub objects { return $_[0]{objects} }
sub resets  { return $_[0]{resets} }
sub last    { return $_[0]{last} }
sub opens   { return $_[0]{opens} }
sub beats   { return $_[0]{beats} }
sub status  { return $_[0]{status} }
sub header  { return $_[0]{header}{ lc $_[1] } }
sub retry   { return $_[0]{retry} }

# Whether the response has ended, and how: whole is true if its last chunk, or the Close frame with this code, was received.
sub ended { return !$_[0]{socket} }
sub whole { return $_[0]{whole} }
sub code  { return $_[0]{code} }


# Connects, and continues after the last post as EventSource does.
sub open {
    my ($self) = @_;
    my %header = (Host => 'localhost', %{ $self->{headers} });
    my $query  = $self->{query};

    $header{Accept} //= 'application/x-ndjson' if $self->{form} eq 'ndjson';

    if (defined $self->{last}) {
        $header{'Last-Event-ID'} = $self->{last};
    }

    if ($self->{form} eq 'websocket') {
        %header = (%header, Upgrade => 'websocket', Connection => 'Upgrade', 'Sec-WebSocket-Version' => 13);
        $header{'Sec-WebSocket-Key'} = 'dGhlIHNhbXBsZSBub25jZQ==';
    }

    $self->{socket} = IO::Socket::INET->new(PeerAddr => $self->{address}, PeerPort => $self->{port}, Proto => 'tcp', Timeout => 10)
        or return 0;
    $self->{socket}->blocking(0);

    @$self{qw(raw text whole status header)} = ('', '', 0, undef, {});
    $self->{opens}++;

    local $SIG{PIPE} = 'IGNORE';
    syswrite $self->{socket}, join "\r\n", "GET $self->{path}" . ($query eq '' ? '' : "?$query") . ' HTTP/1.1',
        (map { "$_: $header{$_}" } sort keys %header), '', '';

    return 1;
}


# Closes the connection, also in the middle of a post.
sub cut {
    my ($self) = @_;

    close delete $self->{socket} if $self->{socket};

    return $self;
}


# Reads what the socket has, at most so many bytes. False when the response has ended.
sub read {
    my ($self, $most) = @_;
    my $socket = $self->{socket} or return 0;
    my $count  = sysread $socket, $self->{raw}, $most // 65536, length $self->{raw};

    return 1 if !defined $count && $!{EAGAIN};

    $self->_parse;
    return 1 if $count && !$self->{whole};

    $self->cut;

    return 0;
}


# Reads for these readers until the code returns a true value, at most for some seconds.
sub pump {
    my ($class, $code, $seconds, @readers) = @_;
    my $left = deadline($seconds);

    while (!$code->()) {
        my $time = $left->() or return 0;
        my ($bits, %reader) = '';

        for my $reader (@readers) {
            $reader->open if !$reader->{socket} && $reader->{again};
            next          if !$reader->{socket};
            my $number = fileno $reader->{socket};
            vec($bits, $number, 1) = 1;
            $reader{$number} = $reader;
        }

        if (!%reader) {
            return 0 if !grep { $_->{again} } @readers;
            sleep 0.01;
            next;
        }

        next if select($bits, undef, undef, $time < 0.05 ? $time : 0.05) <= 0;
        $reader{$_}->read for grep { vec $bits, $_, 1 } keys %reader;
    }

    return 1;
}


# Whether this many posts have come within this many seconds; and the same for a post with this id or a greater one.
sub wait_for {
    my ($self, $count, $seconds) = @_;

    return ref($self)->pump(sub { @{ $self->{ids} } >= $count }, $seconds // 10, $self);
}


sub wait_until_id {
    my ($self, $id, $seconds) = @_;

    return ref($self)->pump(sub { ($self->{ids}[-1] // -1) >= $id }, $seconds // 10, $self);
}


sub wait_for_end {
    my ($self, $seconds) = @_;

    ref($self)->pump(sub { $self->ended }, $seconds // 10, $self);

    return $self->ended;
}


# What is wrong with the posts that have come, compared with the ids that exist; '' if nothing is.
sub complaint {
    my ($self, $expected) = @_;
    my @ids = @{ $self->{ids} };

    return $self->{wrong} if $self->{wrong};
    return '' if "@ids" eq "@$expected";

    my %count;
    $count{$_}++ for @ids;
    my %expected = map { $_ => 1 } @$expected;
    my @missing  = grep { !$count{$_} } @$expected;
    my @twice    = grep { $count{$_} > 1 } sort keys %count;
    my @other    = grep { !$expected{$_} } sort keys %count;

    splice @$_, 10 for grep { @$_ > 10 } \@missing, \@twice, \@other;

    return "missing: @missing; twice: @twice; unexpected: @other" . (@missing || @twice || @other ? '' : '; not in order');
}


sub _parse {
    my ($self) = @_;

    if (!defined $self->{status}) {
        $self->{raw} =~ s/\A(.*?)\r\n\r\n//s or return;
        my ($line, @lines) = split /\r\n/, $1;
        ($self->{status}) = $line =~ m{^HTTP/1\.[01] (\d+)} or croak "no HTTP: $line";
        $self->{header} = { map { /^([^:]+):\s*(.*)$/ ? (lc $1 => $2) : () } @lines };
    }

    if (($self->{header}{'transfer-encoding'} // '') eq 'chunked') {
        while ($self->{raw} =~ /\A([0-9a-f]+)\r\n/) {
            my ($size, $start) = (hex $1, $+[0]);
            last if length $self->{raw} < $start + $size + 2;
            $self->{text} .= substr $self->{raw}, $start, $size;
            substr $self->{raw}, 0, $start + $size + 2, '';
            $self->{whole} = 1 if $size == 0;
        }
    } else {
        $self->{text} .= $self->{raw};
        $self->{raw} = '';
    }

    if ($self->{status} == 101) {
        while (my $frame = Pgq::WebSocket->take(\$self->{text})) {
            $self->_frame($frame);
        }
    }

    return if $self->{status} != 200;

    if ($self->{form} eq 'sse') {
        $self->_block($1) while $self->{text} =~ s/\A(.*?)\n\n//s;
    } else {
        $self->_line($1) while $self->{text} =~ s/\A(.*?)\n//s;
    }

    return;
}


# A block of server-sent events, by the rules of EventSource.
sub _block {
    my ($self, $block) = @_;
    my ($event, $id, @data) = ('message');

    for my $line (split /\n/, $block) {
        my ($field, $value) = $line =~ /^([^:]*)(?:: ?(.*))?$/s;

        if    ($field eq '')      { $self->{beats}++ }
        elsif ($field eq 'event') { $event = $value }
        elsif ($field eq 'id')    { $self->{last} = $id = $value }
        elsif ($field eq 'data')  { push @data, $value }
        elsif ($field eq 'retry') { $self->{retry} = $value }
        else                      { $self->{wrong} //= "unknown field in: $block" }
    }

    return if !@data;

    my $object = JSON::PP->new->utf8->decode(join "\n", @data);

    if ($event eq 'reset') {
        push @{ $self->{resets} }, $object;
    } else {
        $self->{wrong} //= "the block has the id $id: $block" if $object->{id} ne $id;
        $self->_post($object);
    }

    return;
}


# Pings are not answered: the server does not need it.
sub _frame {
    my ($self, $frame) = @_;
    my $opcode = $frame->{opcode};

    if    ($opcode == 1) { $self->_line($frame->{payload}) }
    elsif ($opcode == 9) { $self->{beats}++ }
    elsif ($opcode == 8) { ($self->{whole}, $self->{code}) = (1, unpack 'n', $frame->{payload}) }
    else                 { $self->{wrong} //= "a frame with the opcode $opcode" }

    $self->{wrong} //= 'a frame is masked, fragmented or has reserved bits' if $frame->{masked} || !$frame->{fin} || $frame->{reserved};

    return;
}


sub _line {
    my ($self, $line) = @_;

    if ($line eq '') {
        $self->{beats}++;
        return;
    }

    my $object = JSON::PP->new->utf8->decode($line);

    if ($object->{reset}) {
        push @{ $self->{resets} }, $object->{reset};
        $self->{last} = $object->{reset}{newest};
    } else {
        $self->{last} = $object->{id};
        $self->_post($object);
    }

    return;
}


sub _post {
    my ($self, $object) = @_;

    push @{ $self->{ids} }, $object->{id};
    push @{ $self->{objects} }, $object if $self->{objects};

    return;
}


1;
