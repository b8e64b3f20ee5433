# A service file, a password file and the environment are read by the master process together with the configuration. The
# workers, which run as another user without the environment, do not read them. No password is logged.

use Pgq;

my $pg       = Pgq::Postgres->new->start;
my $dir      = Pgq::Host::temp_dir('settings');
my $password = $pg->set_password('ngx_pgq_web');
my $port     = $pg->port;
my $hidden   = "$dir/hidden";

# Only the master can read this directory.
mkdir $hidden, 0700 or die "$hidden: $!";

sub file {
    my ($name, @lines) = @_;

    Pgq::Host::spew("$hidden/$name", map { "$_\n" } @lines);
    chmod 0600, "$hidden/$name";

    return "$hidden/$name";
}

my $passfile = file('passfile', '# a comment', "127.0.0.1:1:*:*:not this one", "127.0.0.1:$port:posts:ngx_pgq_web:$password");
my $service  = file('services', '[ours]', 'host=127.0.0.1', "port=$port", 'dbname=posts', 'user=ngx_pgq_web', 'connect_timeout=3');
my $full     = file('full', '[ours]', 'host=127.0.0.1', "port=$port", 'dbname=posts', 'user=ngx_pgq_web', "password=$password",
    'application_name=named by the service', 'keepalives_idle=33');
my $server   = "host=127.0.0.1 port=$port dbname=posts user=ngx_pgq_web";

sub answers {
    my ($name, $status, $conninfo, %env) = @_;
    my $nginx = Pgq::Nginx->new(conninfo => $conninfo, pool => 'lanes=1', timeout => $status == 202 ? '20s' : '1s',
        log_level => 'debug', env => { HOME => $dir, %env })->start;

    is(Pgq::Client->new($nginx)->post('/post', qq{"$name"})->status, $status, "a message is answered with $status: $name");
    unlike($nginx->log_since(0) . $nginx->output . $nginx->access_log, qr/\Q$password\E|hush/, "$name: no password is logged");

    return $nginx;
}

sub works { return answers(shift, 202, @_)->stop }

works('a password file of the conninfo',    "$server passfile=$passfile");
works('a password file of the environment', $server, PGPASSFILE => $passfile);
works('a service',                          'service=ours', PGSERVICEFILE => $service, PGPASSFILE => $passfile);
works('a service of the environment',       '', PGSERVICE => 'ours', PGSERVICEFILE => $full);
works('a password of the environment',      $server, PGPASSWORD => $password);
works('all settings of the environment',             '',
    PGHOST => '127.0.0.1', PGPORT => $port, PGDATABASE => 'posts', PGUSER => 'ngx_pgq_web', PGPASSWORD => $password);
works('a password of the conninfo instead of that of the file', "$server password=$password passfile=" . file('hush', '*:*:*:*:hush'));

rename file('home', "*:*:*:*:$password"), "$dir/.pgpass";
works('the password file in the home directory', $server);
unlink "$dir/.pgpass";

# ---- two hosts with different passwords
my $second = Pgq::Postgres->new(name => 'second')->start;
my $other  = $second->set_password('ngx_pgq_web');
my $both   = file('both', "127.0.0.1:$port:*:*:$password", '127.0.0.1:' . $second->port . ":*:*:$other");
my $nginx  = answers('a password for each of two hosts', 202,
    "host=127.0.0.1,127.0.0.1 port=$port," . $second->port . " dbname=posts user=ngx_pgq_web passfile=$both");
$pg->stop;
is(Pgq::Client->new($nginx)->post('/post', '"second"')->status, 202, 'a message is accepted by the second of two hosts');
unlike($nginx->log_since(0), qr/\Q$password\E|\Q$other\E/, 'no password of the two hosts is logged');
ok($second->poll_query_until('select count(*) from posts', 1), 'the message is a post on the second host');
$nginx->stop;
$second->stop;
$pg->start;

# ---- a password file that changes
$nginx = answers('an old password', 503, "$server passfile=" . file('changing', '*:*:*:*:hush'));
file('changing', "*:*:*:*:$password");
$nginx->configure(pool => 'lanes=1', timeout => '20s');
$nginx->reload;
is(Pgq::Client->new($nginx)->post('/post', '"changed"')->status, 202, 'a changed password file is used after a reload');
$nginx->stop;

my $open = file('open', "*:*:*:*:$password");
chmod 0644, $open;
$nginx = answers('a password file that others can read', 503, "$server passfile=$open");
like($nginx->output, qr/WARNING: password file "\S+open" has group or world access/, 'libpq warns about a password file that others can read');
like($nginx->log_since(0), qr/pgq lane: could not connect to .*no password supplied/, 'a password file that others can read is not used');
$nginx->stop;

# ---- settings of a service and of the environment, some of which the module replaces
$nginx = answers('a service with settings', 202, 'service=ours', PGSERVICEFILE => $full, PGCLIENTENCODING => 'LATIN1');
is($pg->safe_psql(q{select distinct application_name from pg_stat_activity where usename = 'ngx_pgq_web'}),
    'named by the service', 'the application_name of the service is used');
is(Pgq::Client->new($nginx)->post('/post', qq{"\xc3\xa9"})->status, 202, 'a message with a two-byte character is accepted');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = U&'"\00e9"'}, 1), 'client_encoding is UTF8 in spite of PGCLIENTENCODING');
$nginx->stop;

done_testing;
