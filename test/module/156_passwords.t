# A password is sent to verified servers only, unless verify=off, and by SCRAM only, if libpq can require that.

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
    [ 'a name that begins with localhost' => 'host=localhost.example.org password=hush' ],
    [ 'a password from the environment'  => 'host=192.0.2.1', env => { PGPASSWORD => 'hush' } ],
    [ 'sslmode from the environment'     => 'host=192.0.2.1 password=hush', env => { PGSSLMODE => 'require' } ],
) {
    my ($name, $conninfo, %option) = @$case;
    my ($status, $text) = configured($conninfo, %option);

    isnt($status, 0, "$name: nginx does not start");
    like($text, $refused, "$name: the error names the settings");
    unlike($text, qr/hush/, "$name: the error does not contain the password");

    ($status, $text) = configured($conninfo, %option, pool => 'verify=off');
    unlike($text, $refused, "$name: the password is allowed by verify=off");
}

for my $case (
    [ 'sslmode=verify-full'              => "host=192.0.2.1 password=hush sslmode=verify-full sslrootcert=$root" ],
    [ 'verify-full from the environment' => 'host=192.0.2.1 password=hush', env => { PGSSLMODE => 'verify-full', PGSSLROOTCERT => $root } ],
    [ 'no password'                      => 'host=192.0.2.1 sslmode=require' ],
    [ 'a password for another host'      => "host=192.0.2.1 passfile=$file" ],
    [ 'a Unix-domain socket'             => 'host=/tmp password=hush' ],
    [ 'an abstract Unix-domain socket'   => 'host=@pgq password=hush' ],
    [ 'no host, which is a Unix-domain socket' => 'password=hush' ],
    [ 'IPv4 loopback'                    => 'host=127.0.0.1 password=hush' ],
    [ 'another IPv4 loopback address' => 'host=127.1.2.3 password=hush' ],
    [ 'IPv6 loopback'                    => 'host=::1 password=hush' ],
    [ 'localhost'                        => 'host=LocalHost password=hush' ],
    [ 'a name with hostaddr=127.0.0.1'   => 'host=db.test hostaddr=127.0.0.1 password=hush' ],
) {
    my ($name, $conninfo, %option) = @$case;
    my ($status, $text) = configured($conninfo, %option);

    is($status, 0, "$name: nginx starts") or diag($text);
}

like((configured('host=/tmp', pool => "verify=$_"))[1], qr/invalid parameter "verify=$_"/, "verify=$_ is rejected") for qw(yes of offf);

# ---- authentication methods

my $pg       = Pgq::Postgres->new->start;
my $password = $pg->set_password('ngx_pgq_web');
my $hba      = Pgq::Host::slurp("$pg->{data}/pg_hba.conf");
my $conninfo = $pg->conninfo(user => 'ngx_pgq_web', tcp => 1, password => $password);
my $requires = (Pgq::Host::run([ Pgq::Host::pg_bin() . '/psql', '-d', 'host=/dev/null require_auth=none', '-c', '' ]))[2] !~ /invalid connection option/;

sub require_method {
    my ($method) = @_;

    Pgq::Host::spew("$pg->{data}/pg_hba.conf", "host all ngx_pgq_web 127.0.0.1/32 $method\n", $hba);
    $pg->reload;
    ok($pg->poll_query_until("select auth_method from pg_hba_file_rules order by line_number limit 1", $method), "the server requires the method $method");
}

sub answers {
    my ($name, $status, $conninfo, $line) = @_;
    my $nginx = Pgq::Nginx->new(conninfo => $conninfo, pool => 'lanes=1', timeout => $status == 202 ? '20s' : '1s')->start;

    is(Pgq::Client->new($nginx)->post('/post', '1')->status, $status, "$name: a message is answered with $status");
    like($nginx->log_since(0), qr/\[error\].* pgq lane: could not connect to .*$line/, "$name: the error is logged") if $line;
    unlike($nginx->log_since(0), qr/\Q$password\E/, "$name: the log does not contain the password");
    $nginx->stop;
}

answers('SCRAM', 202, $conninfo);

SKIP: {
    skip 'libpq is older than 16: no require_auth', 1 if !$requires;

    require_method('password');
    answers('a cleartext password', 503, $conninfo, qr/server requested a cleartext password/);
    answers('a cleartext password with require_auth=password', 202, "$conninfo require_auth=password");

    require_method('trust');
    answers('no authentication', 503, $conninfo, qr/server did not complete authentication/);
    answers('no authentication with require_auth=none', 202, "$conninfo require_auth=none");
    answers('no authentication without a password', 202, $pg->conninfo(user => 'ngx_pgq_web', tcp => 1));

    $pg->safe_psql("set password_encryption = md5; alter role ngx_pgq_web password '$password'");
    require_method('md5');
    answers('an MD5 password', 503, $conninfo, qr/server requested a hashed password/);
    answers('an MD5 password with require_auth=md5', 202, "$conninfo require_auth=md5");
}

done_testing;
