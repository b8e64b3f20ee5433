# TLS to the database: verified certificates, SCRAM with channel binding, client certificates. Each error is logged once for
# each lane, and a handshake that stalls does not block nginx.

use Pgq;
use Pgq::Wire;
use Time::HiRes qw(time);

my $dir = Pgq::Host::temp_dir('certificates');
my $pg  = Pgq::Postgres->new->start;

sub openssl {
    my ($status, $out, $err) = Pgq::Host::run([ 'openssl', @_ ]);

    die "openssl @_: $out$err" if $status;
}

sub authority {
    my ($name) = @_;

    openssl(qw(req -x509 -newkey rsa:2048 -nodes -days 2), '-keyout', "$dir/$name.key", '-out', "$dir/$name.crt",
        '-subj', "/CN=$name", '-addext', 'basicConstraints=critical,CA:TRUE');
}

# Makes a certificate, signed by that authority, for a server's name or a client's role.
sub certificate {
    my ($authority, $name) = @_;

    Pgq::Host::spew("$dir/$name.ext", "subjectAltName=DNS:$name\n");
    openssl(qw(req -newkey rsa:2048 -nodes), '-keyout', "$dir/$name.key", '-out', "$dir/$name.csr", '-subj', "/CN=$name");
    openssl(qw(x509 -req -days 2 -CAcreateserial), '-in', "$dir/$name.csr", '-out', "$dir/$name.crt",
        '-CA', "$dir/$authority.crt", '-CAkey', "$dir/$authority.key", '-extfile', "$dir/$name.ext");
}

authority('trusted');
authority('other');
certificate('trusted', 'db.test');
certificate('trusted', 'ngx_pgq_web');

for my $file ("$pg->{data}/server.key", "$pg->{data}/server.crt", "$pg->{data}/root.crt") {
    my %from = (key => 'db.test.key', crt => 'db.test.crt');
    my ($kind) = $file =~ /(\w+)$/;
    Pgq::Host::spew($file, Pgq::Host::slurp($file =~ /root/ ? "$dir/trusted.crt" : "$dir/$from{$kind}"));
    $pg->own($file, 0600);
}

# The worker owns one key, and cannot read the other one.
Pgq::Host::spew("$dir/wrong.key", Pgq::Host::slurp("$dir/other.key"));
chmod 0600, "$dir/ngx_pgq_web.key", "$dir/wrong.key";
chown +(getpwnam Pgq::Host::worker_user())[2, 3], "$dir/ngx_pgq_web.key", "$dir/wrong.key" if Pgq::Host::is_root();
mkdir "$dir/secret", 0755;
rename "$dir/other.key", "$dir/secret/other.key";
chmod 0000, "$dir/secret/other.key";

my $hba        = Pgq::Host::slurp("$pg->{data}/pg_hba.conf");
my $password   = $pg->set_password('ngx_pgq_web');
my $verified   = "sslmode=verify-full sslrootcert=$dir/trusted.crt";
my $client_key = "sslcert=$dir/ngx_pgq_web.crt sslkey=$dir/ngx_pgq_web.key";
my $scram      = "password=$password channel_binding=require";

sub hba {
    my ($line) = @_;

    Pgq::Host::spew("$pg->{data}/pg_hba.conf", $line, $hba);
}

$pg->append_conf("ssl = on\nssl_ca_file = 'root.crt'");
hba("hostnossl all ngx_pgq_web 127.0.0.1/32 reject\n");
$pg->restart;

sub nginx {
    my ($settings, %option) = @_;
    my ($host, $port) = ($option{host} // 'db.test', $option{port} // $pg->port);

    return Pgq::Nginx->new(
        conninfo => "host=$host hostaddr=127.0.0.1 port=$port dbname=posts user=ngx_pgq_web $settings",
        pool     => 'lanes=2 connect_timeout=' . ($option{connect_timeout} // '5s'),
        timeout  => $option{timeout} // '20s',
        locations => 'client_max_body_size 8m;',
        env       => $option{env},
    )->start;
}

subtest 'a verified server with channel binding is used' => sub {
    my $nginx  = nginx("$verified $scram");
    my $client = Pgq::Client->new($nginx);

    is($client->post('/post', '"bound"')->status, 202, 'a message is accepted over TLS');
    is($pg->safe_psql(q{select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'ngx_pgq_web'}),
        't', 'the connections use TLS');

    my $large = '"' . 'x' x 3e6 . '"';
    is($client->post('/post', $large, Prefer => 'return=minimal')->status, 202, 'a message of 3 MB is accepted over TLS');
    ok($pg->poll_query_until('select count(*) from posts', 2), 'both messages are posts');
    cmp_ok(length $client->get('/get')->body, '>', 3e6, 'an answer of 3 MB is received over TLS');

    for my $mode (qw(fast immediate)) {
        my $position = $nginx->log_position;
        $pg->restart($mode);
        is($client->post('/post', "\"$mode\"")->status, 202, "a message is accepted after a restart ($mode)");
        ok($nginx->wait_for_log(qr/pgq lane: connected to db\.test/, $position), "a lane connects again after a restart ($mode)");
    }

    $nginx->stop;
};

subtest 'TLS settings of the environment are used' => sub {
    my $nginx = nginx($scram, env => { PGSSLMODE => 'verify-full', PGSSLROOTCERT => "$dir/trusted.crt" });

    is(Pgq::Client->new($nginx)->post('/post', '"environment"')->status, 202, 'a message is accepted with the settings of the environment');
    $nginx->stop;
};

subtest 'a client certificate is used' => sub {
    hba("hostssl all ngx_pgq_web 127.0.0.1/32 cert\n");
    $pg->reload;

    my $nginx = nginx("$verified $client_key");
    is(Pgq::Client->new($nginx)->post('/post', '"certified"')->status, 202, 'a message is accepted with a client certificate');
    is($pg->safe_psql(q{select distinct client_dn from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'ngx_pgq_web'}),
        '/CN=ngx_pgq_web', 'the server has received the client certificate');
    $nginx->stop;
};

my @refused = (
    [ 'no client certificate' => $verified, 'db.test', qr/requires a valid client certificate/ ],
    [ 'a certificate of another authority' => "sslmode=verify-full sslrootcert=$dir/other.crt $client_key", 'db.test', qr/certificate verify failed/ ],
    [ 'a certificate for another host name' => "$verified $client_key", 'other.test', qr/server certificate for "db\.test".* does not match host name "other\.test"/ ],
    [ 'a missing root certificate' => "sslmode=verify-full sslrootcert=$dir/nowhere.crt $client_key", 'db.test',
        qr/root certificate file "\S+nowhere\.crt" does not exist/ ],
    # The module checks this itself: the error text of libpq 15 has uninitialized memory.
    [ 'an unreadable key' => "$verified sslcert=$dir/ngx_pgq_web.crt sslkey=$dir/secret/other.key", 'db.test',
        qr/sslkey is not readable: Permission denied \(file, / ],
    [ 'a certificate that is a directory' => "$verified sslcert=$dir sslkey=$dir/ngx_pgq_web.key", 'db.test',
        qr/sslcert is not readable: Is a directory \(file, / ],
    [ 'a key of another certificate' => "$verified sslcert=$dir/ngx_pgq_web.crt sslkey=$dir/wrong.key", 'db.test',
        qr/private key file "\S+wrong\.key".*: key values mismatch/ ],
);

for my $case (@refused) {
    my ($name, $settings, $host, $line) = @$case;

    subtest "a message is refused: $name" => sub {
        my $nginx = nginx($settings, host => $host, timeout => '1s');
        my $client = Pgq::Client->new($nginx);
        my $start  = time;

        $client->send_post('/post', '"refused"');
        not_blocked($nginx, $name);
        is($client->answer->status, 503, 'a message is answered with 503');
        cmp_ok(time - $start, '<', timeout(2), 'a message is answered after its timeout');
        like($nginx->log_since(0), qr/\[error\].* pgq lane: could not connect to \Q$host\E:\d+, retry in \d+ ms: .*$line/, 'the log has the error');
        is(scalar(() = $nginx->log_since(0) =~ /pgq lane: (?:lost|could not connect to)/g), 2, 'the error is logged once for each lane');
        $nginx->stop;
    };
}

hba("hostnossl all ngx_pgq_web 127.0.0.1/32 reject\n");
$pg->reload;

subtest 'a handshake that stalls does not block nginx' => sub {
    my $wire = Pgq::Wire->new($pg, tls => 1)->start;
    my $nginx = nginx("$verified $scram", port => $wire->port, connect_timeout => '1s');
    my $client = Pgq::Client->new($nginx);

    is($client->post('/post', '"through"')->status, 202, 'a message is accepted through the proxy');

    # The messages are the server's reply to SSLRequest, ClientHello, the server's certificate, the client's key, …
    for my $nth (1 .. 6) {
        $wire->plan({ in => 'connect', before => 'Bytes', nth => $nth, do => 'hold' });
        $wire->cut;
        ok((poll_until { $wire->happened }), "message $nth of the handshake is held");
        not_blocked($nginx, "message $nth");

        # The next attempt starts after the connect timeout.
        is($client->post('/post', "\"$nth\"")->status, 202, "message $nth of the handshake: a message waits and is accepted");
    }

    like($nginx->log_since(0), qr/pgq lane: could not connect to db\.test:\d+, retry in \d+ ms: no answer in time/, 'the timeout of the handshake is logged');

    $nginx->stop;
    $wire->stop;
};

subtest 'a server without TLS is refused' => sub {
    $pg->append_conf('ssl = off');
    $pg->restart;

    my $nginx = nginx("$verified $scram", timeout => '1s');
    is(Pgq::Client->new($nginx)->post('/post', '"in the clear"')->status, 503, 'a message is answered with 503');
    like($nginx->log_since(0), qr/pgq lane: could not connect to .*server does not support SSL/, 'the log has the error');
    unlike($nginx->log_since(0), qr/\Q$password\E/, 'the log does not contain the password');
    $nginx->stop;
};

is($pg->safe_psql(q{select count(*) from posts where data::text in ('"refused"', '"in the clear"')}), 0, 'no refused message is a post');

done_testing;
