# TLS with certificates that are verified, SCRAM bound to it, certificates of clients: they work, what is wrong is
# refused with one line of the log, and a handshake that stands still keeps nobody waiting.

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

# A certificate of that authority, for a server's name or a client's role.
sub certificate {
    my ($authority, $name) = @_;

    Pgq::Host::spew("$dir/$name.ext", "subjectAltName=DNS:$name\n");
    openssl(qw(req -newkey rsa:2048 -nodes), '-keyout', "$dir/$name.key", '-out', "$dir/$name.csr", '-subj', "/CN=$name");
    openssl(qw(x509 -req -days 2 -CAcreateserial), '-in', "$dir/$name.csr", '-out', "$dir/$name.crt",
        '-CA', "$dir/$authority.crt", '-CAkey', "$dir/$authority.key", '-extfile', "$dir/$name.ext");
}

authority('ours');
authority('theirs');
certificate('ours', 'db.test');
certificate('ours', 'ngx_pgq_web');

for my $file ("$pg->{data}/server.key", "$pg->{data}/server.crt", "$pg->{data}/root.crt") {
    my %from = (key => 'db.test.key', crt => 'db.test.crt');
    my ($kind) = $file =~ /(\w+)$/;
    Pgq::Host::spew($file, Pgq::Host::slurp($file =~ /root/ ? "$dir/ours.crt" : "$dir/$from{$kind}"));
    $pg->own($file, 0600);
}

# (the worker's own, and one that it may not read)
Pgq::Host::spew("$dir/other.key", Pgq::Host::slurp("$dir/theirs.key"));
chmod 0600, "$dir/ngx_pgq_web.key", "$dir/other.key";
chown +(getpwnam Pgq::Host::worker_user())[2, 3], "$dir/ngx_pgq_web.key", "$dir/other.key" if Pgq::Host::is_root();
mkdir "$dir/secret", 0755;
rename "$dir/theirs.key", "$dir/secret/theirs.key";
chmod 0000, "$dir/secret/theirs.key";

my $hba      = Pgq::Host::slurp("$pg->{data}/pg_hba.conf");
my $password = $pg->set_password('ngx_pgq_web');
my $trust    = "sslmode=verify-full sslrootcert=$dir/ours.crt";
my $mine     = "sslcert=$dir/ngx_pgq_web.crt sslkey=$dir/ngx_pgq_web.key";
my $bound    = "password=$password channel_binding=require";

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

sub serves {
    my ($nginx, $name) = @_;
    my $start = time;

    is(Pgq::Client->new($nginx)->get('/nowhere')->status, 404, "$name: nginx goes on");
    cmp_ok(time - $start, '<', timeout(0.5), "$name: and waits for nothing");

    return;
}

subtest 'a server that is verified, SCRAM bound to it' => sub {
    my $nginx  = nginx("$trust $bound");
    my $client = Pgq::Client->new($nginx);

    is($client->post('/post', '"bound"')->status, 202, 'a message is accepted');
    is($pg->safe_psql(q{select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'ngx_pgq_web'}),
        't', 'over TLS');

    my $large = '"' . 'x' x 3e6 . '"';
    is($client->post('/post', $large, Prefer => 'return=minimal')->status, 202, 'a large one, too');
    ok($pg->poll_query_until('select count(*) from posts', 2), 'and is a post');
    cmp_ok(length $client->get('/get')->body, '>', 3e6, 'which comes back');

    for my $mode (qw(fast immediate)) {
        my $position = $nginx->log_position;
        $pg->restart($mode);
        is($client->post('/post', "\"$mode\"")->status, 202, "after a restart ($mode) it goes on");
        ok($nginx->wait_for_log(qr/pgq lane: connected to db\.test/, $position), 'on a new connection');
    }

    undef $client;
    $nginx->stop;
};

subtest 'settings of the environment' => sub {
    my $nginx = nginx($bound, env => { PGSSLMODE => 'verify-full', PGSSLROOTCERT => "$dir/ours.crt" });

    is(Pgq::Client->new($nginx)->post('/post', '"environment"')->status, 202, 'count as those of the conninfo');
    $nginx->stop;
};

subtest 'a certificate of the client' => sub {
    hba("hostssl all ngx_pgq_web 127.0.0.1/32 cert\n");
    $pg->reload;

    my $nginx = nginx("$trust $mine");
    is(Pgq::Client->new($nginx)->post('/post', '"certified"')->status, 202, 'a message is accepted');
    is($pg->safe_psql(q{select distinct client_dn from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'ngx_pgq_web'}),
        '/CN=ngx_pgq_web', 'from who it says');
    $nginx->stop;
};

my @refused = (
    [ 'no certificate of the client' => $trust, 'db.test', qr/requires a valid client certificate/ ],
    [ 'another authority' => "sslmode=verify-full sslrootcert=$dir/theirs.crt $mine", 'db.test', qr/certificate verify failed/ ],
    [ 'another name' => "$trust $mine", 'other.test', qr/server certificate for "db\.test".* does not match host name "other\.test"/ ],
    [ 'a root certificate that is not there' => "sslmode=verify-full sslrootcert=$dir/nowhere.crt $mine", 'db.test',
        qr/root certificate file "\S+nowhere\.crt" does not exist/ ],
    # (libpq 15 would show memory that it has not set)
    [ 'a key that the worker may not read' => "$trust sslcert=$dir/ngx_pgq_web.crt sslkey=$dir/secret/theirs.key", 'db.test',
        qr/sslkey is not readable: Permission denied \(file, / ],
    [ 'a certificate that is a directory' => "$trust sslcert=$dir sslkey=$dir/ngx_pgq_web.key", 'db.test',
        qr/sslcert is not readable: Is a directory \(file, / ],
    [ 'a key that belongs to another certificate' => "$trust sslcert=$dir/ngx_pgq_web.crt sslkey=$dir/other.key", 'db.test',
        qr/private key file "\S+other\.key".*: key values mismatch/ ],
);

for my $case (@refused) {
    my ($name, $settings, $host, $line) = @$case;

    subtest $name => sub {
        my $nginx = nginx($settings, host => $host, timeout => '1s');
        my $client = Pgq::Client->new($nginx);
        my $start  = time;

        $client->send($client->request('POST', '/post', body => '"refused"', headers => { 'Content-Type' => 'application/json' }));
        serves($nginx, $name);
        is($client->answer->status, 503, 'a message is refused');
        cmp_ok(time - $start, '<', timeout(2), 'in time');
        like($nginx->log_since(0), qr/\[error\].* pgq lane: could not connect to \Q$host\E:\d+, retry in \d+ ms: .*$line/, 'the log says why');
        is(scalar(() = $nginx->log_since(0) =~ /pgq lane: (?:lost|could not connect to)/g), 2, 'once for each lane');
        undef $client;
        $nginx->stop;
    };
}

hba("hostnossl all ngx_pgq_web 127.0.0.1/32 reject\n");
$pg->reload;

subtest 'a handshake that stands still' => sub {
    my $wire = Pgq::Wire->new($pg, tls => 1)->start;
    my $nginx = nginx("$trust $bound", port => $wire->port, connect_timeout => '1s');
    my $client = Pgq::Client->new($nginx);

    is($client->post('/post', '"through"')->status, 202, 'TLS goes through the proxy');

    # the server's yes, the client's hello, the server's certificate, the client's key, …
    for my $nth (1 .. 6) {
        $wire->plan({ in => 'connect', before => 'Bytes', nth => $nth, do => 'hold' });
        $wire->cut;
        ok((poll_until { $wire->happened }), "message $nth of the handshake is held");
        serves($nginx, "message $nth");

        # (another attempt is made when this one's time is over)
        is($client->post('/post', "\"$nth\"")->status, 202, 'a message waits, and is accepted');
    }

    like($nginx->log_since(0), qr/pgq lane: could not connect to db\.test:\d+, retry in \d+ ms: no answer in time/, 'the log says why');

    undef $client;
    $nginx->stop;
    $wire->stop;
};

subtest 'a server without TLS' => sub {
    $pg->append_conf('ssl = off');
    $pg->restart;

    my $nginx = nginx("$trust $bound", timeout => '1s');
    is(Pgq::Client->new($nginx)->post('/post', '"in the clear"')->status, 503, 'is not spoken to');
    like($nginx->log_since(0), qr/pgq lane: could not connect to .*server does not support SSL/, 'the log says why');
    unlike($nginx->log_since(0), qr/\Q$password\E/, 'and no password');
    $nginx->stop;
};

is($pg->safe_psql(q{select count(*) from posts where data::text in ('"refused"', '"in the clear"')}), 0, 'nothing that was refused is kept');

done_testing;
