# P10: `make run` has the settings that docs/operations.md says. Its output names their files, and they can be changed.

use Pgq;
use Pgq::Host qw(run temp_dir top slurp build_dir pg_version free_port);
use Cwd qw(realpath);

my $top  = top();
my $tree = temp_dir('settings') . '/tree';
my %env  = (PORT => free_port(), MONITOR => free_port(), LISTEN => '127.0.0.1', PGVERSION => pg_version(),
    map { $_ => undef } grep { /^(?:PG(?!VERSION)|DB_)/ } keys %ENV);

run([ 'mkdir', '-p', "$tree/build" ]);
run([ 'cp', '-r', "$top/provision", "$top/sql", $tree ]);
symlink realpath(build_dir() . "/$_"), "$tree/build/$_" for 'pg' . pg_version(), 'nginx';

# Runs provision/dev/run from a shell with the usual limit of descriptors. Returns its status and its output.
sub provision {
    return run([ 'sh', '-c', 'ulimit -Sn 1024; exec "$0" "$@"', "$tree/provision/dev/run", @_ ], env => \%env, timeout => timeout(120));
}

sub sql {
    my ($status, $out, $err) = run([ "$tree/provision/dev/with-database", 'psql', '-XAtqc', $_[0] ], env => \%env);
    return "$out$err" =~ s/\n\z//r;
}

END { provision('stop') if $tree }

my ($status, $out, $err) = provision('start');
is($status, 0, 'make run succeeds') or diag("$out$err");

# ---- the table

my ($section) = slurp("$top/docs/operations.md") =~ /^## Settings that matter\n(.*?)^## /ms;

for my $line (grep { /^\| `/ } split /\n/, $section) {
    my ($name, undef, $run) = map { s/^`|`$//gr } (split /\s*\|\s*/, $line)[ 1 .. 3 ];

    is(sql("show $name"), $run, "make run: $name is $run");
}

# ---- what the user is told

my ($settings) = $out =~ /^ngx_pgq: settings: (.*)/m;
my @files = ($settings // '') =~ m{(run/[\w./]+)}g;
is("@files", 'run/nginx/nginx.conf run/postgres/data/ngx_pgq.conf run/nginx/access.log', 'make run names the files of its settings and requests');
ok(-f "$tree/$_", "$_ exists") for @files;

unlike(slurp("$tree/run/nginx/error.log"), qr/exceed open file resource limit/, 'nginx may open a file for each connection');

# ---- a changed setting

sql("alter system set max_wal_size = '333MB'");
provision('stop');
($status, $out, $err) = provision('start');
is($status, 0, 'make run succeeds with a changed setting') or diag("$out$err");
is(sql('show max_wal_size'), '333MB', 'a setting by ALTER SYSTEM overrides that of make run');

done_testing;
