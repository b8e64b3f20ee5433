package Pgq::Http2;

# An HTTP/2 client that sends single frames. With a window of 0, which no library supports, it gets the headers of each answer
# and no byte of its body.
#
#   my $client = Pgq::Http2->new($nginx, window => 0);
#   $client->request('POST', '/post', body => '1', headers => { 'content-type' => 'application/json' });
#   $client->wait_for_answers(1);   $client->close;
#   my $stream = $client->request('GET', '/stream');   $client->pump(sub { $client->body($stream) =~ /id/ });   $client->reset($stream);
#   my $client = Pgq::Http2->new(undef, window => 0);   …   $client->bytes    what it would send

use strict;
use warnings;

use Carp qw(croak);
use IO::Select;
use IO::Socket::INET;

use Pgq::Wait qw(deadline);

my ($data, $headers, $reset, $settings, $ping, $window) = (0, 1, 3, 4, 6, 8);    # types of frames
my ($end_stream, $ack, $end_headers) = (1, 1, 4);         # and flags


# Options: window (65535), the initial window of a stream; port, other than that of the server.
sub new {
    my ($class, $server, %option) = @_;
    my $socket = $server && (IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $option{port} // $server->port, Proto => 'tcp', Timeout => 10)
        or croak "connect: $@");
    my $self = bless { socket => $socket, buffer => '', bytes => '', stream => -1, ended => {}, answers => 0 }, $class;

    $self->_send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    $self->_frame($settings, 0, 0, pack 'n N', 4, $option{window} // 65535);

    return $self;
}


# Sends a request with uncompressed headers.
sub request {
    my ($self, $method, $path, %option) = @_;
    my %header = (':method' => $method, ':path' => $path, ':scheme' => 'http', ':authority' => 'localhost');
    my $body   = $option{body} // '';
    my $stream = $self->{stream} += 2;
    my $more   = $option{headers} || {};

    my $block = join '', map { my ($name, $value) = @$_; "\0" . _string($name) . _string($value) }
        (map { [ $_ => $header{$_} ] } sort keys %header), (map { [ lc $_ => $more->{$_} ] } sort keys %$more);

    $self->_frame($headers, $end_headers | (length $body ? 0 : $end_stream), $stream, $block);
    $self->_frame($data, $end_stream, $stream, $body) if length $body;

    return $stream;
}


sub bytes { return $_[0]{bytes} }


# What has come of the body of an answer, and whether it has ended.
sub body  { return $_[0]{body}{ $_[1] } // '' }
sub ended { return $_[0]{ended}{ $_[1] } }


# Takes no more bytes of this answer than its window permits.
sub hold { return $_[0]{held}{ $_[1] } = 1 }


# Leaves an answer (CANCEL).
sub reset { return $_[0]->_frame($reset, 0, $_[1], pack 'N', 8) }


# Reads until the code returns a true value.
sub pump {
    my ($self, $code, $seconds) = @_;
    my $left   = deadline($seconds // 30);
    my $select = IO::Select->new($self->{socket});

    while (!$code->()) {
        my $time = $left->() or return 0;
        next if !$select->can_read($time < 0.05 ? $time : 0.05);
        sysread $self->{socket}, $self->{buffer}, 65536, length $self->{buffer} or return $code->();
        $self->_frames;
    }

    return 1;
}


# Whether this many answers in all have begun within this many seconds.
sub wait_for_answers {
    my ($self, $count, $seconds) = @_;
    my $left   = deadline($seconds // 30);
    my $select = IO::Select->new($self->{socket});

    while ($self->{answers} < $count) {
        my $time = $left->();
        return 0 if !$time || !$select->can_read($time);
        sysread $self->{socket}, $self->{buffer}, 65536, length $self->{buffer} or return 0;
        $self->_frames;
    }

    return 1;
}


sub _frames {
    my ($self) = @_;

    while (length $self->{buffer} >= 9) {
        my ($high, $low, $type, $flags, $stream) = unpack 'C n C C N', $self->{buffer};
        my $length = $high << 16 | $low;

        return if length $self->{buffer} < 9 + $length;

        my $payload = substr $self->{buffer}, 9, $length;
        substr $self->{buffer}, 0, 9 + $length, '';

        $self->{answers}++ if $type == $headers;
        $self->{ended}{$stream} = 1 if ($type == $headers || $type == $data) && $flags & $end_stream || $type == $reset;
        if ($type == $data && $length) {
            $self->{body}{$stream} .= $payload;
            $self->_frame($window, 0, $_, pack 'N', $length) for 0, $self->{held}{$stream} ? () : $stream;
        }
        $self->_frame($type, $ack, 0, $type == $ping ? $payload : '') if ($type == $settings || $type == $ping) && !($flags & $ack);
    }

    return;
}


sub close {
    my ($self) = @_;

    CORE::close $self->{socket};

    return;
}


# A string of HPACK without Huffman coding.
sub _string {
    my ($text) = @_;
    my $length = length $text;

    return chr($length) . $text if $length < 127;

    $length -= 127;
    my $number = chr 127;
    for (; $length >= 128; $length >>= 7) { $number .= chr($length & 127 | 128) }

    return $number . chr($length) . $text;
}


sub _frame {
    my ($self, $type, $flags, $stream, $payload) = @_;
    my $length = length $payload;

    return $self->_send(pack('C n C C N', $length >> 16, $length & 65535, $type, $flags, $stream) . $payload);
}


sub _send {
    my ($self, $bytes) = @_;

    if (!$self->{socket}) {
        $self->{bytes} .= $bytes;
        return length $bytes;
    }

    local $SIG{PIPE} = 'IGNORE';

    return syswrite $self->{socket}, $bytes;
}


1;
