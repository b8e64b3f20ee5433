# P9: what provision/cluster/vagrant.rb brings to the machines of the Vagrantfile and back, on a stand-in for Vagrant:
# what is secret is made once, reaches those alone whom it concerns, and nothing is left on the way.

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

# A name in /tmp that somebody might expect there leads nowhere.
my $theirs = spew("$dir/theirs", "theirs\n");
run([ 'mkdir', '-p', "$dir/web1/tmp" ]);
symlink $theirs, "$dir/web1/tmp/ngx_pgq.tar";

is(vagrant(qw(pg2 web1)), <<'END', 'the first machine makes what all are given, whichever it is');
pg2: building for Debian 13 (once)
pg2: making CA, keys and passwords (once)
pg2: ngx_pgq: pg2 is set up as a database host
web1: ngx_pgq: web1 is set up as a web host
END

is(slurp($theirs), "theirs\n", 'nothing is written by a name in /tmp that can be known before');
unlink "$dir/web1/tmp/ngx_pgq.tar";

my %first = map { $_ => slurp($_) } files($kept);
ok(exists $first{"$kept/$_"}, "$_ is kept") for qw(secrets/ca.key secrets/pg3/host.key parts/ngx_http_pgq_module.so);
is(join(' ', grep { (stat)[2] & 077 } $kept, keys %first), '', 'nobody else may read what is kept');

for my $name (qw(pg2 web1)) {
    my @keys  = map { $first{$_} } grep { /\.key$/ && !m{/$name/} } keys %first;
    my @found = grep { my $file = $_; grep { index(slurp($file), $_) >= 0 } @keys } files("$dir/$name");
    is("@found", '', "$name has no key but its own");
    is(join(' ', glob("$dir/$name/tmp/*"), grep { -e } "$dir/$name/root/ngx_pgq"), '', '... and nothing is left on the way');
}

is(slurp("$dir/pg2/etc/ngx_pgq/postgres.key"), $first{"$kept/secrets/pg2/host.key"}, 'its own it has');
like(slurp("$dir/pg2/etc/patroni/config.yml"), qr/^    ttl: 120 /m, 'Patroni is as patient as it was asked to be');
like(slurp("$dir/pg2/etc/default/etcd"), qr/^ETCD_ELECTION_TIMEOUT=15000$/m, 'and etcd');

# ---- again, and a machine that comes later, or anew

is(vagrant(qw(pg2)), "pg2: ngx_pgq: pg2 is set up as a database host\n", 'again nothing is made');
run([ 'rm', '-r', "$dir/pg2" ]);
is(vagrant(qw(pg1 pg2)), <<'END', 'nor for a machine that is lost, and made anew');
pg1: ngx_pgq: pg1 is set up as a database host
pg2: ngx_pgq: pg2 is set up as a database host
END
is(join(' ', grep { slurp($_) ne $first{$_} } files($kept)), '', 'what is kept is what it was');

like(vagrant({ BREAKS => 'pg2' }, 'pg2'), qr/ngx_pgq: the connection to pg2 broke: vagrant provision pg2 \(.*^status 1$/ms,
    'a machine that was left half-way is not taken for one that is set up');

# ---- what was built from other sources is built again

spew("$kept/parts.origin", 'other sources');
like(vagrant('web1'), qr/\Aweb1: building for Debian 13 \(once\)\nweb1: ngx_pgq: web1 is set up/, 'new sources are built, by who comes first');
is(join(' ', grep { slurp($_) ne $first{$_} } files($kept)), '', '... and secrets stay');

# ---- what is asked of the machines day by day, by a copy of provision/cluster/cluster that has no containers

mkdir "$dir/$_" for qw(copy copy/.vagrant copy/.vagrant/machines copy/.vagrant/machines/pg2 copy/.vagrant/machines/pg2/libvirt bin);
run([ 'cp', '-r', "$top/provision", "$dir/copy/" ]);
spew("$dir/copy/.vagrant/machines/pg2/libvirt/id", 'pg2');

# Of Vagrant's there is pg2 alone; as ssh does, it takes all of its input, whether that is for the command or not. On the
# machine commands say what they were given.
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

is(cluster('psql -c "select \'it\'\'s\'"'), "psql -d posts -c select 'it''s': \n", 'psql at the primary, while pg1 is gone');
is(cluster('psql <<< "select 1"'), "psql -d posts: select 1\n", '... which reads what it is given');
is(cluster('on pg3 true'), "The machine with the name 'pg3' was not found.\nstatus 1\n", 'a machine that is not there is said to be');

done_testing;
