package Pgq::FuzzClients;

# Several connections at a time that send the cases of Pgq::FuzzCase to a real nginx. Every answer has to be HTTP, and the
# expected answer if the case has one. At the end each acknowledged message has to be in posts once, as it was answered, and
# no connection and no waiting request may be left.
#
#   my $fuzz = Pgq::FuzzClients->new(seed => 1, Pgq::FuzzClients::servers());
#   $fuzz->run(cases => 200);   @{ $fuzz->{wrong} };   $fuzz->{count};   $fuzz->check_posts;   $fuzz->check_left;

use strict;
use warnings;

use IO::Select;
use JSON::PP ();
use Socket qw(IPPROTO_TCP TCP_NODELAY SOL_SOCKET SO_LINGER);
use Time::HiRes qw(time);

use Pgq::FuzzCase;
use Pgq::Client;
use Pgq::Host qw(free_port);
use Pgq::Oracle;
use Pgq::Wait qw(poll_until timeout);

my $crlf = "\r\n";
my $old  = qr{[A-Z]+ +(?:/|https?:)\S* *\r?$}m;    # a request of HTTP/0.9
my $json = JSON::PP->new->utf8->allow_nonref;
my $uuid = qr/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/;

# The statuses that nginx and the module may answer; 503 only where the queue is small.
my %expected = map { $_ => 1 } 100, 101, 200, 201, 202, 204, 301, 304, 400, 403, 404, 405, 408, 409, 411, 412, 413, 414, 415, 416, 421, 422, 426, 431, 501, 505;

# Starts the servers and returns them as options of new: request bodies in memory and in files, a queue that is soon full, all
# endpoints, streams that end after a second, and for mute clients a port with the smallest buffers and one with HTTP/2. keepalive_timeout is short because nginx
# treats a connection that is reset while it discards a body as idle.
sub servers {
    my $pg    = Pgq::Postgres->new->start;
    my $base  = $pg->conninfo(user => 'ngx_pgq_web');
    my @ports = map { free_port() } 1, 2;
    my %http2 = Pgq::Nginx->http2;
    my $pages = 'location ^~ /post/ { pgq_post main; } location ^~ /get/ { pgq_get main; } location /stream { pgq_stream main; pgq_stream_post on; } location ^~ /sub/ { pgq_subscription main; } location = /small { pgq_post small; } location = /metrics { pgq_metrics; } location = /status { pgq_status; }';

    my $nginx = Pgq::Nginx->new(
        pg        => $pg,
        pools     => qq{pgq_pool main "$base"; pgq_pool small "$base" lanes=1 tickets=1 size=64; pgq_ring main posts=100 poll=200ms;},
        http      => 'client_max_body_size 64k; client_body_buffer_size 2k; client_header_timeout 60s; client_body_timeout 60s; keepalive_timeout 10s;'
            . ' lingering_timeout 1s; pgq_heartbeat 200ms; pgq_stream_age 1s; gzip on; gzip_types application/json;'
            . "server { listen 127.0.0.1:$ports[0] rcvbuf=4k sndbuf=4k; listen 127.0.0.1:$ports[1] @{[ $http2{listen} // '' ]};"
            . "@{[ $http2{server} // '' ]} location = /post { pgq_post main; } location = /get { pgq_get main; } $pages }",
        locations => $pages,
    )->start;

    # two posts whose page has a constant ETag
    my $client = Pgq::Client->new($nginx);
    $client->post('/post', $_) for 1, 2;
    $pg->poll_query_until('select count(*) from posts', 2);
    poll_until { ($client->get('/get?limit=2&before=3')->header('Cache-Status') // '') eq 'pgq; hit' };

    return (pg => $pg, nginx => $nginx, ports => \@ports, etag => $client->get('/get?limit=2&before=3')->header('ETag'));
}


# Options: nginx, pg, seed, connections (16, and as many mute ones), next (the first case), and those of Pgq::FuzzCase.
sub new {
    my ($class, %option) = @_;
    return bless {
        cases       => Pgq::FuzzCase->new(%option),
        connections => 16,
        wrong       => [],
        count       => { cases => 0, answers => 0, ids => 0 },
        status      => {},
        message     => {},
        next        => 0,
        %option,
    }, $class;
}


# ---- the connections

# Options: cases or seconds.
sub run {
    my ($self, %option) = @_;
    my $end  = $option{seconds} ? time + $option{seconds} : undef;
    my $last = $option{cases} ? $self->{next} + $option{cases} : undef;
    my @open;

    local $SIG{PIPE} = 'IGNORE';

    while (1) {
        while ((grep { !defined $_->{mute} } @open) < $self->{connections} && !@{ $self->{wrong} } && (!$last || $self->{next} < $last) && (!$end || time < $end)) {
            push @open, $self->_open($self->{next}++) // last;
        }

        # too many mute clients: end the first
        my @mute = grep { defined $_->{mute} } @open;
        $mute[0]{mute} = 0 if @mute > $self->{connections};

        last if !@open;
        $self->_turn(@open);
        @open = grep { $_->{socket} } @open;
    }

    return !@{ $self->{wrong} };
}


sub _open {
    my ($self, $number) = @_;
    my $case   = $self->{cases}->number($number);
    my $socket = eval {
        Pgq::Client->new($case->{port} // $self->{nginx}, timeout => timeout(10), defined $case->{mute} ? (buffer => 1) : ())->socket;
    };

    if (!$socket) {
        push @{ $self->{wrong} }, "case $number: nginx accepts no connection: $@";
        return;
    }

    setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
    $socket->blocking(0);
    $self->{count}{cases}++;

    return { %$case, number => $number, socket => $socket, got => '', answers => 0, sent => 0, since => time, begun => time };
}


# Writes and reads once on each connection that is ready.
sub _turn {
    my ($self, @open) = @_;
    my %case   = map { fileno($_->{socket}) => $_ } @open;
    my $read   = IO::Select->new(map { defined $_->{mute} ? () : $_->{socket} } @open);
    my $write  = IO::Select->new(map { @{ $_->{pieces} } ? $_->{socket} : () } @open);
    my ($readable, $writable) = IO::Select->select($read, $write, undef, 0.02);

    for my $socket (@{ $writable || [] }) {
        my $case = $case{ fileno $socket };
        my $count = syswrite $socket, $case->{pieces}[0];

        if (!defined $count) {
            $case->{pieces} = [] if !$!{EAGAIN};    # closed: answers may still be read
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

    $self->_ending($_) for grep { $_->{socket} && (!@{ $_->{pieces} } || defined $_->{mute}) } @open;

    return;
}


# Ends a case after its bytes are sent. A mute client ends at its time.
sub _ending {
    my ($self, $case) = @_;
    my $quiet = time - $case->{since};

    return if defined $case->{mute} && time < $case->{begun} + $case->{mute};

    if ($case->{end} eq 'leave' || $case->{end} eq 'reset') {
        setsockopt $case->{socket}, SOL_SOCKET, SO_LINGER, pack 'll', 1, 0 if $case->{end} eq 'reset';
        $self->_close($case);
    } elsif ($case->{end} eq 'half') {
        shutdown $case->{socket}, 1 if $quiet >= ($case->{pause} // 0) && !$case->{half}++;
        $self->_close($case) if $quiet > 0.3;
    } elsif ($case->{expect}) {
        $self->_close($case) if $case->{answers} == @{ $case->{expect} };
        $self->_wrong($case, 'no answer to message ' . ($case->{answers} + 1)) if $case->{socket} && $quiet > timeout(30);
    } elsif ($quiet > 0.3) {
        $case->{quiet} = 1;
        $self->_answers($case);
        $self->_close($case) if $case->{socket};
    }

    return;
}


sub _close {
    my ($self, $case) = @_;

    close delete $case->{socket};

    return;
}


# nginx has closed the connection.
sub _over {
    my ($self, $case) = @_;

    # nginx ends a stream, and an answer that waits for its client to read, when the client shuts down its side
    $self->_wrong($case, 'a truncated answer: ' . substr $case->{got}, 0, 200)
        if $case->{got} ne '' && !$case->{reset} && !$case->{raw} && ($case->{expect} || !$case->{half} && $case->{bytes} !~ /HEAD /);
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


# ---- answers

# Takes complete answers from what was read.
sub _answers {
    my ($self, $case) = @_;

    while ($case->{socket} && length $case->{got} && !$case->{raw}) {

        # an answer of HTTP/0.9 has no head; its request has no version
        if (length $case->{got} >= 5 && $case->{got} !~ m{\AHTTP/}) {
            $case->{raw} = !$case->{expect} && $case->{bytes} =~ $old
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
            $header{ lc $1 } = defined $header{ lc $1 } ? $header{ lc $1 } . ", $2" : $2;
        }

        # frames of a WebSocket follow
        $case->{raw} = 1 if $status == 101;

        my $body = _body($case, $status, \%header, length($head) + 4) // return;
        $self->_check_answer($case, $status, \%header, $body);
    }

    return;
}


# Takes a complete answer from what was read and returns its body; undef if it is not complete.
sub _body {
    my ($case, $status, $header, $at) = @_;
    my $body = '';

    if ($status >= 200 && $status != 204 && $status != 304) {
        my $rest = substr $case->{got}, $at, 7;
        my $head = $case->{bytes} =~ /HEAD /;

        # an answer of HTTP/0.9 may follow the answer to HEAD
        $case->{raw} = 1 if $head && !$case->{expect} && $rest ne '' && $rest !~ m{\AHTTP/1} && $case->{bytes} =~ $old;

        if ($case->{raw} || $head && ($rest =~ m{\AHTTP/1} || ($rest eq '' && ($case->{eof} || $case->{quiet})))) {
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


sub _check_answer {
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

    if ($case->{expect}) {
        # 201: the client waited for its post
        my $good    = $expect && ($expect->{status} // '20[12]');
        my $applied = ($header->{'preference-applied'} // '') =~ s/(?:, |\A)wait=\d+\z//r;
        return $self->_wrong($case, 'one answer too many') if !$expect;
        return $self->_wrong($case, "request $case->{answers} was answered $status, not $good: $body") if $status !~ /^(?:$good)$/;
        return $self->_wrong($case, "request $case->{answers} is no $expect->{code}: $body") if $expect->{code} && $json->decode($body)->{code} ne $expect->{code};
        return $self->_wrong($case, "request $case->{answers} is not answered by $expect->{applied}") if ($expect->{applied} // $applied) ne $applied;
    }

    # the body after a head that may be that of HEAD is not read; the answer to PUT has none
    $body =~ s/,"post":\d+\}\z/}/ if $status == 201;
    $self->_accepted($case, $body, $expect) if $status == 201 && $body ne '' || $status == 202 && !$case->{raw};

    return;
}


# Checks a 202 for one message or many.
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
        # a message above 4 kB is returned only on request
        my $sent = $expect->{json} // _quoted($expect->{text});
        my $large = do { use bytes; length $sent } > 4096;
        return $self->_wrong($case, "no message: $body") if !$expect->{minimal} && !$large && !defined $message;
        $self->{message}{ $ids[0] } = $sent if $expect->{json};

        return $self->_wrong($case, "a message in spite of return=minimal: $body") if $expect->{minimal} && defined $message;

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


# Whether each acknowledged message is in posts once, as it was answered.
sub check_posts {
    my ($self) = @_;
    my $oracle = Pgq::Oracle->new(foreign => 1);

    $oracle->told($_, 'accepted', data => $self->{message}{$_}) for keys %{ $self->{message} };
    $self->{count}{ids} = $oracle->count('accepted');

    my @wrong = $oracle->drain($self->{pg}, 60)->read($self->{pg}, 'true')->complaints;
    push @{ $self->{wrong} }, @wrong;

    return !@wrong;
}


# Whether no connection and no waiting request is left after all clients have ended.
sub check_left {
    my ($self) = @_;
    my ($waits, @left) = ('');

    poll_until {
        my $metrics = Pgq::Client->new($self->{nginx})->get('/metrics', Connection => 'close')->{body};
        $waits = join "\n", $metrics =~ /^((?:pgq_waiting_\w+|pgq_unread_bytes)\{.*\} [^0].*)$/mg;
        @left  = $self->{nginx}->clients(@{ $self->{ports} });
        return !@left && $waits eq '';
    } 30 and return 1;

    push @{ $self->{wrong} }, @left . ' connections of clients are left (port and state): ' . join(', ', @left), $waits || ();

    return 0;
}


1;
