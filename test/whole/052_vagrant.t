# P9: provision/cluster/vagrant.rb copies files to the machines of the Vagrantfile and back; Vagrant is a stand-in here.
# Secrets are created once, reach only the machines that need them, and no copy is left behind.

use Pgq;
use Pgq::Host qw(run temp_dir top slurp spew module_path build_dir pg_version has_program);

plan skip_all => 'ruby is not installed: make check-others' if !has_program('ruby');

my $dir = temp_dir('vagrant');
my $top = top();

mkdir "$dir/parts";
mkdir "$dir/parts/extension";
run([ 'cp', module_path(), "$dir/parts/" ]);
run([ 'cp', build_dir() . '/extension' . pg_version() . '/ngx_pgq.so', "$dir/parts/extension/" ]);

sub vagrant {
    my %env = (NGX_PGQ_PATIENCE => 6, ref $_[0] ? %{ shift() } : ());
    my ($status, $out, $err) = run([ 'ruby', "$top/test/tools/vagrant-stand-in.rb", $dir, @_ ], env => \%env);
    return $out . $err . ($status ? "status $status\n" : '');
}

sub files { return grep { -f } map { chomp; $_ } `find \Q$_[0]\E -type f | sort` }

my $kept = "$dir/.vagrant/ngx_pgq";

# A link at a predictable name in /tmp is not followed.
my $theirs = spew("$dir/theirs", "theirs\n");
run([ 'mkdir', '-p', "$dir/web1/tmp" ]);
symlink $theirs, "$dir/web1/tmp/ngx_pgq.tar";

is(vagrant(qw(pg2 web1)), <<'END', 'the machine that is set up first creates the secrets and parts of all machines');
pg2: building for Debian 13 (once)
pg2: making CA, keys and passwords (once)
pg2: ngx_pgq: pg2 is set up as a database host
web1: ngx_pgq: web1 is set up as a web host
END

is(slurp($theirs), "theirs\n", 'no predictable name in /tmp is written to');
unlink "$dir/web1/tmp/ngx_pgq.tar";

my %first = map { $_ => slurp($_) } files($kept);
ok(exists $first{"$kept/$_"}, "$_ is kept on the host") for qw(secrets/ca.key secrets/pg3/host.key parts/ngx_http_pgq_module.so);
is(join(' ', grep { (stat)[2] & 077 } $kept, keys %first), '', 'no other user can read the files that are kept');

for my $name (qw(pg2 web1)) {
    my @keys  = map { $first{$_} } grep { /\.key$/ && !m{/$name/} } keys %first;
    my @found = grep { my $file = $_; grep { index(slurp($file), $_) >= 0 } @keys } files("$dir/$name");
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

# ---- parts that were built from other sources

spew("$kept/parts.origin", 'other sources');
like(vagrant('web1'), qr/\Aweb1: building for Debian 13 \(once\)\nweb1: ngx_pgq: web1 is set up/, 'the first machine builds new sources');
is(join(' ', grep { slurp($_) ne $first{$_} } files($kept)), '', 'building new sources keeps the secrets');

# ---- commands on machines, by a copy of provision/cluster/cluster without containers

mkdir "$dir/$_" for qw(copy copy/.vagrant copy/.vagrant/machines copy/.vagrant/machines/pg2 copy/.vagrant/machines/pg2/libvirt bin);
run([ 'cp', '-r', "$top/provision", "$dir/copy/" ]);
spew("$dir/copy/.vagrant/machines/pg2/libvirt/id", 'pg2');

# Vagrant knows only pg2. As ssh does, it reads all of its input, whether the command needs it or not. Commands on the
# machine print their arguments.
program('vagrant', <<'END');
[[ $1 == ssh && $2 == pg2 ]] || { echo "The machine with the name '$2' was not found." >&2; exit 1; }
exec bash -c "${*: -1}" <<< "$(cat)"
END
program('sudo',       'exec "$@"');
program('runuser',    'shift 3; exec "$@"');
program('patronictl', q(printf 'ngx_pgq\tpg2\tpg2\tLeader\n'));
program('psql',       q(echo "psql $*: $(cat)"));

sub program { my ($name, $text) = @_; spew("$dir/bin/$name", "#!/bin/bash\n$text\n"); chmod 0755, "$dir/bin/$name" }

sub cluster {
    my ($status, $out, $err) = run([ 'bash', '-c', "$dir/copy/provision/cluster/cluster $_[0]" ], env => { PATH => "$dir/bin:$ENV{PATH}" });
    return $out . $err . ($status ? "status $status\n" : '');
}

is(cluster('psql -c "select \'it\'\'s\'"'), "psql -d posts -c select 'it''s': \n", 'psql reaches the primary when pg1 does not exist');
is(cluster('psql <<< "select 1"'), "psql -d posts: select 1\n", 'psql gets the standard input');
is(cluster('on pg3 true'), "The machine with the name 'pg3' was not found.\nstatus 1\n", 'a machine that does not exist is reported');

done_testing;
