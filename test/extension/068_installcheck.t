# A copy of pg_extension/ can be built, installed and tested on a running server without the rest of the repository.

use Pgq;

plan skip_all => 'an instrumented run uses another build' if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};

my $version = Pgq::Host::pg_version();
my $dir     = Pgq::Host::temp_dir('packager');
my $copy  = "$dir/ngx_pgq";
my $config  = "$dir/pg$version/usr/lib/postgresql/$version/bin/pg_config";
my %clean   = map { $_ => undef } grep { /^(?:PG|MAKE|MFLAGS|PERL5LIB)/ } keys %ENV;

# Runs a command in the copied directory, checks that it succeeds, and returns its output.
sub succeeds {
    my ($name, $command, %option) = @_;
    my ($status, $out, $err) = Pgq::Host::run($command, cwd => $copy, timeout => timeout(300), %option, env => { %clean, %{ $option{env} || {} } });

    ok(!$status, $name) || diag(substr "$out$err", -4000);
    return $out;
}

# A PostgreSQL without ngx_pgq whose pg_config installs into this test's directory.
system('cp', '-r', Pgq::Host::top() . '/pg_extension', $copy) == 0 or die "cp: $?\n";
mkdir "$dir/empty";
succeeds('PostgreSQL is copied', [ Pgq::Host::top() . '/provision/dev/private-install', "/usr/lib/postgresql/$version/bin/pg_config", "$dir/empty", "$dir/pg$version" ]);
unlink map { glob "$dir/pg$version/usr/share/postgresql/$version/extension/ngx_pgq$_" } '.control', '--*.sql';

my @make = ('make', '-s', "PG_CONFIG=$config", 'with_llvm=no');
succeeds('make builds the extension', [@make]);
succeeds('make install succeeds', [ @make, 'install' ]);

local $ENV{PGQ_BUILD} = $dir;
my $pg = Pgq::Postgres->new(bare => 1, database => 'contrib_regression')->start;
system('chown', '-R', Pgq::Host::server_user(), $copy) == 0 or die "chown: $?\n";
my $out = succeeds('make installcheck succeeds', [ @make, 'installcheck' ], user => Pgq::Host::server_user(),
    env => { PGHOST => $pg->socket, PGPORT => $pg->port, PGUSER => 'postgres' });
like($out, qr/regress install-check.*isolation install-check.*tap install-check.*Result: PASS/s, 'make installcheck runs the regression, isolation and TAP tests');

done_testing;
