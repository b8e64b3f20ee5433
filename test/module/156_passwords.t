# A password goes to verified servers alone, unless verify=off, and is used for SCRAM alone where libpq can insist on it.

use Pgq;

sub configured {
    my ($conninfo, %option) = @_;

    return Pgq::Nginx->new(pools => "pgq_pool main \"$conninfo\" " . ($option{pool} // '') . ';', env => $option{env})->test;
}

my $dir  = Pgq::Host::temp_dir('passwords');
my $file = "$dir/passfile";
my $root = "$dir/root.crt";

Pgq::Host::spew($file, "192.0.2.2:*:*:*:hush\n");
Pgq::Host::spew($root, '');
chmod 0600, $file;

my $refused = qr/pgq_pool "main" has a password for host "\S+", whose certificate is not verified: set "sslmode=verify-full", or "verify=off"/;

for my $case (
    [ 'no sslmode'                       => 'host=192.0.2.1 password=hush' ],
    [ 'sslmode=disable'                  => 'host=192.0.2.1 password=hush sslmode=disable' ],
    [ 'sslmode=require'                  => 'host=192.0.2.1 password=hush sslmode=require' ],
    [ 'sslmode=verify-ca'                => "host=192.0.2.1 password=hush sslmode=verify-ca sslrootcert=$root" ],
    [ 'a URI'                            => 'postgresql://ngx_pgq_web:hush@192.0.2.1/posts?sslmode=require' ],
    [ 'an IPv6 address'                  => 'host=2001:db8::1 password=hush' ],
    [ 'a name with a remote address'     => 'host=localhost hostaddr=192.0.2.1 password=hush' ],
    [ 'the second of two hosts'          => 'host=127.0.0.1,192.0.2.1 password=hush' ],
    [ 'a host of a password file'        => "host=192.0.2.1,192.0.2.2 passfile=$file" ],
    [ 'a name that only begins like one of this machine' => 'host=localhost.example.org password=hush' ],
    [ 'a password of the environment'    => 'host=192.0.2.1', env => { PGPASSWORD => 'hush' } ],
    [ 'sslmode of the environment'       => 'host=192.0.2.1 password=hush', env => { PGSSLMODE => 'require' } ],
) {
    my ($name, $conninfo, %option) = @$case;
    my ($status, $text) = configured($conninfo, %option);

    isnt($status, 0, "$name: nginx does not start");
    like($text, $refused, "$name: the message says what to set");
    unlike($text, qr/hush/, "$name: the password is not shown");

    ($status, $text) = configured($conninfo, %option, pool => 'verify=off');
    unlike($text, $refused, "$name: verify=off allows it");
}

for my $case (
    [ 'sslmode=verify-full'              => "host=192.0.2.1 password=hush sslmode=verify-full sslrootcert=$root" ],
    [ 'verify-full of the environment'   => 'host=192.0.2.1 password=hush', env => { PGSSLMODE => 'verify-full', PGSSLROOTCERT => $root } ],
    [ 'no password'                      => 'host=192.0.2.1 sslmode=require' ],
    [ 'a password for another host'      => "host=192.0.2.1 passfile=$file" ],
    [ 'a Unix socket'                    => 'host=/tmp password=hush' ],
    [ 'an abstract Unix socket'          => 'host=@pgq password=hush' ],
    [ 'no host, which is a Unix socket'  => 'password=hush' ],
    [ 'IPv4 loopback'                    => 'host=127.0.0.1 password=hush' ],
    [ 'another address of IPv4 loopback' => 'host=127.1.2.3 password=hush' ],
    [ 'IPv6 loopback'                    => 'host=::1 password=hush' ],
    [ 'localhost'                        => 'host=LocalHost password=hush' ],
    [ 'a name with a loopback address'   => 'host=db.test hostaddr=127.0.0.1 password=hush' ],
) {
    my ($name, $conninfo, %option) = @$case;
    my ($status, $text) = configured($conninfo, %option);

    is($status, 0, "$name: nginx starts") or diag($text);
}

like((configured('host=/tmp', pool => "verify=$_"))[1], qr/invalid parameter "verify=$_"/, "verify=$_ is no value") for qw(yes of offf);

# ---- how the password is used

my $pg       = Pgq::Postgres->new->start;
my $password = $pg->set_password('ngx_pgq_web');
my $hba      = Pgq::Host::slurp("$pg->{data}/pg_hba.conf");
my $place    = $pg->conninfo(user => 'ngx_pgq_web', tcp => 1, password => $password);
my $insists  = (Pgq::Host::run([ Pgq::Host::pg_bin() . '/psql', '-d', 'host=/dev/null require_auth=none', '-c', '' ]))[2] !~ /invalid connection option/;

sub asked {
    my ($method) = @_;

    Pgq::Host::spew("$pg->{data}/pg_hba.conf", "host all ngx_pgq_web 127.0.0.1/32 $method\n", $hba);
    $pg->reload;
    ok($pg->poll_query_until("select auth_method from pg_hba_file_rules order by line_number limit 1", $method), "the server asks by $method");
}

sub answers {
    my ($name, $status, $conninfo, $line) = @_;
    my $nginx = Pgq::Nginx->new(conninfo => $conninfo, pool => 'lanes=1', timeout => $status == 202 ? '20s' : '1s')->start;

    is(Pgq::Client->new($nginx)->post('/post', '1')->status, $status, $name);
    like($nginx->log_since(0), qr/\[error\].* pgq lane: could not connect to .*$line/, "$name: the log says why") if $line;
    unlike($nginx->log_since(0), qr/\Q$password\E/, "$name: the password is not shown");
    $nginx->stop;
}

answers('SCRAM is accepted', 202, $place);

SKIP: {
    skip 'libpq is older than 16: no require_auth', 1 if !$insists;

    asked('password');
    answers('a server that asks for the password in clear is refused', 503, $place, qr/server requested a cleartext password/);
    answers('unless require_auth allows it', 202, "$place require_auth=password");

    asked('trust');
    answers('a server that asks for no proof of the password is refused', 503, $place, qr/server did not complete authentication/);
    answers('unless require_auth says so', 202, "$place require_auth=none");
    answers('or there is no password', 202, $pg->conninfo(user => 'ngx_pgq_web', tcp => 1));

    $pg->safe_psql("set password_encryption = md5; alter role ngx_pgq_web password '$password'");
    asked('md5');
    answers('a server that asks for MD5 is refused', 503, $place, qr/server requested a hashed password/);
    answers('unless require_auth is md5', 202, "$place require_auth=md5");
}

done_testing;
