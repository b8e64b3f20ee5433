# pg_extension/ alone, copied to an empty directory, builds, installs and passes its own tests on a running server.

use Pgq;

plan skip_all => 'an instrumented run has a build of its own' if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};

my $version = Pgq::Host::pg_version();
my $dir     = Pgq::Host::temp_dir('packager');
my $folder  = "$dir/ngx_pgq";
my $config  = "$dir/pg$version/usr/lib/postgresql/$version/bin/pg_config";
my %clean   = map { $_ => undef } grep { /^(?:PG|MAKE|MFLAGS)/ } keys %ENV;

# Runs a command in the copied folder, and shows its output if it fails.
sub works {
    my ($name, $command, %option) = @_;
    my ($status, $out, $err) = Pgq::Host::run($command, cwd => $folder, timeout => timeout(300), %option, env => { %clean, %{ $option{env} || {} } });

    ok(!$status, $name) || diag(substr "$out$err", -4000);
    return $out;
}

# A PostgreSQL without ngx_pgq whose pg_config installs into this test's directory.
system('cp', '-r', Pgq::Host::top() . '/pg_extension', $folder) == 0 or die "cp: $?\n";
mkdir "$dir/nothing";
works('PostgreSQL is copied', [ Pgq::Host::top() . '/provision/dev/private-install', "/usr/lib/postgresql/$version/bin/pg_config", "$dir/nothing", "$dir/pg$version" ]);
unlink map { glob "$dir/pg$version/usr/share/postgresql/$version/extension/ngx_pgq$_" } '.control', '--*.sql';

my @make = ('make', '-s', "PG_CONFIG=$config", 'with_llvm=no');
works('make builds the extension',    [@make]);
works('make install succeeds',   [ @make, 'install' ]);

local $ENV{PGQ_BUILD} = $dir;
my $pg = Pgq::Postgres->new(bare => 1, database => 'contrib_regression')->start;
system('chown', '-R', Pgq::Host::server_user(), $folder) == 0 or die "chown: $?\n";
my $out = works('make installcheck succeeds', [ @make, 'installcheck' ], user => Pgq::Host::server_user(),
    env => { PGHOST => $pg->socket, PGPORT => $pg->port, PGUSER => 'postgres' });
like($out, qr/regress install-check.*isolation install-check.*tap install-check.*Result: PASS/s, 'make installcheck runs the regression, isolation and TAP tests');

done_testing;
