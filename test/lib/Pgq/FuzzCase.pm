package Pgq::FuzzCase;

# What one connection of the fuzzer sends and how it ends. A case depends on the seed and its number only.
#
#   clean    one to five good requests, split, pipelined or in chunks, some with a key, some with many messages: each has to
#            be answered with 202, in order
#   spelled  requests whose header fields are spelled at random (Pgq::FuzzHeaders): each has to be answered as the usual
#            spelling is, or refused if it is malformed
#   wild     mutated requests of the corpus
#   mute     requests of a client that never reads: over HTTP/1.1 as many as it can send with the smallest buffers, over
#            HTTP/2 with a window of almost 0
#
# A case ends when all requests are answered, or the client shuts down its side, closes or resets the connection in the
# middle; a mute one ends after a random time.
#
#   my $cases = Pgq::FuzzCase->new(seed => 1);   my $case = $cases->number(7);
#
# A case is a hash: pieces (its bytes), bytes (the same in one string), end (wait, half, leave, reset), pause (seconds before the
# end half), expect (the answers, as Pgq::FuzzHeaders describes them), mute (seconds) and port (for a client that never reads).

use strict;
use warnings;

use Pgq::Random;
use Pgq::Host qw(top slurp);
use Pgq::Http2;
use Pgq::FuzzHeaders;

my $crlf = "\r\n";

my @tokens = (
    "Transfer-Encoding: chunked$crlf", "Transfer-Encoding: identity$crlf", "Transfer-Encoding: chunked, chunked$crlf",
    "Content-Length: 0$crlf", "Content-Length: 10$crlf", "Content-Length: -1$crlf", "Content-Length: 66000$crlf",
    "Content-Length: 99999999999999999999$crlf", "Connection: close$crlf", "Connection: keep-alive$crlf",
    "Expect: 100-continue$crlf", "Expect: 200-ok$crlf", "Host: y$crlf", "Host:$crlf", "X: " . 'y' x 1000 . $crlf,
    'X: ' . 'y' x 9000 . $crlf, "X$crlf", "X:$crlf", " X: folded$crlf", ":$crlf", "X\0: y$crlf", "X: \0$crlf",
    (map { "Content-Type: $_$crlf" } 'application/json', 'text/plain', 'text/plain; charset=latin1', 'x', ';', 'application/x-ndjson',
        '+json', 'text/plain; charset="utf-8', 'x' x 300),
    "Content-Encoding: gzip$crlf", "Prefer: return=minimal$crlf", "Prefer: return=minima$crlf", "Idempotency-Key: \"k\"$crlf",
    "Idempotency-Key: $crlf", 'Idempotency-Key: "' . 'k' x 300 . "\"$crlf", "If-None-Match: *$crlf", "If-None-Match: \"$crlf",
    "If-Match: *$crlf", "Range: bytes=0-0$crlf", "Accept-Encoding: gzip$crlf", "Upgrade: h2c$crlf", "TE: trailers$crlf",
    $crlf, "\n", "$crlf$crlf", "0$crlf$crlf", "1$crlf", "ffffffff$crlf", "7fffffffffffffff$crlf", '0' x 100, '8' x 16, ';',
    (map { "$_$crlf" } 'Last-Event-ID: 1', 'Last-Event-ID: 99999999999999999999', 'Last-Event-ID: x', 'Accept: application/x-ndjson', 'Prefer: wait=1',
        'Connection: upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Version: 8', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
        'Origin: http://x', 'Sec-Fetch-Site: cross-site'),
    "\x81\x85abcd\x00\x00\x00\x00\x00", "\x89\x80abcd", "\x88\x80abcd", "\x88\x82abcd\x62\x8a", "\x01\x81abcd\x1a", "\x80\x80abcd", "\x82\x80abcd", "\x81\xfe", "\x81\xff\x7f",
    '/stream', '/stream/a', '/stream/**', '?wait=0', '&after=', '&after=0', '&newest=', '&since=', '&last_event_id=', '&topic=', '&topic=a,*,b/**', '9223372036854775807', '-1',
    '/sub/', '/sub/a', '/ack', '?wait=60', '&limit=1', '&lease=1', '&part=', '&part=2', '&generation=', '{"upto":1,"generation":1}', '{"topics":["a"],"start":0,"parts":2}',
    'HTTP/1.1', 'HTTP/1.0', ' HTTP/1.', '/post', '/post/a/b', '/post/_', '/*', '/get', '/small', '?limit=', '&before=', '%00', '%', '/../', '//', '#',
    'POST ', 'GET ', 'HEAD ', 'OPTIONS ', 'PUT ', 'DELETE ', 'a' x 9000, '"' . 'b' x 5000 . '"', '{"a":', '[' x 50, '\u0000', '\ud800', "\0", "\xff",
);


# Options: seed, clean (how many of ten cases), etag (of /get?limit=2&before=3), ports (for mute clients, one with HTTP/1.1 and
# one with HTTP/2).
sub new {
    my ($class, %option) = @_;
    my @corpus;

    for my $line (grep { !/^(?:#|$)/ } map { split /\n/ } map { -e $_ ? slurp($_) : () }
        map { top() . "/test/fuzz/$_/requests.txt" } qw(seeds regressions)) {
        $line =~ s/\\(?:x([0-9a-f]{2})|([nrt\\]))/defined $1 ? chr hex $1 : { n => "\n", r => "\r", t => "\t", '\\' => '\\' }->{$2}/ge;
        push @corpus, $line;
    }

    return bless { clean => 3, corpus => \@corpus, %option }, $class;
}


sub number {
    my ($self, $number) = @_;
    my $random = Pgq::Random->new($self->{seed}, $number);
    my @corpus = @{ $self->{corpus} };

    # first the unchanged corpus: in one piece, byte by byte, and by a client that shuts down its side during the answer
    if ($number < 3 * @corpus) {
        my ($bytes, $way) = ($corpus[ $number % @corpus ], int $number / @corpus);
        return { pieces => [ $way == 1 ? split //, $bytes : $bytes ], bytes => $bytes, $way == 2 ? (end => 'half', pause => 0.1) : (end => 'wait') };
    }

    my $kind = $random->below(10) - $self->{clean};

    return $self->_clean($random, $number)   if $kind < 0;
    return $self->_spelled($random, $number) if $kind < 2;
    return $self->_mute($random)             if $kind < 3;

    my $bytes = join '', map { $random->pick(@corpus) } 0 .. $random->below(3);
    $bytes = $random->mutate($bytes, \@tokens, \@corpus);
    $bytes .= "GET /nowhere HTTP/1.1${crlf}Host: x${crlf}Connection: close$crlf$crlf" if !$random->one_in(4);

    my $case = { pieces => [ $random->pieces($bytes) ], bytes => $bytes, end => $random->pick(qw(wait wait wait wait half leave reset)) };
    splice @{ $case->{pieces} }, $random->below(1 + @{ $case->{pieces} }) if $case->{end} ne 'wait';

    return $case;
}


sub _clean {
    my ($self, $random, $number) = @_;
    my ($bytes, @expect) = ('');

    for my $nth (0 .. $random->below(5)) {
        my ($request, $expect) = _message($random, "$number.$nth");
        $bytes .= $request;
        push @expect, $expect;

        # a request that is repeated with its key gets the same id
        if ($expect->{key} && $random->one_in(2)) {
            $bytes .= $request;
            push @expect, { %$expect, again => 1 };
        }
    }

    return _answered($random, $bytes, @expect);
}


sub _spelled {
    my ($self, $random, $number) = @_;
    my $spelling = Pgq::FuzzHeaders->new($random);
    my ($bytes, @expect) = ('');

    for my $nth (0 .. $random->below(5)) {
        my ($requests, @answers) = $random->one_in(5) ? $spelling->get($self->{etag}) : $spelling->post("$number.$nth");
        $bytes .= $requests;
        push @expect, @answers;
        last if $answers[-1]{status} =~ /412/;    # nginx closes the connection after it
    }

    return _answered($random, $bytes, @expect);
}


# A case whose requests have to get these answers.
sub _answered {
    my ($random, $bytes, @expect) = @_;
    my $case = { pieces => [ $random->pieces($bytes) ], bytes => $bytes, end => 'wait', expect => \@expect };

    # a client that leaves may miss answers; those that arrive are checked
    if ($random->one_in(5)) {
        splice @{ $case->{pieces} }, $random->below(1 + @{ $case->{pieces} });
        $case->{end} = $random->pick(qw(half leave reset));
    }

    return $case;
}


sub _mute {
    my ($self, $random) = @_;
    my $http2  = $random->one_in(2);
    my $client = Pgq::Http2->new(undef, window => $random->pick(0, 0, 1, 100));
    my $bytes  = join '', map { $random->one_in(3) ? "GET /get?limit=1000 HTTP/1.1${crlf}Host: x$crlf$crlf" : $random->pick(@{ $self->{corpus} }) } 0 .. $random->below(4);

    if ($http2) {
        for (0 .. $random->below(50)) {
            $client->request(
                $random->pick(qw(POST POST POST GET GET HEAD OPTIONS PUT DELETE)),
                $random->pick(qw(/post /post /post/a/b /post/_ /small /get /get?limit=1000 /get?limit=0 /sub/a /sub/a?wait=60 /sub/a/ack /status /metrics /nowhere)),
                body => $random->pick('', '', '1', '{', "[1]\n[2]\n", '"' . 'z' x 3000 . '"'), headers => { 'content-type' => $random->pick('application/json', 'text/plain', 'x', 'application/x-ndjson') },
            );
        }
        $bytes = $client->bytes;
        $bytes = substr $bytes, 0, $random->below(length $bytes) if $random->one_in(4);
    } else {
        $bytes x= 1 + $random->below(1 + 200_000 / length $bytes);
    }

    return {
        pieces => [$bytes], bytes => substr($bytes, 0, 4000), mute => $random->below(2000) / 1000,
        port   => $self->{ports}[$http2], end => $random->pick(qw(leave reset)),
    };
}


# A good request and its answer: the message as JSON or as text.
sub _message {
    my ($random, $mark) = @_;
    my $type = $random->pick('application/json', 'application/json', 'text/plain; charset=utf-8', '', 'application/x-ndjson');
    my $text = $random->text($random->one_in(30) ? $random->below(30_000) : $random->length(2000));
    my ($body, $expect);

    if ($type =~ /text/) {
        $body   = "$mark $text";
        $expect = { text => $body };
    } elsif ($type =~ /ndjson/) {
        my $pad = 'x' x $random->length(200);
        $expect = { lines => [ map { qq({"mark":"$mark","line":$_,"pad":"$pad"}) } 0 .. $random->length(60) ] };
        $body   = join($random->pick("\n", "\r\n"), @{ $expect->{lines} }) . $random->pick('', "\n");
    } else {
        my $quoted = $text =~ s/(["\\])/\\$1/gr;
        $expect = { json => $random->pick(qq({"mark":"$mark","text":"$quoted"}), qq([ "$mark" , 1.50,"$quoted",{}]), qq("$mark$quoted")) };
        $body   = $random->pick('', " \t", "\n") . $expect->{json} . $random->pick('', "\r\n", ' ');
    }

    my @headers = ('Host: x', $type ? "Content-Type: $type" : (), $random->one_in(10) ? 'X-Padding: ' . 'p' x $random->below(2000) : ());

    if ($random->one_in(6)) {
        push @headers, qq(Idempotency-Key: "$mark");
        $expect->{key} = 1;
    }

    if ($random->one_in(8)) {
        push @headers, $random->pick('Prefer: return=minimal', 'prefer: foo, Return=Minimal; x=y');
        $expect->{minimal} = 1;
    }

    if ($random->one_in(3)) {
        push @headers, 'Transfer-Encoding: chunked';
        $body = join '', map { sprintf "%s%x%s$crlf%s$crlf", '0' x $random->below(3), CORE::length, $random->pick('', '', ';a=b', ' ; c="d"'), $_ }
            _chunks($random, $body);
        $body .= "0$crlf$crlf";
    } else {
        push @headers, 'Content-Length: ' . length $body;
    }

    my $path = $random->pick('/post', '/post', '/post/', '/post/a', '/post/a/b.c~d_e-f', '/post/%61%2f%2e%2e/a', '/post/' . 'x' x 255);

    return (join($crlf, "POST $path HTTP/1.1", @headers, '', '') . $body, $expect);
}


sub _chunks {
    my ($random, $body) = @_;
    my $most = $random->pick(1, 20, 1000, 100_000);
    my @chunks;

    $most = 100 if $most < 100 && length $body > 3000;

    while (length $body) {
        push @chunks, substr $body, 0, 1 + $random->below($most), '';
    }

    return @chunks;
}


1;
