# Sessions and movers in fixed orders: each spec in specs/ runs under PostgreSQL's isolationtester and must print what is
# in expected/. The specs of pg_extension/ are run, too.

use Pgq;

my $dir    = Pgq::Host::top() . '/test/isolation';
my $tester = '/usr/lib/postgresql/' . Pgq::Host::pg_version() . '/lib/pgxs/src/test/isolation/isolationtester';
my @specs  = sort map { glob "$_/specs/*.spec" } $dir, Pgq::Host::top() . '/pg_extension';

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nmax_prepared_transactions = 8\nlc_messages = C\n")->start;
my ($status, undef, $error) = $pg->psql(undef, file => "$dir/helper.sql");
die $error if $status;

my $out = Pgq::Host::temp_dir('isolation');
my %clean = map { $_ => undef } grep { /^PG(?!Q_|VERSION)/ } keys %ENV;

for my $spec (@specs) {
    my ($in, $name) = $spec =~ m{(.*)/specs/(.*)\.spec$};
    my ($ended, $text, $said) = Pgq::Host::run([ $tester, $pg->conninfo ], in => Pgq::Host::slurp($spec), env => \%clean);
    my $expected = "$in/expected/$name.out";
    Pgq::Host::spew("$out/$name.out", $text, $said);

    my (undef, $difference) = Pgq::Host::run([ 'diff', '-u', -e $expected ? $expected : '/dev/null', "$out/$name.out" ]);
    ok(!$ended && $difference eq '', "$name: the output is the expected one") or diag("status $ended\n$difference");
}

cmp_ok(scalar @specs, '>=', 1, 'specs are found');

done_testing;
