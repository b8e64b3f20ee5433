# The example of TLS: HTTP/2 and HTTP/1.1 over TLS 1.2 and 1.3, no older version; messages of all sizes, many streams of a
# connection, and a reload.

use Pgq;

my $examples = Pgq::Host::top() . '/ngx_pgq_module/examples';
my ($listen) = Pgq::Host::slurp("$examples/tls.conf") =~ /^#   listen 443 (ssl http2);$/m or die "tls.conf has no listen\n";
my $pg       = Pgq::Postgres->new->start;
my $nginx    = Pgq::Nginx->new(
    pg        => $pg,
    workers   => 2,
    listen    => $listen,
    http      => "include $examples/http.conf;",
    endpoints => "include $examples/problem.conf; include $examples/tls.conf;"
        . ' location = /post { pgq_post main; client_max_body_size 2m; } location = /get { pgq_get main; }',
);
my $dir = $nginx->dir;
my $url = 'https://localhost:' . $nginx->port;

my ($failed, undef, $error) = Pgq::Host::run([
    'openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', 2,
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', "$dir/certificate.key", '-out', "$dir/certificate.pem",
]);
is($failed, 0, 'the certificate is created') or diag($error);
$nginx->start;

# Returns status and HTTP version, the answer, and curl's exit status with its error; in scalar context only the first.
sub curl {
    my ($path, @options) = @_;
    my ($status, $out, $err) = Pgq::Host::run([
        'curl', '-s', '-S', '-i', '--cacert', "$dir/certificate.pem", '--max-time', timeout(30), '-w', "\n%{http_code} %{http_version}",
        @options, "$url$path",
    ]);
    my ($code) = $out =~ s/\n(\d{3} [\d.]+)\z// ? $1 : '';

    return wantarray ? ("$code", $out, "$status $err") : $code;
}

my @json = ('-H', 'Content-Type: application/json', '-d');

for my $version (qw(http2 http1.1)) {
    my ($number) = $version =~ /http(.*)/;
    my ($code, $out, $err) = curl('/post', "--$version", @json, qq({"by": "$version"}));
    is($code, "202 $number", "a message is accepted over HTTP/$number") or diag($err);
    like($out, qr/^strict-transport-security: max-age=31536000\r$/mi, "the answer over HTTP/$number has Strict-Transport-Security");
    is(scalar curl('/get', "--$version"), "200 $number", "a GET is answered over HTTP/$number");

    ($code, $out) = curl('/post', "--$version", @json, '{"not');
    is($code, "400 $number", "an invalid message is refused over HTTP/$number");
    like($out, qr{^content-type: application/problem\+json\r$}mi, "the refusal over HTTP/$number is a problem document");

    ($code, $out) = curl('/nowhere', "--$version");
    is($code, "404 $number", "an unknown path is answered with 404 over HTTP/$number");
    like($out, qr{^content-type: application/problem\+json\r$}mi, "the answer to an unknown path over HTTP/$number is a problem document");

    for my $size (100_000, 1_500_000) {
        my $file = Pgq::Host::spew("$dir/body", '"' . 'b' x $size . '"');
        is(scalar curl('/post', "--$version", @json, "\@$file"), "202 $number", "a message of $size bytes is accepted over HTTP/$number");
    }
    my $file = Pgq::Host::spew("$dir/body", '"' . 'b' x 2_500_000 . '"');
    ($code) = curl('/post', "--$version", @json, "\@$file");
    is($code, "413 $number", "a message of 2.5 MB is refused over HTTP/$number");
    is((curl('/post', "--$version", '-H', 'Transfer-Encoding: chunked', @json, '"chunks"'))[0], "202 $number", "a chunked message is accepted over HTTP/$number");
}

is(scalar curl('/get', '--tlsv1.2', '--tls-max', '1.2'), '200 2', 'TLS 1.2 is accepted');
is(scalar curl('/get', '--tlsv1.3'), '200 2', 'TLS 1.3 is accepted');
my (undef, undef, $err) = curl('/get', '--tlsv1.1', '--tls-max', '1.1', '--ciphers', 'DEFAULT:@SECLEVEL=0');
like($err, qr/^35 /, 'TLS 1.1 is refused');

my $plain = Pgq::Client->new($nginx)->get('/get');
is($plain->status, 400, 'a request without TLS is refused');

# ---- many streams of one connection
my $count = 200;
Pgq::Host::spew("$dir/many", map { qq(next\nurl = "$url/post"\nhttp2\ncacert = "$dir/certificate.pem"\nheader = "Content-Type: application/json"\n)
    . qq(data = "{\\"many\\": $_}"\noutput = "$dir/answers"\nwrite-out = "%{http_code} %{num_connects}\\n"\n) } 1 .. $count);
my ($status, $out, $errors) = Pgq::Host::run([ 'curl', '-s', '-S', '--parallel', '--parallel-max', 100, '-K', "$dir/many" ]);
is($status, 0, 'curl sends 200 messages over HTTP/2') or diag($errors);
is(scalar(() = $out =~ /^202 /mg), $count, 'each of 200 messages is accepted');
cmp_ok(scalar(() = $out =~ /^202 1$/mg), '<', $count / 4, '200 messages are sent over few connections');
ok($pg->poll_query_until(q[select count(*) from posts where data::text like '{"many%'], $count), 'each of 200 messages is a post');
is($pg->safe_psql('select count(*) - count(distinct message_id) from posts'), 0, 'no message is a post twice');

# ---- streams that wait during a reload
my $lock = $pg->lock_table;
my $pid = Pgq::Host::spawn([ 'curl', '-s', '-S', '--parallel', '--parallel-max', 100, '-K', "$dir/many" ], out => "$dir/streams");
ok($pg->wait_for_lock, 'streams wait for a lock');
$nginx->reload;
$lock->release;
is(Pgq::Host::ended($pid, 60), 0, 'curl sends 200 messages during a reload');
is(scalar(() = Pgq::Host::slurp("$dir/streams") =~ /^202 /mg), $count, 'each message that was sent during a reload is accepted');
ok($pg->poll_query_until(q[select count(*) from posts where data::text like '{"many%'], 2 * $count), 'each message that was sent during a reload is a post');
ok((poll_until { 2 == $nginx->worker_pids } 10), 'the old workers exit after the streams');

done_testing;
