package Pgq::Siege;

# A real nginx under requests that nobody would write, on several connections at a time. Cases are numbered; each is
# what one connection sends and how it ends, made of the seed and its number alone:
#
#   clean    one to five good requests, cut up, pipelined or in chunks, some with a key, some with many messages: each has
#            to be answered 202, in their order
#   wild     requests of the corpus, mutated: whatever is answered has to be HTTP, with a status of those that there are
#
# and it ends when all is answered, or the client half closes, leaves or resets the connection somewhere midway. At the
# end each id that was answered 202 has to be in posts once, with the message that was answered.
#
#   my $siege = Pgq::Siege->new(nginx => $nginx, pg => $pg, seed => 1);
#   $siege->run(cases => 200);   @{ $siege->{wrong} };   $siege->{count};   $siege->check_posts;

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use Socket qw(IPPROTO_TCP TCP_NODELAY SOL_SOCKET SO_LINGER);
use Time::HiRes qw(time);

use Pgq::Chance;
use Pgq::Host qw(top slurp);
use Pgq::Wait qw(timeout);

my $crlf = "\r\n";
my $json = JSON::PP->new->utf8->allow_nonref;
my $uuid = qr/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/;

# What nginx and the module may answer to anything at all; 503 only where the queue is small.
my %expected = map { $_ => 1 } 100, 200, 202, 204, 301, 304, 400, 404, 405, 408, 409, 411, 412, 413, 414, 415, 416, 421, 422, 501, 505;

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
    'HTTP/1.1', 'HTTP/1.0', ' HTTP/1.', '/post', '/get', '/small', '?limit=', '&before=', '%00', '%', '/../', '//', '#',
    'POST ', 'GET ', 'HEAD ', 'OPTIONS ', 'a' x 9000, '"' . 'b' x 5000 . '"', '{"a":', '[' x 50, '\u0000', '\ud800', "\0", "\xff",
);


# The servers that it is meant for, as options: bodies in memory and on disk, a queue that is soon full, every door.
sub servers {
    my $pg   = Pgq::Postgres->new->start;
    my $base = $pg->conninfo(user => 'ngx_pgq_web');

    my $nginx = Pgq::Nginx->new(
        pg        => $pg,
        pools     => qq{pgq_pool main "$base"; pgq_pool small "$base" lanes=1 tickets=1 size=64;},
        http      => 'client_max_body_size 64k; client_body_buffer_size 2k; client_header_timeout 60s; client_body_timeout 60s;'
            . ' lingering_timeout 1s; gzip on; gzip_types application/json;',
        locations => 'location = /small { pgq_post small; } location = /metrics { pgq_metrics; } location = /status { pgq_status; }',
    )->start;

    return (pg => $pg, nginx => $nginx);
}


# Options: nginx, pg, seed, connections (16), clean (of ten cases so many).
sub new {
    my ($class, %option) = @_;
    my @corpus;

    for my $line (grep { !/^(?:#|$)/ } map { split /\n/ } map { -e $_ ? slurp($_) : () }
        map { top() . "/test/fuzz/$_/requests.txt" } qw(seeds regressions)) {
        $line =~ s/\\(?:x([0-9a-f]{2})|([nrt\\]))/defined $1 ? chr hex $1 : { n => "\n", r => "\r", t => "\t", '\\' => '\\' }->{$2}/ge;
        push @corpus, $line;
    }

    return bless {
        connections => 16,
        clean       => 3,
        corpus      => \@corpus,
        wrong       => [],
        count       => { cases => 0, answers => 0, ids => 0 },
        status      => {},
        message     => {},
        next        => 0,
        %option,
    }, $class;
}


# ---- what is sent

# A case: its bytes in pieces, what is expected of it if that is known, and how it ends.
sub _case {
    my ($self, $number) = @_;
    my $chance = Pgq::Chance->new($self->{seed}, $number);
    my @corpus = @{ $self->{corpus} };

    # first the corpus as it is: whole, then byte by byte
    if ($number < 2 * @corpus) {
        my $bytes = $corpus[ $number % @corpus ];
        return { pieces => [ $number < @corpus ? $bytes : split //, $bytes ], bytes => $bytes, end => 'wait' };
    }

    return $self->_clean($chance, $number) if $chance->below(10) < $self->{clean};

    my $bytes = join '', map { $chance->pick(@corpus) } 0 .. $chance->below(3);
    $bytes = $chance->mutate($bytes, \@tokens, \@corpus);
    $bytes .= "GET /nowhere HTTP/1.1${crlf}Host: x${crlf}Connection: close$crlf$crlf" if !$chance->one_in(4);

    my $case = { pieces => [ $chance->pieces($bytes) ], bytes => $bytes, end => $chance->pick(qw(wait wait wait wait half leave reset)) };
    splice @{ $case->{pieces} }, $chance->below(1 + @{ $case->{pieces} }) if $case->{end} ne 'wait';

    return $case;
}


sub _clean {
    my ($self, $chance, $number) = @_;
    my ($bytes, @expect) = ('');

    for my $nth (0 .. $chance->below(5)) {
        my ($request, $expect) = _message($chance, "$number.$nth");
        $bytes .= $request;
        push @expect, $expect;

        # the same again, with the same key, gets the same id
        if ($expect->{key} && $chance->one_in(2)) {
            $bytes .= $request;
            push @expect, { %$expect, again => 1 };
        }
    }

    my $case = { pieces => [ $chance->pieces($bytes) ], bytes => $bytes, end => 'wait', expect => \@expect };

    # who leaves gets no answer, or some; what was answered before is expected all the same
    if ($chance->one_in(5)) {
        splice @{ $case->{pieces} }, $chance->below(1 + @{ $case->{pieces} });
        $case->{end} = $chance->pick(qw(half leave reset));
    }

    return $case;
}


# A good request, and what has to be answered: the message as JSON text, or as the text that it is.
sub _message {
    my ($chance, $mark) = @_;
    my $type = $chance->pick('application/json', 'application/json', 'text/plain; charset=utf-8', '', 'application/x-ndjson');
    my $text = $chance->text($chance->one_in(30) ? $chance->below(30_000) : $chance->length(2000));
    my ($body, $expect);

    if ($type =~ /text/) {
        $body   = "$mark $text";
        $expect = { text => $body };
    } elsif ($type =~ /ndjson/) {
        my $pad = 'x' x $chance->length(200);
        $expect = { lines => [ map { qq({"mark":"$mark","line":$_,"pad":"$pad"}) } 0 .. $chance->length(60) ] };
        $body   = join($chance->pick("\n", "\r\n"), @{ $expect->{lines} }) . $chance->pick('', "\n");
    } else {
        my $quoted = $text =~ s/(["\\])/\\$1/gr;
        $expect = { json => $chance->pick(qq({"mark":"$mark","text":"$quoted"}), qq([ "$mark" , 1.50,"$quoted",{}]), qq("$mark$quoted")) };
        $body   = $chance->pick('', " \t", "\n") . $expect->{json} . $chance->pick('', "\r\n", ' ');
    }

    my @headers = ('Host: x', $type ? "Content-Type: $type" : (), $chance->one_in(10) ? 'X-Padding: ' . 'p' x $chance->below(2000) : ());

    if ($chance->one_in(6)) {
        push @headers, qq(Idempotency-Key: "$mark");
        $expect->{key} = 1;
    }

    if ($chance->one_in(8)) {
        push @headers, $chance->pick('Prefer: return=minimal', 'prefer: foo, Return=Minimal; x=y');
        $expect->{minimal} = 1;
    }

    if ($chance->one_in(3)) {
        push @headers, 'Transfer-Encoding: chunked';
        $body = join '', map { sprintf "%s%x%s$crlf%s$crlf", '0' x $chance->below(3), CORE::length, $chance->pick('', '', ';a=b', ' ; c="d"'), $_ }
            _chunks($chance, $body);
        $body .= "0$crlf$crlf";
    } else {
        push @headers, 'Content-Length: ' . length $body;
    }

    return (join($crlf, 'POST /post HTTP/1.1', @headers, '', '') . $body, $expect);
}


sub _chunks {
    my ($chance, $body) = @_;
    my $most = $chance->pick(1, 20, 1000, 100_000);
    my @chunks;

    $most = 100 if $most < 100 && length $body > 3000;

    while (length $body) {
        push @chunks, substr $body, 0, 1 + $chance->below($most), '';
    }

    return @chunks;
}


# ---- the connections

# Options: cases or seconds; from (the first case's number).
sub run {
    my ($self, %option) = @_;
    my $end  = $option{seconds} ? time + $option{seconds} : undef;
    my $last = $option{cases} ? $self->{next} + $option{cases} : undef;
    my @open;

    local $SIG{PIPE} = 'IGNORE';

    while (1) {
        while (@open < $self->{connections} && !@{ $self->{wrong} } && (!$last || $self->{next} < $last) && (!$end || time < $end)) {
            push @open, $self->_open($self->{next}++) // last;
        }

        last if !@open;
        $self->_turn(@open);
        @open = grep { $_->{socket} } @open;
    }

    return !@{ $self->{wrong} };
}


sub _open {
    my ($self, $number) = @_;
    my $case   = $self->_case($number);
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{nginx}->port, Proto => 'tcp', Timeout => timeout(10));

    if (!$socket) {
        push @{ $self->{wrong} }, "case $number: nginx takes no connection: $@";
        return;
    }

    setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
    $socket->blocking(0);
    $self->{count}{cases}++;

    return { %$case, number => $number, socket => $socket, got => '', answers => 0, sent => 0, since => time };
}


# Each connection that can take or give something does so once.
sub _turn {
    my ($self, @open) = @_;
    my %case   = map { fileno($_->{socket}) => $_ } @open;
    my $read   = IO::Select->new(map { $_->{socket} } @open);
    my $write  = IO::Select->new(map { @{ $_->{pieces} } ? $_->{socket} : () } @open);
    my ($readable, $writable) = IO::Select->select($read, $write, undef, 0.02);

    for my $socket (@{ $writable || [] }) {
        my $case = $case{ fileno $socket };
        my $count = syswrite $socket, $case->{pieces}[0];

        if (!defined $count) {
            $case->{pieces} = [] if !$!{EAGAIN};    # closed: what it answered can still be read
            next;
        }

        $case->{sent} += $count;
        $case->{since} = time;
        substr $case->{pieces}[0], 0, $count, '';
        shift @{ $case->{pieces} } if $case->{pieces}[0] eq '';
    }

    for my $socket (@{ $readable || [] }) {
        my $case  = $case{ fileno $socket };
        my $count = sysread $socket, $case->{got}, 262_144, length $case->{got};

        next if !defined $count && $!{EAGAIN};
        $case->{since} = time;
        $case->{reset} = 1 if !defined $count;
        $case->{eof}   = 1 if !$count;
        $self->_answers($case);
        $self->_over($case) if $case->{eof} && $case->{socket};
    }

    $self->_ending($_) for grep { $_->{socket} && !@{ $_->{pieces} } } @open;

    return;
}


# All was sent: the client does what it means to do now.
sub _ending {
    my ($self, $case) = @_;
    my $quiet = time - $case->{since};

    if ($case->{end} eq 'leave' || $case->{end} eq 'reset') {
        setsockopt $case->{socket}, SOL_SOCKET, SO_LINGER, pack 'll', 1, 0 if $case->{end} eq 'reset';
        $self->_close($case);
    } elsif ($case->{end} eq 'half') {
        shutdown $case->{socket}, 1 if !$case->{half}++;
        $self->_close($case) if $quiet > 0.3;
    } elsif ($case->{expect}) {
        $self->_close($case) if $case->{answers} == @{ $case->{expect} };
        $self->_wrong($case, 'no answer to message ' . ($case->{answers} + 1)) if $case->{socket} && $quiet > timeout(30);
    } elsif ($quiet > 0.3) {
        $self->_close($case);
    }

    return;
}


sub _close {
    my ($self, $case) = @_;

    close delete $case->{socket};

    return;
}


# nginx closed the connection.
sub _over {
    my ($self, $case) = @_;

    $self->_wrong($case, 'an answer that is cut off: ' . substr $case->{got}, 0, 200)
        if $case->{got} ne '' && !$case->{reset} && !$case->{raw} && ($case->{expect} || $case->{bytes} !~ /HEAD /);
    $self->_wrong($case, 'closed before message ' . ($case->{answers} + 1) . ' was answered')
        if $case->{expect} && $case->{end} eq 'wait' && $case->{answers} < @{ $case->{expect} };
    $self->_close($case) if $case->{socket};

    return;
}


sub _wrong {
    my ($self, $case, $what) = @_;
    my $bytes = $case->{bytes} =~ s/([^\x20-\x7e])/sprintf '\\x%02x', ord $1/ger;

    push @{ $self->{wrong} }, "case $case->{number} of seed $self->{seed}: $what\nsent: " . substr $bytes, 0, 4000;
    $self->_close($case) if $case->{socket};

    return;
}


# ---- what is answered

# Takes whole answers off what was read.
sub _answers {
    my ($self, $case) = @_;

    while ($case->{socket} && length $case->{got} && !$case->{raw}) {

        # HTTP/0.9 has no head; it is asked for by a line without a version
        if (length $case->{got} >= 5 && $case->{got} !~ m{\AHTTP/}) {
            $case->{raw} = !$case->{expect} && $case->{bytes} =~ m{[A-Z]+ +\S+ *\r?$}m
                or $self->_wrong($case, 'no HTTP: ' . substr $case->{got}, 0, 200);
            return;
        }

        my ($head) = $case->{got} =~ /\A(.*?)\r\n\r\n/s or return;
        my ($start, @lines) = split /\r\n/, $head;
        my ($status) = $start =~ m{\AHTTP/1\.1 (\d{3}) [\x20-\x7e]*\z}
            or return $self->_wrong($case, "no status line: $start");
        my %header;

        for my $line (@lines) {
            $line =~ /\A([A-Za-z-]+): ([\x20-\x7e\x80-\xff]*)\z/ or return $self->_wrong($case, "no header: $line");
            $header{ lc $1 } = $2;
        }

        my $body = _body($case, $status, \%header, length($head) + 4) // return;
        $self->_judge($case, $status, \%header, $body);
    }

    return;
}


# The body, with the whole answer taken off; undef if it is not all there.
sub _body {
    my ($case, $status, $header, $at) = @_;
    my $body = '';

    if ($status >= 200 && $status != 204 && $status != 304) {
        my $rest = substr $case->{got}, $at, 7;
        my $head = $case->{bytes} =~ /HEAD /;

        if ($head && ($rest =~ m{\AHTTP/1} || ($rest eq '' && ($case->{eof} || !@{ $case->{pieces} })))) {
            # the answer to HEAD
        } elsif (($header->{'transfer-encoding'} // '') eq 'chunked') {
            while (1) {
                my ($size) = substr($case->{got}, $at, 20) =~ /\A([0-9a-f]+)\r\n/ or return;
                $at += 2 + length $size;
                $size = hex $size;
                return if length $case->{got} < $at + $size + 2;
                $body .= substr $case->{got}, $at, $size;
                $at += $size + 2;
                last if !$size;
            }
        } elsif (defined $header->{'content-length'}) {
            return if length $case->{got} < $at + $header->{'content-length'};
            $body = substr $case->{got}, $at, $header->{'content-length'};
            $at += length $body;
        } else {
            return if !$case->{eof};
            $body = substr $case->{got}, $at;
            $at = length $case->{got};
        }
    }

    substr $case->{got}, 0, $at, '';

    return $body;
}


sub _judge {
    my ($self, $case, $status, $header, $body) = @_;

    $self->{status}{$status}++;
    $self->{count}{answers}++;

    return if $status < 200;

    my $expect = $case->{expect} ? $case->{expect}[ $case->{answers} ] : undef;
    $case->{answers}++;

    if (!$expected{$status} && !($status == 503 && $case->{bytes} =~ /small/)) {
        return $self->_wrong($case, "status $status: $body");
    }

    if ($status >= 400 && ($header->{'content-type'} // '') ne 'application/problem+json') {
        return $self->_wrong($case, "status $status, not as a problem: $body");
    }

    if ($status >= 400 && $body ne '' && !eval { $json->decode($body)->{status} }) {
        return $self->_wrong($case, "status $status, no JSON: $body");
    }

    if ($case->{expect} && (!$expect || $status != 202)) {
        return $self->_wrong($case, $expect ? "a good message was answered $status: $body" : 'one answer too many');
    }

    $self->_accepted($case, $body, $expect) if $status == 202;

    return;
}


# A 202: one message, or many.
sub _accepted {
    my ($self, $case, $body, $expect) = @_;
    my ($head, $message) = $body =~ /\A(.*?)(?:,"msg":(.*))?\}\z/s or return $self->_wrong($case, "no answer: $body");
    my @ids = $head =~ /"($uuid)"/g;

    return $self->_wrong($case, "no id: $body") if !@ids;

    if ($expect && $expect->{lines}) {
        my @lines = @{ $expect->{lines} };
        return $self->_wrong($case, @ids . ' ids for ' . @lines . ' lines') if @ids != @lines;
        @{ $self->{message} }{@ids} = @lines;
    } elsif ($expect) {
        # what is larger than 4 kB is echoed only to those who ask for it
        my $sent = $expect->{json} // _quoted($expect->{text});
        my $large = do { use bytes; length $sent } > 4096;
        return $self->_wrong($case, "no message: $body") if !$expect->{minimal} && !$large && !defined $message;
        $self->{message}{ $ids[0] } = $sent if $large && $expect->{json};

        if (defined $message) {
            my $good = $expect->{json} ? $message eq $expect->{json} : eval { $json->decode($message) eq $json->decode(_quoted($expect->{text})) };
            return $self->_wrong($case, 'another message was answered: ' . substr $message, 0, 300) if !$good;
            $self->{message}{ $ids[0] } = $message;
        }
    }

    return $self->_wrong($case, "other ids: @ids, not $case->{ids}") if $expect && $expect->{again} && "@ids" ne $case->{ids};
    $case->{ids} = "@ids";
    $self->{message}{$_} //= @ids == 1 ? $message : undef for @ids;

    return;
}


sub _quoted { return '"' . $_[0] =~ s/(["\\])/\\$1/gr . '"' }


# What is wrong with posts, if anything: each acknowledged message is there once, as it was answered.
sub check_posts {
    my ($self) = @_;
    my (%found, @wrong);

    $self->{pg}->poll_query_until('select count(*) from ngx_pgq.queue', 0, 60);
    $self->{count}{ids} = keys %{ $self->{message} };

    for my $line (split /\n/, $self->{pg}->safe_psql(q{select message_id, encode(convert_to(data::text, 'UTF8'), 'hex') from posts})) {
        my ($id, $hex) = split /\|/, $line;
        push @wrong, "$id is in posts twice" if exists $found{$id};
        $found{$id} = pack 'H*', $hex;
    }

    for my $id (sort keys %{ $self->{message} }) {
        my $message = $self->{message}{$id};
        push @wrong, "$id was answered 202 and is not in posts" if !exists $found{$id};
        push @wrong, "$id is in posts as another message: $found{$id}" if defined $message && exists $found{$id} && $found{$id} ne $message;
    }

    push @{ $self->{wrong} }, @wrong;

    return !@wrong;
}


1;
