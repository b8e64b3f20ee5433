package Pgq::Client;

# An HTTP/1.1 client that sends any bytes and reads one answer at a time from a connection that stays open: for tests of
# pipelining, chunks, wrong lengths and clients that stop sending.
#
#   my $answer = Pgq::Client->new($nginx)->post('/post', '{"a":1}');
#   is $answer->{status}, 202;   $answer->{headers}{'content-type'}   $answer->{body}   $answer->json
#
#   my $client = Pgq::Client->new($nginx);
#   $client->send("POST /post HTTP/1.1\r\n…");   my $answer = $client->answer;   $client->closed;

use strict;
use warnings;

use Carp qw(croak);
use IO::Select;
use IO::Socket::INET;
use JSON::PP ();

use Socket qw(PF_INET SOCK_STREAM SOL_SOCKET SO_RCVBUF SO_SNDBUF inet_aton pack_sockaddr_in);

use Pgq::Wait qw(deadline timeout);

my $crlf = "\r\n";


# Connects to a Pgq::Nginx, to a host of a Pgq::Cluster or to a port of this machine. Options: type (the Content-Type of
# post()), timeout (for the connection), buffer (size of the socket's buffers in both directions).
sub new {
    my ($class, $server, %option) = @_;
    my $port    = ref $server ? $server->port : $server;
    my $address = ref $server && $server->can('address') ? $server->address : '127.0.0.1';
    my $buffer  = delete $option{buffer};
    my $socket  = $buffer ? _narrow($address, $port, $buffer) : IO::Socket::INET->new(
        PeerAddr => $address, PeerPort => $port, Proto => 'tcp', Timeout => delete $option{timeout} // 10,
    ) or croak "connect to $address:$port: $@";

    $socket->autoflush(1);

    return bless { socket => $socket, buffer => '', type => 'application/json', %option }, $class;
}


# A connection with small buffers from its first packet on.
sub _narrow {
    my ($address, $port, $buffer) = @_;
    my $socket = IO::Handle->new;

    CORE::socket($socket, PF_INET, SOCK_STREAM, 0) or return;
    setsockopt $socket, SOL_SOCKET, $_, pack 'l', $buffer for SO_RCVBUF, SO_SNDBUF;
    connect $socket, pack_sockaddr_in($port, inet_aton($address)) or return;

    return bless $socket, 'IO::Socket::INET';
}


sub socket { return $_[0]{socket} }


# Sends bytes; false on an error.
sub send {
    my ($self, $bytes) = @_;
    my $sent = 0;

    local $SIG{PIPE} = 'IGNORE';

    while ($sent < length $bytes) {
        my $count = syswrite $self->{socket}, $bytes, length($bytes) - $sent, $sent;
        return 0 if !defined $count;
        $sent += $count;
    }

    return 1;
}


# Sends bytes repeatedly, without reading, until the peer has read nothing for this many seconds.
sub flood {
    my ($self, $bytes, $seconds) = @_;
    my $select = IO::Select->new($self->{socket});
    my $rest   = '';

    local $SIG{PIPE} = 'IGNORE';
    $self->{socket}->blocking(0);

    while ($select->can_write(timeout($seconds // 0.5))) {
        $rest .= $bytes if length $rest < 65536;
        my $count = syswrite $self->{socket}, $rest;
        last if !defined $count && !$!{EAGAIN};
        substr $rest, 0, $count // 0, '';
    }

    $self->{socket}->blocking(1);

    return $self;
}


# The text of a request. A header whose value is undef is omitted.
sub request {
    my ($self, $method, $path, %option) = @_;
    my %header = (Host => 'localhost', %{ $option{headers} || {} });
    my $body   = $option{body};

    $header{'Content-Length'} = length $body if defined $body && !exists $header{'Content-Length'} && !$option{chunks};
    $header{'Transfer-Encoding'} = 'chunked' if $option{chunks};

    return join '', "$method $path HTTP/1.1$crlf",
        (map { "$_: $header{$_}$crlf" } grep { defined $header{$_} } sort keys %header), $crlf,
        (map { sprintf("%x$crlf%s$crlf", length, $_) } @{ $option{chunks} || [] }),
        ($option{chunks} ? "0$crlf$crlf" : ''), $body // '';
}


sub get {
    my ($self, $path, %headers) = @_;

    return $self->method('GET', $path, undef, %headers);
}


# Another method, without a body if none is given.
sub method {
    my ($self, $method, $path, $body, %headers) = @_;

    $self->send($self->request($method, $path, body => $body, headers => \%headers));

    return $self->answer(head => $method eq 'HEAD');
}


sub post {
    my ($self, $path, $body, %headers) = @_;

    return $self->method('POST', $path, $body, 'Content-Type' => $self->{type}, %headers);
}


# Sends a POST or a GET and does not wait for the answer.
sub send_post {
    my ($self, $path, $body, %headers) = @_;

    $self->send($self->request('POST', $path, body => $body, headers => { 'Content-Type' => $self->{type}, %headers }));

    return $self;
}


sub send_get {
    my ($self, $path) = @_;

    $self->send($self->request('GET', $path));

    return $self;
}


sub post_chunked {
    my ($self, $path, $chunks, %headers) = @_;

    $self->send($self->request('POST', $path, chunks => $chunks,
        headers => { 'Content-Type' => $self->{type}, %headers }));

    return $self->answer;
}


# Reads one answer; undef when the connection was closed before its end, or after a timeout ($client->{late} is then true).
# Options: head (it is the answer to HEAD), timeout, interim (return 100 Continue).
sub answer {
    my ($self, %option) = @_;
    my $left = deadline($option{timeout} // 30);

    while (1) {
        $self->_fill($left) or return while $self->{buffer} !~ /\r\n\r\n/;
        $self->{buffer} =~ s/\A(.*?)\r\n\r\n//s;

        my ($start, @lines) = split /\r\n/, $1;
        my ($version, $status, $reason) = $start =~ m{^HTTP/(\d\.\d) (\d{3}) ?(.*)$} or croak "no HTTP: $start";
        next if $status < 200 && !$option{interim};

        my $answer = bless { version => $version, status => $status, reason => $reason, headers => {} }, 'Pgq::Answer';

        for my $line (@lines) {
            my ($name, $value) = $line =~ /^([^:]+):\s*(.*?)\s*$/ or croak "no header: $line";
            $name = lc $name;
            $answer->{headers}{$name} = exists $answer->{headers}{$name} ? "$answer->{headers}{$name}, $value" : $value;
        }

        $answer->{body} = $self->_body($answer, $left, $option{head}) // return;

        return $answer;
    }
}


sub _body {
    my ($self, $answer, $left, $head) = @_;
    my $header = $answer->{headers};

    return '' if $head || $answer->{status} < 200 || $answer->{status} == 204 || $answer->{status} == 304;

    if (($header->{'transfer-encoding'} // '') =~ /chunked/) {
        my $body = '';

        while (1) {
            $self->_fill($left) or return while $self->{buffer} !~ /\r\n/;
            $self->{buffer} =~ s/\A([0-9a-fA-F]+)[^\r]*\r\n// or croak 'no chunk';
            my $size = hex $1;

            $self->_fill($left) or return while length $self->{buffer} < $size + 2;
            $body .= substr $self->{buffer}, 0, $size;
            substr $self->{buffer}, 0, $size + 2, '';

            return $body if $size == 0;
        }
    }

    if (defined $header->{'content-length'}) {
        my $size = $header->{'content-length'};

        $self->_fill($left) or return while length $self->{buffer} < $size;

        return substr $self->{buffer}, 0, $size, '';
    }

    1 while $self->_fill($left);

    return substr $self->{buffer}, 0, length $self->{buffer}, '';
}


# Reads from the connection; false when it is closed or after the timeout.
sub _fill {
    my ($self, $left) = @_;
    my $time = $left->();

    $self->{late} = 0;

    if (!$time || !IO::Select->new($self->{socket})->can_read($time)) {
        $self->{late} = 1;
        return 0;
    }

    return sysread $self->{socket}, $self->{buffer}, 262144, length $self->{buffer};
}


# Whether the peer closes the connection within this many seconds, without sending more.
sub closed {
    my ($self, $seconds) = @_;
    my $left = deadline($seconds // 10);

    1 while $self->_fill($left);

    return !$self->{late} && $self->{buffer} eq '';
}


sub close {
    my ($self) = @_;

    CORE::close $self->{socket};

    return;
}


package Pgq::Answer;

use strict;
use warnings;


sub status { return $_[0]{status} }
sub body   { return $_[0]{body} }
sub header { return $_[0]{headers}{ lc $_[1] } }


# The body, decoded. The digits of numbers are not kept: compare the text for those.
sub json {
    my ($self) = @_;

    return JSON::PP->new->utf8->allow_nonref->decode($self->{body});
}


1;
