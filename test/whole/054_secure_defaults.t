# P12: the defaults in the table of docs/operations.md are those of the shipped configurations: `make run`, a cluster's
# web hosts, and the examples. Each of these refuses requests as the table says.

use Pgq;
use Pgq::Host qw(run temp_dir top slurp spew build_dir pg_version free_port);
use Cwd qw(realpath);
use IO::Socket::INET;

my $top      = top();
my $examples = "$top/ngx_pgq_module/examples";
my $dir      = temp_dir('secure');

# ---- the table

sub included { my ($text) = @_; $text =~ s{^ *include (\S+);}{included(slurp("$examples/$1"))}gme; return $text =~ s/#.*//gr }

my @config = map { s/\@(\w+)\@/$1/gr } map { included(slurp("$top/$_")) }
    qw(provision/dev/nginx.conf.in provision/host/nginx.conf.in ngx_pgq_module/examples/nginx.conf);
my %row;

for my $line (grep { /^\| .*\|$/ } split /\n/, slurp("$top/docs/operations.md")) {
    my ($purpose, $directive, @value) = split /\s*\|\s*/, $line =~ s/^\| //r;
    next if $directive !~ /^`(\w+)`$/;
    my $name = $1;
    $row{$name} = 1;

    for my $n (0 .. 2) {
        my ($value) = $value[$n] =~ /^`(.*)`$/;
        my @lines = $config[$n] =~ /(?:^|\s)(\Q$name\E\s[^;{]*)[;{]/g;
        @lines = map { /listen\s+([^;]*);/g } grep { /\b\Q$name\E\b/ } split /^ +server \{/m, $config[$n] if $name =~ /^pgq_(?:metrics|page)$/;
        my $found = grep { defined $value && index(s/\s+/ /gr, $value) >= 0 } @lines;
        ok(defined $value ? $found : !@lines, "$name of " . qw(run hosts examples)[$n] . ": $value[$n]");
    }
}

my %guard = map { $_ => 1 } map { /(?:^|[\s;{])((?:limit_req_zone|limit_conn|\w+_timeout|client_max_body_size|pgq_lines|ssl_protocols|server_tokens|add_header|http2_max_\w+|reset_\w+|pgq_readers))\s/g } @config;
is(join(' ', grep { !$row{$_} } grep { !/^(?:proxy|ssl_session|pgq|connect)_/ || /lines|readers/ } sort keys %guard), '', 'the table has a row for each limit, timeout and security directive');

# ---- requests that every configuration refuses

# A request by curl: the status and the whole answer.
sub ask {
    my (@arguments) = @_;
    my ($status, $out) = run([ 'curl', '-s', '-i', '-k', '--max-time', timeout(30), @arguments ]);
    my @statuses = $out =~ m{^HTTP/[\d.]+ (\d+)}mg;
    return ($statuses[-1] // "none ($status)", $out);
}

# Opens a connection that sends the beginning of a request only. silent() checks that nginx closes it within half a minute.
my @silent;
sub begin {
    my ($what, $port, $bytes) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die "connect: $@\n";
    syswrite $socket, $bytes;
    push @silent, [ $what, $socket ];
    return;
}

sub silent {
    for (@silent) {
        my ($what, $socket) = @$_;
        $socket->blocking(0);
        ok((poll_until { my $got = sysread $socket, my ($buffer), 4096; defined $got && $got == 0 || !defined $got && $!{ECONNRESET} } 30),
            "$what: a connection that sends nothing is closed");
    }
    @silent = ();
    return;
}

# Checks a server and its monitoring listener, both by URL. Takes more options for curl.
sub refuses {
    my ($what, $url, $monitor, $size, @curl) = @_;
    my ($port) = $url =~ /:(\d+)$/;
    my @json = (@curl, '-H', 'Content-Type: application/json', '-d');

    is((ask(@json, '1', "$url/post"))[0], 202, "$what: a message is accepted");
    like((ask(@curl, '-X', 'PUT', "$url/sub/defaults"))[0], qr/^20[14]$/, "$what: a subscription is created");
    is((ask(@curl, "$url/sub/defaults"))[0], 200, "$what: ... and read");
    is((ask(@curl, '-H', 'Host: rebound.example', "$url/get"))[0], 421, "$what: GET for another host is refused");
    is((ask(@json, '1', '-H', 'Host: rebound.example', "$url/post"))[0], 421, "$what: POST for another host is refused");
    is((ask('-H', 'Host: rebound.example', "$monitor/metrics"))[0], 421, "$what: /metrics for another host is refused");
    is((ask(@curl, "$url/$_"))[0], 404, "$what: clients cannot read /$_") for qw(metrics status);
    is((ask("$monitor/$_"))[0], 200, "$what: the monitoring listener serves /$_") for qw(metrics status);
    unlike((ask("$monitor/status"))[1], qr/version|\d\.\d+\.\d/, "$what: /status shows no version");

    for my $case ([ 'Origin: https://evil.example', 403 ], [ 'Origin: null', 403 ], [ 'Sec-Fetch-Site: cross-site', 403 ], [ "Origin: $url", 202 ]) {
        my ($header, $status) = @$case;
        is((ask(@json, '1', '-H', $header, "$url/post"))[0], $status, "$what: POST of a page with $header: $status");
        is((ask(@curl, '-H', $header, "$url/get"))[0], $status == 202 ? 200 : $status, "$what: GET of a page with $header: " . ($status == 202 ? 200 : $status));
    }

    for my $case ([ '/get' ], [ '/nowhere' ], [ '/post', '-d', '{' ], [ '/get', '-H', 'Host: rebound.example' ]) {
        my ($path, @more) = @$case;
        my ($status, $answer) = ask(@curl, @more, "$url$path");
        like($answer, qr/^server: nginx\r$/mi, "$what: an answer $status shows no version");
        like($answer, qr/^x-content-type-options: nosniff\r$/mi, "$what: an answer $status has X-Content-Type-Options");
    }

    spew("$dir/lines", map { "$_\n" } 1 .. 1001);
    spew("$dir/large", '"' . 'x' x $size . '"');
    my ($status, $answer) = ask(@curl, '-H', 'Content-Type: application/x-ndjson', '--data-binary', "\@$dir/lines", "$url/post");
    is($status, 413, "$what: 1001 lines are refused");
    is((ask(@json, "\@$dir/large", "$url/post"))[0], 413, "$what: a message of $size + 2 bytes is refused");

    begin($what, $port, $url =~ /^https/ ? "\x16\x03\x01" : "POST /post HTTP/1.1\r\nHost:");
    begin("$what, monitoring", $monitor =~ /:(\d+)$/, "GET /metrics HTTP/1.1\r\nHost:");

    return;
}

# Sends this many pipelined messages from an address of this machine. Returns the number of answers by status, and all bytes.
sub burst {
    my ($port, $from, $count) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, LocalAddr => $from) or die "connect: $@\n";
    my $answers = '';
    my $pid     = fork // die "fork: $!\n";

    if (!$pid) {
        print {$socket} "POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{" x $count;
        print {$socket} "GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        $socket->flush;
        POSIX::_exit(0);
    }
    while (sysread $socket, $answers, 65536, length $answers) { }
    waitpid $pid, 0;
    my %count;
    $count{$_}++ for $answers =~ m{HTTP/1\.1 (\d+)}g;
    return (\%count, $answers);
}

my $other = 10;

sub too_fast {
    my ($what, $port, $free) = @_;
    my ($count, $answers) = burst($port, '127.0.0.' . $other++, 400);
    cmp_ok($count->{429} // 0, '>', 100, "$what: requests above 50 a second, after a burst of 50, are refused") or diag(explain($count));
    cmp_ok($count->{400} // 0, '>=', 50, "$what: requests below the rate are not refused by the limit");
    like($answers, qr/429 Too Many.*?^Retry-After: 1\r$/ms, "$what: a refusal by the rate has Retry-After: 1");
    is((burst($port, $free, 400))[0]{429}, undef, "$what: the rate of $free is not limited");
    return;
}

sub too_many {
    my ($what, $port) = @_;
    my @waiting = map {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, LocalAddr => '127.0.0.2') or die "connect: $@\n";
        syswrite $socket, "POST /post HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n";
        $socket;
    } 1 .. 257;
    my $refused = '';
    ok((poll_until {
        for my $socket (@waiting) {
            $socket->blocking(0);
            $refused .= $_ if sysread $socket, $_, 4096;
        }
        return $refused =~ /429/;
    } 8), "$what: a request is refused while 256 of its address are in progress");
    is(scalar(() = $refused =~ m{HTTP/1\.1 }g), 1, "$what: no other request is refused");
    return;
}

# Opens streams from an address of this machine until it is refused one, at most 300.
sub streams {
    my ($port, $from) = @_;
    my @open;
    my $answer = '';

    while ($answer !~ /^HTTP\S+ 429/ && @open < 300) {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, LocalAddr => $from) or die "connect: $@\n";
        syswrite $socket, "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
        sysread $socket, $answer, 4096;
        push @open, $socket;
    }
    return (scalar @open, $answer);
}

sub too_many_streams {
    my ($what, $port, $free) = @_;
    my ($opened, $answer) = streams($port, '127.0.0.5');
    is($opened, 129, "$what: an address may have 128 streams");
    like($answer, qr/ 429 Too Many.*?^Retry-After: 1\r$/ms, "$what: another stream is refused with Retry-After: 1");
    is((streams($port, $free))[0], 300, "$what: the streams of $free are not limited");
    return;
}

# The live page, with what it uses, is on loopback, and not for clients.
sub has_page {
    my ($what, $url, $monitor, @curl) = @_;
    like((ask("$monitor/"))[1], qr/<script type="module" src="page\.js">/, "$what: the live page is on loopback");
    is((ask('-d', '1', "$monitor/post"))[0], 202, "$what: the page may post");
    is((ask("$monitor/$_"))[0], 200, "$what: the page may read /$_") for 'get', 'stream?wait=0&newest=1';
    is((ask(@curl, "$url/$_"))[0], 404, "$what: clients do not get /$_") for '', 'page.js';
    return;
}

# ---- make run

my $tree = "$dir/tree";
my $port = free_port();
my %env  = (PORT => $port, MONITOR => free_port(), LISTEN => '127.0.0.1', NAMES => 'queue.example.org', PGVERSION => pg_version(),
    map { $_ => undef } grep { /^(?:PG(?!VERSION)|DB_)/ } keys %ENV);

run([ 'mkdir', '-p', "$tree/build" ]);
run([ 'cp', '-r', "$top/provision", "$top/sql", $tree ]);
symlink realpath(build_dir() . "/$_"), "$tree/build/$_" for 'pg' . pg_version(), 'nginx';

sub provision {
    my ($status, $out, $err) = run([ "$tree/provision/dev/run", @_ ], env => \%env);
    return $status ? "$out$err" : 'success';
}

END { provision('stop') if $tree }

for my $name (qw(PORT MONITOR)) {
    my $other = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $env{$name}, Listen => 5, ReuseAddr => 1) or die "listen: $!\n";
    like(provision('start'), qr/port $env{$name}\b.* is in use: make run $name=/, "make run fails if another program has the port of $name");
    ok(!-e "$tree/run", "make run starts no server if another program has the port of $name");
}

is(provision('start'), 'success', 'make run succeeds');
my $of_role = 'select rolconnlimit, current_setting($$max_connections$$)::int - rolconnlimit from pg_roles where rolname = $$ngx_pgq_web$$';
my $need    = 10 * (run([ 'getconf', '_NPROCESSORS_ONLN' ]))[1] + 2;
is((run([ "$tree/provision/dev/with-database", 'psql', '-XAtqc', $of_role ], env => \%env))[1], "$need|100\n", 'run: the connection limit of nginx\'s role leaves 100 connections to others');
run([ 'cp', "$top/Makefile", $tree ]);
my %other = (%env, map { $_ => undef } qw(PORT LISTEN));
like((run([ 'make', '-C', $tree, '-n', 'curl-msgs' ], env => \%other))[1], qr{ http://127\.0\.0\.1:$port/get}, 'run: make uses the port of the running server');
like((run([ 'make', '-C', $tree, '-n', 'curl-msgs', 'PORT=9' ], env => \%other))[1], qr{ http://127\.0\.0\.1:9/get}, 'run: make uses another port if PORT is given');
my $errors = 'select count(*) from ngx_pgq.status where last_error is not null';
is((run([ "$tree/provision/dev/with-database", 'psql', '-XAtqc', $errors ], env => \%env))[1], "0\n", 'run: a new cluster has no error in ngx_pgq.status');
refuses('run', "http://127.0.0.1:$port", "http://127.0.0.1:$env{MONITOR}", 1_048_575);
is((ask('-H', "Host: $_", "http://127.0.0.1:$port/get"))[0], 200, "run: a request for $_ is accepted") for qw(localhost 127.0.0.1 queue.example.org 192.0.2.1 [::1]);
is((ask('-H', "Host: $_", "http://127.0.0.1:$port/get"))[0], 421, "run: a request for $_ is refused") for qw(192.0.2.1.example.net 127.0.0.1x example.org);
too_many('run', $port);
too_many_streams('run', $port, '127.0.0.1');
has_page('run', "http://127.0.0.1:$port", "http://127.0.0.1:$env{MONITOR}");
my @page = ('-d', '1', "http://127.0.0.1:$port/post", '-H');
is((ask(@page, 'Origin: https://app.example.com'))[0], 403, 'run: a page of another origin may not post');
@env{qw(RATE ORIGINS)} = (50, 'https://app.example.com https://*.example.org');
is(provision('start'), 'success', 'make run succeeds with RATE and ORIGINS');
is((ask(@page, "Origin: https://$_"))[0], 202, "run: a page of $_ may post if ORIGINS names it") for qw(app.example.com www.example.org);
is((ask(@page, 'Origin: https://app.example.com.evil.net'))[0], 403, 'run: a page whose origin only begins like a named one may not post');
too_fast('run', $port, '127.0.0.1');

# ---- a cluster's web host

my @peers = (qw(database:pg1:192.0.2.11 web:web1:192.0.2.21));
my $pg    = Pgq::Postgres->new->start;

mkdir "$dir/repository";    # packages are not installed below NGX_PGQ_ROOT
run([ "$top/provision/cluster/secrets", "$dir/secrets", @peers ], env => { NGX_PGQ_NAMES => 'queue.example.org' });
run([ "$top/provision/cluster/kit", "$dir/kit", 'web1', "$dir/repository", "$dir/secrets" ]);

my $temp  = join '', map { "${_}_temp_path %%PREFIX%%/temp/$_;" } qw(proxy fastcgi uwsgi scgi);
my $nginx = Pgq::Nginx->new(pg => $pg, config => '%%HEAD%% http { }');
my ($inner, $plain, $network) = map { free_port() } 1 .. 3;

# The http block of a web host's configuration, with ports of this machine.
sub host {
    my (%settings) = @_;
    run([ "$dir/kit/provision/host/setup", 'web1', '192.0.2.21', 'web', @peers ], env => { NGX_PGQ_ROOT => "$dir/web1", %settings });
    my ($text) = slurp("$dir/web1/etc/nginx/nginx.conf") =~ /^(http \{.*)/ms;
    my %change = (
        'pgq_pool main "[^"]*"'         => 'pgq_pool main "' . $pg->conninfo(user => 'ngx_pgq_web') . '"',
        '(?<=listen)( +)443'            => ' 127.0.0.1:' . $nginx->port,
        '(?<=listen)( +)80\b'           => " 127.0.0.1:$plain",
        '192\.0\.2\.21:9180'            => "127.0.0.1:$network",
        '127\.0\.0\.1:9180'             => "127.0.0.1:$inner",
        '/etc/ngx_pgq/'                 => "$dir/web1/etc/ngx_pgq/",
        '/var/log/nginx'                => '%%PREFIX%%',
        '^http \{'                      => "http {\nclient_body_temp_path %%PREFIX%%/temp/body; $temp",
        # nginx before 1.25.1
        (run([ 'nginx', '-v' ]))[2] =~ m{/1\.(\d+)} && $1 < 25 ? ('http2 +on;' => '', '(127\.0\.0\.1:' . $nginx->port . ' ssl)' => '127.0.0.1:' . $nginx->port . ' ssl http2') : (),
    );
    for my $pattern (sort { ($a =~ /ssl/) <=> ($b =~ /ssl/) } keys %change) {
        $text =~ s/$pattern/$change{$pattern}/mg;
    }
    $nginx->configure(config => "%%HEAD%%\n$text");
    return;
}

host(NGX_PGQ_HTTP => 'on', NGX_PGQ_UNLIMITED => '127.0.0.3');
$nginx->start;
my $url = 'https://localhost:' . $nginx->port;
refuses('host', $url, "http://127.0.0.1:$inner", 1_048_575);
is((ask("http://127.0.0.1:$plain/get"))[0], 200, 'host: with NGX_PGQ_HTTP nginx accepts plain HTTP');
is((ask("http://127.0.0.1:" . $nginx->port . '/get'))[0], 400, 'host: the port with TLS refuses plain HTTP');

my @verified = ('curl', '-s', '-o', '/dev/null', '--cacert', "$dir/secrets/ca.crt", '-w', '%{http_code} %{http_version}');
is((run([ @verified, "https://$_:" . $nginx->port . '/get' ]))[1], '200 2', "host: the certificate is valid for $_") for qw(localhost 127.0.0.1);
is((run([ @verified, '--resolve', "$_:" . $nginx->port . ':127.0.0.1', "https://$_:" . $nginx->port . '/get' ]))[1], '200 2', "host: the certificate is valid for the name $_")
    for qw(web1 queue.example.org);
is((run([ 'curl', '-s', '-o', '/dev/null', "$url/get" ]))[0], 60, 'host: a client without the CA of the installation does not trust the certificate');
is((run([ @verified, '--tlsv1.1', '--tls-max', '1.1', '--ciphers', 'DEFAULT:@SECLEVEL=0', "$url/get" ]))[0], 35, 'host: TLS 1.1 is refused');

too_many('host', $plain);
too_many_streams('host', $plain, '127.0.0.3');
has_page('host', $url, "http://127.0.0.1:$inner");
is((ask("http://127.0.0.1:$network/$_"))[0], $_ =~ /^(?:metrics|status)$/ ? 200 : 404, "host: /$_ on the network for monitoring") for '', qw(metrics status get stream post);
host(NGX_PGQ_RATE => 50, NGX_PGQ_ORIGINS => 'https://app.example.com');
$nginx->reload;
is((ask('-d', '1', '-H', 'Origin: https://app.example.com', "$url/post"))[0], 202, 'host: a page of an origin in NGX_PGQ_ORIGINS may post');
too_fast('host', $plain, $_) for qw(127.0.0.1 127.0.0.3);

# ---- the example

my $watch   = free_port();
my $example = Pgq::Nginx->new(pg => $pg, name => 'example', config => '%%HEAD%% http { }');
my ($text)  = slurp("$examples/nginx.conf") =~ /^(http \{.*)/ms;
$text =~ s{include (\S+);}{include $examples/$1;}g;
$text =~ s/listen( +)443/listen 127.0.0.1:@{[ $example->port ]}/g;
$text =~ s/127\.0\.0\.1:9180/127.0.0.1:$watch/g;
$text =~ s/pgq_pool main "[^"]*"/'pgq_pool main "' . $pg->conninfo(user => 'ngx_pgq_web') . '"'/e;
$text =~ s/^http \{/http {\naccess_log off; client_body_temp_path %%PREFIX%%\/temp\/body; $temp/;
run([ 'openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', 2, '-subj', '/CN=queue.example.org',
    '-keyout', $example->dir . '/certificate.key', '-out', $example->dir . '/certificate.pem' ]);
$example->configure(config => "%%HEAD%%\n$text")->start;
my @name = ('--resolve', 'queue.example.org:' . $example->port . ':127.0.0.1');
refuses('example', 'https://queue.example.org:' . $example->port, "http://127.0.0.1:$watch", 65_535, @name);

my (undef, $many) = run([ 'curl', '-s', '-k', '--parallel', '--parallel-max', 50, @name, '-d', '{', '-o', '/dev/null', '-w', "%{http_code}\n",
    'https://queue.example.org:' . $example->port . '/post?[1-600]' ]);
cmp_ok(scalar(() = $many =~ /^429$/mg), '>', 50, 'example: requests above 100 a second are refused') or diag($many);
is((ask(@name, '-H', 'Host: 127.0.0.1', 'https://queue.example.org:' . $example->port . '/get'))[0], 421, 'example: a request for an address is refused');

silent();

done_testing;
