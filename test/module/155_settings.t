# A service, a password file and the environment are read by the master, when it reads the configuration: the workers,
# which are another user and have no environment, need to read none of them. No password is ever in a log.

use Pgq;

my $pg       = Pgq::Postgres->new->start;
my $dir      = Pgq::Host::temp_dir('settings');
my $password = $pg->set_password('ngx_pgq_web');
my $port     = $pg->port;
my $hidden   = "$dir/hidden";

# (the master's alone)
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
my $place    = "host=127.0.0.1 port=$port dbname=posts user=ngx_pgq_web";

sub answers {
    my ($name, $status, $conninfo, %env) = @_;
    my $nginx = Pgq::Nginx->new(conninfo => $conninfo, pool => 'lanes=1', timeout => $status == 202 ? '20s' : '1s',
        log_level => 'debug', env => { HOME => $dir, %env })->start;

    is(Pgq::Client->new($nginx)->post('/post', qq{"$name"})->status, $status, $name);
    unlike($nginx->log_since(0) . $nginx->output . $nginx->access_log, qr/\Q$password\E|hush/, "$name: no password is shown");

    return $nginx;
}

sub works { return answers(shift, 202, @_)->stop }

works('a password file of the conninfo',    "$place passfile=$passfile");
works('a password file of the environment', $place, PGPASSFILE => $passfile);
works('a service',                          'service=ours', PGSERVICEFILE => $service, PGPASSFILE => $passfile);
works('a service of the environment',       '', PGSERVICE => 'ours', PGSERVICEFILE => $full);
works('a password of the environment',      $place, PGPASSWORD => $password);
works('all of the environment',             '',
    PGHOST => '127.0.0.1', PGPORT => $port, PGDATABASE => 'posts', PGUSER => 'ngx_pgq_web', PGPASSWORD => $password);
works('a password of the conninfo before that of the file', "$place password=$password passfile=" . file('hush', '*:*:*:*:hush'));

rename file('home', "*:*:*:*:$password"), "$dir/.pgpass";
works('the password file in the home directory', $place);
unlink "$dir/.pgpass";

# each host has its own
my $second = Pgq::Postgres->new(name => 'second')->start;
my $other  = $second->set_password('ngx_pgq_web');
my $both   = file('both', "127.0.0.1:$port:*:*:$password", '127.0.0.1:' . $second->port . ":*:*:$other");
my $nginx  = answers('a password for each of two hosts', 202,
    "host=127.0.0.1,127.0.0.1 port=$port," . $second->port . " dbname=posts user=ngx_pgq_web passfile=$both");
$pg->stop;
is(Pgq::Client->new($nginx)->post('/post', '"second"')->status, 202, 'the second of the two hosts');
unlike($nginx->log_since(0), qr/\Q$password\E|\Q$other\E/, 'no password is shown of that either');
ok($second->poll_query_until('select count(*) from posts', 1), 'is where it went');
$nginx->stop;
$second->stop;
$pg->start;

# a change counts with a reload
$nginx = answers('an old password', 503, "$place passfile=" . file('changing', '*:*:*:*:hush'));
file('changing', "*:*:*:*:$password");
$nginx->configure(pool => 'lanes=1', timeout => '20s');
$nginx->reload;
is(Pgq::Client->new($nginx)->post('/post', '"changed"')->status, 202, 'a password file that was changed counts after a reload');
$nginx->stop;

my $open = file('open', "*:*:*:*:$password");
chmod 0644, $open;
$nginx = answers('a password file that all may read', 503, "$place passfile=$open");
like($nginx->output, qr/WARNING: password file "\S+open" has group or world access/, 'it is not used, and libpq says why at the start');
like($nginx->log_since(0), qr/pgq lane: could not connect to .*no password supplied/, 'and in the log');
$nginx->stop;

# what is set wins over what the module sets by itself
$nginx = answers('a service with settings', 202, 'service=ours', PGSERVICEFILE => $full, PGCLIENTENCODING => 'LATIN1');
is($pg->safe_psql(q{select distinct application_name from pg_stat_activity where usename = 'ngx_pgq_web'}),
    'named by the service', 'a service names the application');
is(Pgq::Client->new($nginx)->post('/post', qq{"\xc3\xa9"})->status, 202, 'a letter of two bytes');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = U&'"\00e9"'}, 1), 'is one letter, whatever PGCLIENTENCODING says');
$nginx->stop;

done_testing;
