package Pgq::WebSocket;

# A WebSocket client that sends any bytes, so also frames that RFC 6455 forbids, and reads one frame at a time.
#
#   my $ws = Pgq::WebSocket->new($nginx, '/stream?after=0');   is $ws->status, 101;
#   $ws->text('{"post":1}');   $ws->send($ws->frame(9, 'ping', mask => undef));
#   is $ws->next->{payload}, '…';   is $ws->close_code, 1001;   ok $ws->closed;

use strict;
use warnings;

use parent -norequire, 'Pgq::Client';

use Carp qw(croak);
use JSON::PP ();
use Socket qw(AF_UNIX SOCK_STREAM PF_UNSPEC);

use Pgq::Client;
use Pgq::Wait qw(deadline);

my $key = 'dGhlIHNhbXBsZSBub25jZQ==';


# Connects and sends the handshake; answer() reads a refusal. Options: those of Pgq::Client, headers (undef: the header is
# omitted), more (bytes that are sent together with the handshake), tls (a true value).
sub new {
    my ($class, $server, $path, %option) = @_;
    my $headers = delete $option{headers} || {};
    my $more    = delete $option{more} // '';
    my $self    = delete $option{tls} ? bless({ socket => _tls($server), buffer => '' }, $class) : $class->SUPER::new($server, %option);

    $self->send($self->request('GET', $path, headers => {
        'Upgrade' => 'websocket', 'Connection' => 'Upgrade', 'Sec-WebSocket-Key' => $key, 'Sec-WebSocket-Version' => 13, %$headers,
    }) . $more);

    return $self;
}


# A socket of `openssl s_client`, which adds TLS and checks no certificate.
sub _tls {
    my ($server) = @_;

    CORE::socketpair(my $mine, my $other, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or croak "socketpair: $!";

    my $pid = fork // croak "fork: $!";
    if (!$pid) {
        open STDIN, '<&', $other and open STDOUT, '>&', $other and open STDERR, '>', '/dev/null' or exit 1;
        close $mine;
        exec 'openssl', 's_client', '-quiet', '-connect', '127.0.0.1:' . $server->port or exit 1;
    }
    close $other;
    bless $mine, 'IO::Socket';
    $mine->autoflush(1);

    return $mine;
}


# The answer to the handshake, read once; its status.
sub handshake { my ($self) = @_; return $self->{handshake} //= $self->answer(interim => 1) }
sub status    { my $answer = $_[0]->handshake; return $answer ? $answer->status : undef }


# The bytes of a frame. Options: fin (1), reserved (bits 4 to 6 of the first byte), mask (four bytes; undef: not masked),
# length (7, 16 or 64: bits of the length; the shortest form is the default), size (the length that the header says).
sub frame {
    my ($self, $opcode, $payload, %option) = @_;
    my $mask  = exists $option{mask} ? $option{mask} : pack 'N', int rand 2**32;
    my $size  = $option{size} // length $payload;
    my $bits  = $option{length} // ($size < 126 ? 7 : $size < 65536 ? 16 : 64);
    my $first = (($option{fin} // 1) << 7) | (($option{reserved} // 0) << 4) | $opcode;
    my $bit   = defined $mask ? 0x80 : 0;

    $payload ^= substr $mask x (1 + length($payload) / 4), 0, length $payload if defined $mask;

    return pack('C', $first) . ($bits == 7 ? pack('C', $bit | $size) : $bits == 16 ? pack('Cn', $bit | 126, $size) : pack('CQ>', $bit | 127, $size))
        . ($mask // '') . $payload;
}


sub text { my ($self, $text, %option) = @_; return $self->send($self->frame(1, $text, %option)) }
sub ping { my ($self, $payload) = @_; return $self->send($self->frame(9, $payload)) }

# Sends a Close frame with this code, or without any.
sub send_close { my ($self, $code, $text) = @_; return $self->send($self->frame(8, defined $code ? pack('n', $code) . ($text // '') : '')) }


# The next frame, as a hash of fin, reserved, opcode, masked and payload; undef if the connection ends, or after the timeout.
sub next {
    my ($self, $seconds) = @_;
    my $left = deadline($seconds // 10);

    if ($self->status != 101) {
        croak 'the answer was ' . $self->status . ': ' . $self->handshake->body;
    }

    while (1) {
        my $frame = $self->take(\$self->{buffer});
        return $frame if $frame;
        $self->_fill($left) or return;
    }
}


# Takes one frame off a string; undef if it is not complete.
sub take {
    my ($class, $bytes) = @_;
    my ($first, $size) = unpack 'CC', $$bytes;
    my $start = 2;

    return if !defined $size;
    my $masked = $size & 0x80;

    if (($size &= 0x7f) == 126) {
        return if length $$bytes < 4;
        ($size, $start) = (unpack('x2 n', $$bytes), 4);
    } elsif ($size == 127) {
        return if length $$bytes < 10;
        ($size, $start) = (unpack('x2 Q>', $$bytes), 10);
    }
    return if length $$bytes < $start + $size;

    my $payload = substr $$bytes, $start, $size;
    substr $$bytes, 0, $start + $size, '';

    return { fin => $first >> 7, reserved => ($first >> 4) & 7, opcode => $first & 15, masked => $masked, payload => $payload };
}


# The next frame of this opcode; other ones are skipped.
sub next_of {
    my ($self, $opcode, $seconds) = @_;
    my $left = deadline($seconds // 10);

    while (my $frame = $self->next($left->())) {
        return $frame if $frame->{opcode} == $opcode;
    }
    return;
}


# The object of the next text; undef if none comes.
sub object {
    my ($self, $seconds) = @_;
    my $frame = $self->next_of(1, $seconds) or return;

    return JSON::PP->new->utf8->allow_nonref->decode($frame->{payload});
}


# The code of the Close frame that comes, '' for one without a code; undef if the connection ends without one. The text of
# the frame is then in close_text().
sub close_code {
    my ($self, $seconds) = @_;
    my $frame = $self->next_of(8, $seconds) or return;

    ($self->{code}, $self->{close_text}) = length $frame->{payload} ? unpack 'n a*', $frame->{payload} : ('', '');

    return $self->{code};
}


sub close_text { return $_[0]{close_text} }


1;
