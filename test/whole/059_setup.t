# P10: ngx-pgq-setup sets up a cluster of the system, says what is missing, and takes back what it has done, but not the data.
# The test runs in a mount, network and process namespace of its own, in which the directories of the system are copies.

use Pgq;
use Pgq::Host qw(run temp_dir top slurp spew build_dir module_path pg_version is_root);
use Cwd qw(realpath);
use IO::Socket::INET;

plan skip_all => 'only root can use it'                       if !is_root();
plan skip_all => 'pg_createcluster starts no instrumented server' if $ENV{PGQ_SANITIZE};
plan skip_all => 'postgresql-common is not installed'         if !-x '/usr/bin/pg_createcluster';

my @namespace = qw(unshare --mount --net --pid --fork --kill-child --mount-proc);

if (!$ENV{PGQ_SETUP_NAMESPACE}) {
    plan skip_all => 'no namespaces can be made here' if (run([ @namespace, 'true' ]))[0];
    $ENV{PGQ_SETUP_NAMESPACE} = 1;
    # bash reaps the processes whose parents have ended.
    exec @namespace, 'bash', '-c', '"$@"; exit $?', 'init', $^X, (map { "-I$_" } @INC), realpath($0);
}

# The servers may not be able to read the directories of the test.
delete $ENV{PERL5LIB};

my $major  = pg_version();
my $dir    = temp_dir('setup');
my $build  = realpath(build_dir() . "/pg$major");
my $auto   = "/var/lib/postgresql/$major/setup/postgresql.auto.conf";
my $pgpass = '/etc/ngx_pgq/pgpass';

sub must {
    my ($status, $out, $err) = run([@_]);
    die "@_: $out$err" if $status;
    return $out =~ s/\n\z//r;
}

# Replaces a directory by a copy, with these files added.
sub cover {
    my ($path, @files) = @_;
    my $copy = "$dir$path";
    must('mkdir', '-p', $copy =~ s{/[^/]+$}{}r);
    must('cp', '-a', $path, $copy);
    must('cp', @files, $copy) if @files;
    must('mount', '--bind', $copy, $path);
    return;
}

sub sql { return must(qw(runuser -u postgres -- psql --cluster), "$major/setup", qw(-XAtq -v ON_ERROR_STOP=1 -d), $_[1] // 'posts', '-c', $_[0]) }

# Runs the command. Returns its status and its output.
sub setup {
    my ($status, $out, $err) = run([ "$dir/tree/provision/package/ngx-pgq-setup", @_ ], timeout => timeout(120));
    return ($status, "$out$err");
}

# Checks that the command ends with this status and says this.
sub says {
    my ($name, $expected, $pattern, @arguments) = @_;
    my ($status, $out) = setup(@arguments);
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is($status, $expected, "$name: status $expected") or diag($out);
    like($out, $pattern, "$name: it says what it has to");
    return $out;
}

# ---- a system with a cluster, and with nothing of ngx_pgq

must('mount', '-t', 'tmpfs', 'tmpfs', '/run');
must(qw(ip link set lo up));
must(qw(install -d -o postgres -g postgres /run/postgresql));
cover('/etc');
must('rm', '-rf', glob('/etc/postgresql/*'), glob('/etc/nginx/sites-enabled/*'), '/etc/ngx_pgq');
for my $empty (qw(/var/lib/postgresql /var/log/postgresql /var/log/nginx)) {
    must('mount', '-t', 'tmpfs', 'tmpfs', $empty);
    must('chown', 'postgres:postgres', $empty) if $empty =~ /postgresql/;
}
must('mkdir', '-p', "$dir/tree");
must('cp', '-r', top() . '/provision', top() . '/sql', "$dir/tree");

# A plain user can neither read the directory of the test, nor is it root.
must('install', '-m', '755', "$dir/tree/provision/package/ngx-pgq-setup", '/run/');
my ($status, $said, $error) = run([ qw(runuser -u www-data -- /run/ngx-pgq-setup), $major, 'setup', 'posts' ]);
is("$status $error", "2 ngx-pgq-setup: only root can do this: sudo ngx-pgq-setup $major setup posts\n", 'a plain user is refused');

says('no cluster', 2, qr/has no cluster; this command makes one: pg_createcluster $major setup --start$/m, $major, 'setup', 'posts');

# Its databases are SQL_ASCII, as on a machine without a locale.
must('pg_createcluster', $major, 'setup', '--locale=C', '--encoding=SQL_ASCII', '--', '--no-sync');

says('no arguments', 2, qr/^ngx-pgq-setup: usage: ngx-pgq-setup .*VERSION CLUSTER DATABASE/);
says('an unknown option', 2, qr/unknown option --chekc; usage:/, '--chekc', $major, 'setup', 'posts');
says('two actions', 2, qr/usage:/, '--check', '--undo', $major, 'setup', 'posts');
says('a name that has to be quoted', 2, qr/the name of the database may have/, $major, 'setup', "it's");
$ENV{LC_ALL} = 'xx_XX.UTF-8';    # no such locale
says('no such cluster', 2, qr{there is no cluster $major/none; this machine has: $major/setup$}m, $major, 'none', 'posts');
delete $ENV{LC_ALL};
must('install', '-D', '-o', 'postgres', "/etc/postgresql/$major/setup/postgresql.conf", '/etc/postgresql/14/old/postgresql.conf');
says('an old version', 2, qr/PostgreSQL 14 is too old: ngx_pgq needs version 15 or later$/m, 14, 'old', 'posts');
must('rm', '-r', '/etc/postgresql/14');
says('a cluster that is down', 2, qr{cluster $major/setup does not run: start it by pg_ctlcluster $major setup start$}m, '--check', $major, 'setup', 'posts');

must('pg_conftool', $major, 'setup', 'set', 'shared_preload_libraries', 'pg_stat_statements, auto_explain');
my $signal = $auto =~ s/[^\/]+$/standby.signal/r;
must('runuser', '-u', 'postgres', 'touch', $signal);
must('pg_ctlcluster', $major, 'setup', 'start');
says('a standby', 2, qr{cluster $major/setup is a standby: run this command at the primary$}m, $major, 'setup', 'posts');
must('pg_ctlcluster', $major, 'setup', 'stop');
unlink $signal;
says('no packages', 2, qr/\Adone: PostgreSQL $major\/setup was started\.\n.*ngx_pgq is not installed for PostgreSQL $major: apt install postgresql-$major-ngx-pgq$/m, $major, 'setup', 'posts');

cover("/usr/lib/postgresql/$major/lib", "$build/usr/lib/postgresql/$major/lib/ngx_pgq.so");
cover("/usr/share/postgresql/$major/extension", glob("$build/usr/share/postgresql/$major/extension/ngx_pgq*"));

sql('create database latin encoding LATIN1 template template0', 'postgres');
must('pg_conftool', $major, 'setup', 'remove', 'unix_socket_directories');    # the default has the same value
says('another encoding', 2, qr/database latin has the encoding LATIN1: ngx_pgq needs UTF8/, $major, 'setup', 'latin');
must('pg_conftool', $major, 'setup', 'set', 'unix_socket_directories', '/var/run/postgresql');

# ---- what is missing

my $before = slurp($auto);
my $out    = says('--check', 1, qr/\Aok: The packages for PostgreSQL $major are installed\.\n(?:missing: .*\n){11}ok: The service of PostgreSQL and that of nginx will start with the machine\.\nThis command .*: ngx-pgq-setup --nginx $major setup posts\n\z/, '--check', '--nginx', $major, 'setup', 'posts');
is(slurp($auto), $before, '--check changes no setting');
ok(!-e '/etc/ngx_pgq' && !-e '/etc/nginx/sites-available/ngx_pgq', '--check writes no file');

# ---- set up

must('pg_conftool', $major, 'setup', 'set', 'work_mem', 'much');
says('a configuration with an error', 2, qr{cluster $major/setup would not start again: .*work_mem}s, '--yes', $major, 'setup', 'posts');
must('pg_conftool', $major, 'setup', 'remove', 'work_mem');

says('without a terminal', 1, qr/^stopped: .*has to be restarted.*: ngx-pgq-setup --yes --nginx $major setup posts$/m, '--nginx', $major, 'setup', 'posts');
is(sql('show shared_preload_libraries', 'postgres'), 'pg_stat_statements, auto_explain', 'without a terminal PostgreSQL is not restarted');

# Runs the command on a terminal, where it asks.
sub asked { return run([ 'sh', '-c', "printf '$_[0]' | script -qec '$dir/tree/provision/package/ngx-pgq-setup $major setup posts' /dev/null" ]) }
($status, $said) = asked('n\n');
is($status, 1, 'the answer n: status 1');
like($said, qr{Restart PostgreSQL $major/setup now\?.*\[y/N\].*stopped: }s, 'the answer n: the command stops');
is(sql('show shared_preload_libraries', 'postgres'), 'pg_stat_statements, auto_explain', 'the answer n: PostgreSQL is not restarted');
is((asked('y\n'))[0], 0, 'the answer y: status 0');

says('no module', 2, qr/nginx does not load the module: apt install nginx libnginx-mod-http-pgq$/m, '--yes', '--nginx', $major, 'setup', 'posts');
is(sql('show shared_preload_libraries'), 'pg_stat_statements, auto_explain, ngx_pgq', 'other libraries are kept');
is(sql('show server_encoding'), 'UTF8', 'the database is UTF8');

must('cp', module_path(), "$dir/");
spew('/etc/nginx/modules-enabled/50-mod-http-pgq.conf', "load_module $dir/ngx_http_pgq_module.so;\n");
must(qw(mount -t tmpfs -o size=4k tmpfs /etc/nginx/sites-available));
spew('/etc/nginx/sites-available/full', 'x' x 4096);
says('a full disk', 2, qr/No space left on device/, '--nginx', $major, 'setup', 'posts');
ok(!-e '/etc/nginx/sites-available/ngx_pgq', 'a full disk: no part of the site is left');
must(qw(umount /etc/nginx/sites-available));
my $child = open my $lines, '-|', "$dir/tree/provision/package/ngx-pgq-setup", $major, 'setup', 'posts';
readline $lines;
kill INT => $child;
unlike(join('', <$lines>), qr/^For nginx\.conf/m, 'SIGINT: the command does not continue');
close $lines;
is($? >> 8, 2, 'SIGINT: status 2');

my $other = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 8000, Listen => 1) or die "listen: $@\n";
says('a port in use', 2, qr{another program or site listens on 127\.0\.0\.1:8000: change the lines listen in /etc/nginx/}, '--nginx', $major, 'setup', 'posts');
ok(!-e '/etc/nginx/sites-enabled/ngx_pgq', 'a port in use: the site is not enabled');
close $other;

spew('/etc/nginx/conf.d/error.conf', "error on;\n");
says('an error in the configuration of nginx', 2, qr/nginx refuses its configuration: .*"error"/, '--nginx', $major, 'setup', 'posts');
ok(!-e '/etc/nginx/sites-enabled/ngx_pgq', 'an error in the configuration of nginx: the site is not enabled');
unlink '/etc/nginx/conf.d/error.conf';

my $conf = slurp('/etc/nginx/nginx.conf');
spew('/etc/nginx/nginx.conf', $conf =~ s{include /etc/nginx/sites-enabled/\*;}{}r);
says('sites that are not included', 2, qr{nginx.conf does not include /etc/nginx/sites-enabled/\*\. The site is not enabled$}m, '--nginx', $major, 'setup', 'posts');
spew('/etc/nginx/nginx.conf', $conf);

rmdir '/etc/nginx/sites-enabled';
$out = says('set-up', 0, qr{^done: The site is enabled, and nginx answers\.$}m, '--nginx', $major, 'setup', 'posts');

my ($command) = $out =~ /^(curl .*)\n\z/m;
like(must('sh', '-c', $command), qr/"status":"queued"/, 'the last line is a command that posts a message');
ok((poll_until { sql('select count(*) from posts') eq '1' }), 'the message becomes a post');
ok((poll_until { must(qw(curl -sS http://127.0.0.1:8000/metrics)) =~ /^pgq_moved_messages_total\{mover="1"\} 1$/m }), 'the site shows the metrics of the database');

is(sprintf('%o %d', (stat $pgpass)[ 2, 4 ]), '100600 0', 'only root can read the password');
my ($password) = slurp($pgpass) =~ /:([0-9a-f]{48})$/m;
unlike(must('sh', '-c', 'cat /etc/nginx/sites-available/ngx_pgq /var/log/postgresql/*'), qr/\Q$password/, 'the password is neither in the site nor in a log');

must('curl', '-fsS', '-X', 'PUT', '-d', '{"start":0}', 'http://127.0.0.1:8000/sub/setup');
like(must('curl', '-fsS', 'http://127.0.0.1:8000/sub/setup'), qr/^\{"msg":\[\{"id":1,.*"generation":\d+,"part":1\}$/, 'the site has consumers');

# ---- again

my $pid = slurp("/var/lib/postgresql/$major/setup/postmaster.pid");
$before = slurp($auto);
$out = says('a second run', 0, qr/^ok: Nothing was missing, and nothing was changed\.$/m, '--nginx', $major, 'setup', 'posts');
unlike($out, qr/^done/m, 'a second run changes nothing');
is(slurp($auto) . slurp($pgpass), "${before}127.0.0.1:5432:*:ngx_pgq_web:$password\n", 'a second run keeps settings and password');

sql('drop function ngx_pgq.since(timestamptz)');
says('--check without a function', 1, qr/^missing: It lacks tables, functions or roles of ngx_pgq,/m, '--check', $major, 'setup', 'posts');
says('a run without a function', 0, qr/^done: It has the tables, functions and roles/m, $major, 'setup', 'posts');
sql('alter role ngx_pgq_web password null');
says('--check without a password', 1, qr/^missing: nginx cannot log in/m, '--check', $major, 'setup', 'posts');
says('a run without a password', 0, qr/^done: nginx can log in/m, $major, 'setup', 'posts');

unlink $pgpass;
$out = says('a lost password', 2, qr/has a password, which $pgpass does not contain/, $major, 'setup', 'posts');
must('sh', '-c', $out =~ /for a new password run: (.*)/);
my @workers = split ' ', must('pgrep', '-P', slurp('/run/nginx.pid') =~ s/\n//r);
says('a run for a new password', 0, qr/^done: nginx can log in/m, $major, 'setup', 'posts');
unlike(slurp($pgpass), qr/\Q$password/, 'a lost password: there is a new one');
sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ngx_pgq_web'");
poll_until { !grep { kill 0, $_ } @workers };    # they have the lost one
like(must('sh', '-c', $command), qr/"status":"queued"/, 'nginx accepts a message after it');
ok((poll_until { sql('select count(*) from posts') eq '2' }), 'nginx uses the new password');

# ---- packages of another version, and a site that was changed

my $site = '/etc/nginx/sites-available/ngx_pgq';
spew($site, slurp($site) =~ s/127\.0\.0\.1:8000/127.0.0.1:8001/gr =~ s{= /status}{= /health}r);
must('service', 'nginx', 'reload');
for my $file ("/usr/lib/postgresql/$major/lib/ngx_pgq.so", "$dir/ngx_http_pgq_module.so") {
    must('cp', $file, "$file.dpkg-new");
    must('mv', "$file.dpkg-new", $file);
}
sql('comment on schema ngx_pgq is null');
$out = says('--check after an update', 1, qr/^missing: PostgreSQL does not run the installed ngx_pgq\.$/m, '--check', '--nginx', $major, 'setup', 'posts');
like($out, qr/^missing: nginx does not run the installed module\.$/m, '--check after an update: it names nginx');
like($out, qr/^missing: .* or they are of another version\.$/m, '--check after an update: it names the SQL files');
like($out, qr/^ok: The site is enabled, and nginx runs\.$/m, 'a changed site is not judged by its answer');

my $master = slurp('/run/nginx.pid');
$out = says('a run after an update', 0, qr/^done: PostgreSQL runs the installed ngx_pgq\.$/m, '--yes', '--nginx', $major, 'setup', 'posts');
like($out, qr/^done: It has the tables.*^done: nginx runs the installed module\.$/ms, 'a run after an update: the database is updated, then nginx');
isnt(slurp('/run/nginx.pid'), $master, 'nginx has new processes');
like(must('sh', '-c', $out =~ /^(curl .*)\n\z/m), qr/"status":"queued"/, 'the last line has the address of the changed site');
ok((poll_until { sql('select count(*) from posts') eq '3' }), 'after an update a message becomes a post');

# ---- another database of the cluster

says('another database', 0, qr/^Next, .*: ngx-pgq-setup --nginx $major setup other\n\z/m, $major, 'setup', 'other');
is(sql('show ngx_pgq.databases'), 'posts, other', 'the first database is kept');
says('the site of another database', 2, qr/is for another database/, '--nginx', $major, 'setup', 'other');
says('--undo of another database', 0, qr/^kept: The roles and their password serve other databases: posts\.$/m, '--undo', $major, 'setup', 'other');
says('--check after --undo of another database', 0, qr/\A(?:ok: .*\n){13}\z/, '--check', '--nginx', $major, 'setup', 'posts');

# ---- undo

says('--undo without a terminal', 1, qr/^stopped: .*: ngx-pgq-setup --undo --yes $major setup posts$/m, '--undo', $major, 'setup', 'posts');
is(slurp($auto) . -l '/etc/nginx/sites-enabled/ngx_pgq', "${before}1", '--undo without a terminal changes nothing');

$out = says('--undo', 0, qr/^kept: Database posts has posts and the schema ngx_pgq/m, '--undo', '--yes', $major, 'setup', 'posts');
is(sql('show shared_preload_libraries'), 'pg_stat_statements, auto_explain', '--undo keeps other libraries');
unlike(slurp($auto), qr/^[^#]/m, '--undo leaves no setting');
is(sql('select count(*) from posts'), 3, '--undo keeps the posts');
like($out, qr/^kept: $site was changed by hand\.$/m, '--undo keeps a changed site');
unlink $site;
is(sql("select string_agg(rolname, ' ') from pg_roles where rolname ~ 'ngx_pgq'"), 'ngx_pgq_owner', '--undo leaves only the role that owns the data');
is(sql("select count(*) from pg_extension where extname = 'ngx_pgq'"), 0, '--undo drops the extension');
is(must('sh', '-c', 'find /etc -name "*ngx*pgq*" ! -name "*mod-http-pgq*"'), '', '--undo leaves no file');
must('nginx', '-t');
unlike(must('ss', '-lnt'), qr/:8000\b/, 'nginx does not serve the site');
says('a second --undo', 0, qr/\Akept: .*\nTo delete them: .*\n\z/, '--undo', $major, 'setup', 'posts');

says('set-up after --undo', 0, qr/^curl /m, '--yes', '--nginx', $major, 'setup', 'posts');
like(must('sh', '-c', $command), qr/"status":"queued"/, 'after another set-up a message is accepted');
ok((poll_until { sql('select count(*) from posts') eq '4' }), 'after another set-up the next message becomes a post');

# ---- a set-up that was made by hand is not changed

sql('alter system reset all');
must('pg_conftool', $major, 'setup', 'set', 'shared_preload_libraries', 'ngx_pgq');
says('a manual set-up', 0, qr/^ok: shared_preload_libraries contains ngx_pgq\.$/m, $major, 'setup', 'posts');
says('--undo of a manual set-up', 2, qr{shared_preload_libraries contains ngx_pgq in \S+/postgresql.conf, line \d+: remove it there}, '--undo', '--yes', $major, 'setup', 'posts');

must('pg_conftool', $major, 'setup', 'remove', 'shared_preload_libraries');
$out = says('--undo of the rest', 0, qr/^kept: /m, '--undo', '--yes', $major, 'setup', 'posts');

my ($delete) = $out =~ /^To delete them: (.*)/m;
sql('drop database other', 'postgres');
must('sh', '-c', $delete);
is(sql("select string_agg(name, ' ') from (select datname from pg_database union all select rolname from pg_roles) as t (name) where name ~ 'posts|pgq'", 'postgres'),
    '', 'its last line deletes the rest');

must('service', 'nginx', 'stop');
must('pg_dropcluster', '--stop', $major, 'setup');

done_testing;
