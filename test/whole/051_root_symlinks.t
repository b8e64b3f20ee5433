# P9: `make run`, `make stop` and `make clean` of root follow no symbolic links that the users of PostgreSQL and nginx put
# in place of their files: nothing outside of run/ and build/ is changed or removed.

use Pgq;
use Pgq::Host qw(run temp_dir top slurp spew build_dir pg_version is_root server_user worker_user free_port module_path pg_bin);
use Cwd qw(realpath);

plan skip_all => 'only root can be misled' if !is_root();

# ---- a clone, as far as `make run` needs one

my $dir   = temp_dir('links');
my $tree  = "$dir/tree";
my $major = pg_version();
my %env   = (PORT => free_port(), MONITOR => free_port(), LISTEN => '127.0.0.1', PGVERSION => $major, map { $_ => undef } grep { /^(?:PG(?!VERSION)|DB_)/ } keys %ENV);

run([ 'mkdir', '-p', "$tree/build" ]);
run([ 'cp', '-r', top() . '/provision', top() . '/sql', $tree ]);
# The build may be in /var/tmp itself: make clean must not follow a link there.
for my $name ("pg$major", 'nginx') {
    symlink realpath(build_dir() . "/$name"), "$dir/$name";
    symlink "$dir/$name", "$tree/build/$name";
}

sub provision {
    my ($name, @arguments) = @_;
    my ($status, $out, $err) = run([ "$tree/provision/dev/$name", @arguments ], env => \%env);
    return $status ? "$out$err" : 'success';
}

# ---- files that must not be touched

sub victim {
    my ($name) = @_;
    mkdir "$dir/$name", 0700;
    spew("$dir/$name/file", "not yours\n");
    chmod 0600, "$dir/$name/file";
    return "$dir/$name";
}

sub state_of { return join ' ', map { my @s = stat; @s ? sprintf '%o %d %d', @s[ 2, 4, 5 ] : 'gone' } $_[0], "$_[0]/file" }

my $victim   = victim('victim');
my $untouched = state_of($victim);

# Tries to put links to the victim at these names in a directory, as this user. Returns the names that it could take.
sub plant {
    my ($user, $place, @names) = @_;
    my $script = <<'END';
cd "$1" || exit 0; victim=$2; shift 2
for name; do
    to=$victim/file
    case $name in *[!.]*/) to=$victim; name=${name%/} ;; esac
    mv -T "$name" "$name.old" 2> /dev/null
    ln -snT "$to" "$name" 2> /dev/null && echo "$name"
done
END
    my ($status, $out) = run([
        'setpriv', "--reuid=$user", '--regid=' . (getpwnam $user)[3], '--clear-groups', 'bash', '-c', $script, 'plant', $place, $victim, @names,
    ]);
    return split /\n/, $out;
}

sub untouched {
    my ($when) = @_;
    is(state_of($victim), $untouched, "$when: files of another user keep their owner and mode");
    is(-e "$victim/file" ? slurp("$victim/file") : 'gone', "not yours\n", "$when: files of another user keep their text");
    return;
}

# ---- links in each directory in which a server's user may write

is(provision(qw(run start)), 'success', 'make run succeeds');
is(join(' ', grep { (stat "$tree/run/$_")[4] } qw(. nginx nginx/temp postgres postgres/socket)), '', 'all directories but the innermost ones belong to root');
is(provision(qw(run stop)), 'success', 'make stop succeeds');

my @planted = (
    plant(server_user(), "$tree/run/postgres", qw(initdb.log install.log port log socket/ data/)),
    plant(server_user(), "$tree/run/postgres/socket", qw(s/)),
    plant(worker_user(), "$tree/run/nginx", qw(nginx.conf nginx.conf.running error.log access.log nginx.pid url temp/)),
    plant(worker_user(), "$tree/run/nginx/temp", qw(body/ proxy/ fastcgi/ uwsgi/ scgi/)),
);
is("@planted", '', 'a server\'s user can take no name to which root writes');

@planted = plant(server_user(), "$tree/run/postgres/data", qw(ngx_pgq.conf pg_hba.conf pg_ident.conf postmaster.pid));
is(scalar @planted, 4, 'PostgreSQL\'s user can take names in the data directory');
provision(qw(run start));
provision(qw(run status));
provision(qw(run reload));
provision(qw(run stop));
untouched('after a start, a reload and a stop');

# ---- a pid file with another user's process

my $other = fork // die "fork: $!\n";
if (!$other) {
    exec 'sh', '-c', 'while :; do sleep 1; done', realpath("$tree/run/postgres") . '/data' or die "exec: $!\n";
}
unlink "$tree/run/postgres/data/postmaster.pid";    # a link
spew("$tree/run/postgres/data/postmaster.pid", "$other\n");
is(provision(qw(run stop)), 'success', "make stop succeeds when postmaster.pid names a process of root");
ok(kill(0, $other), 'make stop does not end a process of root');
kill 'KILL', $other;
waitpid $other, 0;

# ---- links that look like those to a build elsewhere

my $away = '/var/tmp/ngx_pgq.' . substr "$$" . 'pgqtests', 0, 8;
mkdir $away, 0755;
symlink $away, "$tree/run/postgres/data/away";
for my $to ("$away/../../..$victim", "$away/..//..$victim", $away) {
    unlink "$tree/build/pg9";
    symlink $to, "$tree/build/pg9";
    my (undef, undef, $uid) = getpwnam server_user();
    run([ 'chown', '-h', server_user(), "$tree/build/pg9" ]);
    is(provision('clean'), 'success', "make clean succeeds with a link to $to");
    untouched("make clean with a link to $to");
    ok(-d $away, "make clean keeps the target of another user's link to $to");
    mkdir "$tree/build";
}
ok(!-e "$tree/run", 'make clean removes run/');
ok(-e module_path() && -x pg_bin() . '/postgres', 'make clean keeps the targets of links in build/');

symlink $away, "$tree/build/pg9";
is(provision('clean'), 'success', 'make clean succeeds with a link of root');
ok(!-e $away, 'make clean removes the target of a link of root');

done_testing;
