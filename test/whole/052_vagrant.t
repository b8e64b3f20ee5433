# P9: provision/cluster/vagrant.rb copies files to the machines of the Vagrantfile and back; Vagrant is a stand-in here.
# Packages are built and secrets are created once, private keys reach only the machines that need them, and no copy is left
# behind.

use Pgq;
use Pgq::Host qw(run temp_dir top slurp spew has_program);

plan skip_all => 'ruby is not installed: make check-others' if !has_program('ruby');

my $dir  = temp_dir('vagrant');
my $top  = top();
my $tree = "$dir/tree";    # sources that can be changed

run([ 'mkdir', '-p', "$tree/test" ]);
run([ 'cp', '-r', "$top/test/tools", "$tree/test/" ]);
run([ 'sh', '-c', 'cp -r "$1"/*.md "$1/Vagrantfile" "$1"/debian "$1"/docs "$1"/haproxy "$1"/monitoring "$1"/ngx_pgq_module \
    "$1"/patroni "$1"/pg_extension "$1"/provision "$1"/sql "$2"', 'sh', $top, $tree ]);

# In place of provision/package/repository, which needs Debian 13. It notes what it is given. The package source that it
# makes has the number of the build.
program('package', <<'END');
set -e
[[ ! -e ${0%/*}/package.fails ]]
find . -type f -printf '%m %P\n' > "${0%/*}/given"
mkdir -p "$1/repository" "$1/signing/private-keys-v1.d"
[[ -e $1/signing/private-keys-v1.d/k.key ]] || openssl rand -hex 32 > "$1/signing/private-keys-v1.d/k.key"
touch "$1/repository/ngx_pgq.deb"
echo >> "${0%/*}/builds"
wc -l < "${0%/*}/builds" > "$1/repository/InRelease"
END

sub program { my ($name, $text) = @_; spew("$dir/$name", "#!/bin/bash\n$text\n"); chmod 0755, "$dir/$name" }

sub vagrant {
    my %env = (NGX_PGQ_PATIENCE => 6, ref $_[0] ? %{ shift() } : ());
    my ($status, $out, $err) = run([ 'ruby', "$tree/test/tools/vagrant-stand-in.rb", $dir, @_ ], env => \%env);
    return $out . $err . ($status ? "status $status\n" : '');
}

sub files { return grep { -f } map { chomp; $_ } `find @{[ map { quotemeta } @_ ]} -type f | sort` }

# The files that contain a text.
sub with { my ($text, @files) = @_; return join ' ', grep { index(slurp($_), $text) >= 0 } @files }

sub change { my ($file, $text) = @_; spew($file, (-e $file ? slurp($file) : '') . $text) }

my $kept       = "$dir/.vagrant/ngx_pgq";
my $repository = "$tree/repository";

# A link at a predictable name in /tmp is not followed.
my $theirs = spew("$dir/theirs", "theirs\n");
run([ 'mkdir', '-p', "$dir/web1/tmp" ]);
symlink $theirs, "$dir/web1/tmp/ngx_pgq.tar";

# ---- a machine that only builds the packages

is(vagrant('builder'), <<"END", 'builder builds the packages');
builder: building the packages of ngx_pgq (once)
builder: packages, and a signed package source of them: $repository
END
is(vagrant('builder'), "builder: packages, and a signed package source of them: $repository\n", 'builder builds nothing if nothing has changed');
is(join(' ', map { sprintf '%s %o', s{.*/}{}r, (stat)[2] & 0777 } files($repository)), 'InRelease 644 ngx_pgq.deb 644', 'the packages are beside the Vagrantfile, for every user');

my ($signing) = map { slurp($_) } files("$kept/signing");
is(with($signing, files("$dir/builder")), '', 'no signing key is left on builder');
is(join(' ', glob("$dir/builder/tmp/*"), grep { -e } "$dir/builder/root/ngx_pgq"), '', 'no temporary copy is left on builder');

my %given = map { reverse split } split /\n/, slurp("$dir/given");
is($given{'debian/rules'}, 755, 'debian/rules is executable');

# What a build makes is below usr/. The helpers of debhelper find all other files that they name in the sources.
my @named = grep { !m{^(?:usr|debian)/} } map { (split)[0] // () } map { split /\n/, slurp($_) } glob "$top/debian/*.{install,docs,examples,manpages}";
cmp_ok(scalar @named, '>', 10, 'the packages name files of the sources');
for my $named (@named) {
    my @exist = map { s{^\Q$tree\E/}{}r } files(glob "$tree/$named");
    is(join(' ', grep { !$given{$_} } @exist), '', "builder is given $named");
}

# ---- the first machines of a cluster

is(vagrant(qw(pg2 web1)), <<'END', 'the machine that is set up first creates the secrets of all machines, and uses the packages of builder');
pg2: making CA, keys and passwords (once)
pg2: ngx_pgq: pg2 is set up as a database host
web1: ngx_pgq: web1 is set up as a web host
END

is(slurp($theirs), "theirs\n", 'no predictable name in /tmp is written to');
unlink "$dir/web1/tmp/ngx_pgq.tar";
is(with($signing, glob "$dir/sent/pg2.* $dir/sent/web1.*"), '', 'no signing key is sent to a host of the cluster');
is(slurp("$dir/$_/root/kit/repository/InRelease"), "1\n", "$_ has the packages") for qw(pg2 web1);

my %first = map { $_ => slurp($_) } files($kept);
ok(exists $first{"$kept/$_"}, "$_ is kept on the host") for qw(secrets/ca.key secrets/pg3/host.key);
is(join(' ', grep { (stat)[2] & 077 } $kept, keys %first), '', 'no other user can read the files that are kept');

for my $name (qw(pg2 web1)) {
    my @keys  = map { $first{$_} } grep { /\.key$/ && !m{/$name/} } keys %first;
    my @found = map { with($_, files("$dir/$name")) || () } @keys;
    is("@found", '', "$name has no key of another machine");
    is(join(' ', glob("$dir/$name/tmp/*"), grep { -e } "$dir/$name/root/ngx_pgq"), '', "$name: no temporary copy is left");
}

is(slurp("$dir/pg2/etc/ngx_pgq/postgres.key"), $first{"$kept/secrets/pg2/host.key"}, 'pg2 has its own key');
like(slurp("$dir/pg2/etc/patroni/config.yml"), qr/^    ttl: 120 /m, 'Patroni on pg2 has the TTL that follows from NGX_PGQ_PATIENCE');
like(slurp("$dir/pg2/etc/default/etcd"), qr/^ETCD_ELECTION_TIMEOUT=15000$/m, 'etcd on pg2 has the timeout that follows from NGX_PGQ_PATIENCE');

# ---- machines that are provisioned again, added or recreated

is(vagrant(qw(pg2)), "pg2: ngx_pgq: pg2 is set up as a database host\n", 'provisioning a machine again creates nothing');
run([ 'rm', '-r', "$dir/pg2" ]);
is(vagrant(qw(pg1 pg2)), <<'END', 'provisioning an added and a recreated machine creates nothing');
pg1: ngx_pgq: pg1 is set up as a database host
pg2: ngx_pgq: pg2 is set up as a database host
END
is(join(' ', grep { slurp($_) ne $first{$_} } files($kept)), '', 'the files that are kept do not change');

like(vagrant({ BREAKS => 'pg2' }, 'pg2'), qr/ngx_pgq: the connection to pg2 broke: vagrant provision pg2 \(.*^status 1$/ms,
    'a connection that breaks during setup is reported as a failure');

# ---- packages that were built from other sources, or are gone

change("$tree/provision/host/sysctl.conf", "# changed\n");
change("$tree/pg_extension/made.o", 'made');
is(vagrant('web1'), "web1: ngx_pgq: web1 is set up as a web host\n", 'nothing is built if no file of the packages has changed');

spew("$dir/package.fails", '');
change("$tree/docs/http.md", "Changed.\n");
like(vagrant('web1'), qr/building the packages.*^status 1$/ms, 'a build that fails is reported as a failure');
is(with($signing, files("$dir/web1")), '', 'no signing key is left after a build that has failed');
unlink "$dir/package.fails";

my $build = <<'END';
pg2: building the packages of ngx_pgq (once)
pg2: ngx_pgq: pg2 is set up as a database host
web1: ngx_pgq: web1 is set up as a web host
END
is(vagrant(qw(pg2 web1)), $build, 'the first machine builds new sources, for all machines');
is(with($signing, files("$dir/pg2", "$dir/web1")), '', 'no signing key is left on the hosts');
is(slurp("$dir/$_/root/kit/repository/InRelease"), "2\n", "$_ has the new packages") for qw(pg2 web1);

run([ 'rm', '-r', $repository ]);
is(vagrant(qw(pg2 web1)), $build, 'the first machine builds packages that are gone');
is(join(' ', grep { !/repository\.origin$/ && slurp($_) ne $first{$_} } files($kept)), '', 'building again keeps the secrets and the signing key');

# ---- a monitoring host, which the others know when they are provisioned again

is(vagrant('monitor1'), '', 'by default there is no monitoring host');
run([ 'sh', '-c', 'mkdir -p "$2/usr/share/ngx-pgq" && cp -r "$1/monitoring" "$2/usr/share/ngx-pgq/"', 'sh', $top, "$dir/monitor1" ]);
is(vagrant({ NGX_PGQ_MONITOR => 'on' }, 'monitor1'), <<'END', 'NGX_PGQ_MONITOR=on makes a monitoring host');
monitor1: making CA, keys and passwords (once)
monitor1: ngx_pgq: monitor1 is set up as a monitor host
END
is(join(' ', map { s{.*/}{}r } files("$dir/monitor1/root/kit/secrets")), 'ca.crt', 'it has no secret');

run([ 'mkdir', '-p', "$tree/.vagrant/machines/monitor1/libvirt" ]);
spew("$tree/.vagrant/machines/monitor1/libvirt/id", 'monitor1');
is(vagrant(qw(monitor1 web1)), join('', map { "$_->[0]: ngx_pgq: $_->[0] is set up as a $_->[1] host\n" } [qw(web1 web)], [qw(monitor1 monitor)]),
    'the monitoring host remains without NGX_PGQ_MONITOR');
like(slurp("$dir/web1/etc/nftables.conf"), qr/elements = \{ 192\.168\.56\.21, 192\.168\.56\.22, 192\.168\.56\.41 \}/, 'the firewall of the others admits it');
run([ 'rm', '-r', "$tree/.vagrant" ]);

# ---- a copy of the sources without git's directory

run([ 'cp', '-r', "$dir/.vagrant", $tree ]);
my @sources = split /\0/, (run([ 'bash', '-c', '. "$1/provision/common.bash"; sources', 'bash', $tree ]))[1];
ok((grep { $_ eq './debian/rules' } @sources), 'packages are made of all files, if there is no git');
is(join(' ', grep { m{^\./(?:\.vagrant|repository)/} } @sources), '', 'packages are made of no key and no package');

# ---- commands on machines, by a copy of provision/cluster/cluster without containers

run([ 'mkdir', '-p', "$dir/bin", map { "$dir/copy/.vagrant/machines/$_/libvirt" } qw(builder pg2) ]);
run([ 'cp', '-r', "$top/provision", "$dir/copy/" ]);
spew("$dir/copy/.vagrant/machines/builder/libvirt/id", 'builder');
is(cluster('psql'), "ngx_pgq: there is no cluster: make cluster\nstatus 1\n", 'builder alone is no cluster');
spew("$dir/copy/.vagrant/machines/pg2/libvirt/id", 'pg2');

# Vagrant knows only pg2. As ssh does, it reads all of its input, whether the command needs it or not. Commands on the
# machine print their arguments.
program('bin/vagrant', <<'END');
[[ $1 == ssh && $2 == pg2 ]] || { echo "The machine with the name '$2' was not found." >&2; exit 1; }
exec bash -c "${*: -1}" <<< "$(cat)"
END
program('bin/sudo',       'exec "$@"');
program('bin/runuser',    'shift 3; exec "$@"');
program('bin/patronictl', q(printf 'ngx_pgq\tpg2\tpg2\tLeader\n'));
program('bin/psql',       q(echo "psql $*: $(cat)"));

sub cluster {
    my ($status, $out, $err) = run([ 'bash', '-c', "$dir/copy/provision/cluster/cluster $_[0]" ], env => { PATH => "$dir/bin:$ENV{PATH}" });
    return $out . $err . ($status ? "status $status\n" : '');
}

is(cluster('psql -c "select \'it\'\'s\'"'), "psql -d posts -c select 'it''s': \n", 'psql reaches the primary when pg1 does not exist');
is(cluster('psql <<< "select 1"'), "psql -d posts: select 1\n", 'psql gets the standard input');
is(cluster('on pg3 true'), "The machine with the name 'pg3' was not found.\nstatus 1\n", 'a machine that does not exist is reported');
like(cluster('logs monitor1'), qr/which host/, 'a cluster without a monitoring host has no logs of it');
run([ 'mkdir', '-p', "$dir/copy/.vagrant/machines/monitor1/libvirt" ]);
spew("$dir/copy/.vagrant/machines/monitor1/libvirt/id", 'monitor1');
is(cluster('logs monitor1'), "The machine with the name 'monitor1' was not found.\nstatus 1\n", 'the logs of a monitoring host are asked of its machine');

done_testing;
