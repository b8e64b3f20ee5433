# Runs the steps of several sessions in fixed orders: PostgreSQL's isolationtester runs each spec in specs/ and must print
# the file in expected/. The specs of pg_extension/ are run, too.

use Pgq;

my $dir    = Pgq::Host::top() . '/test/isolation';
my $tester = '/usr/lib/postgresql/' . Pgq::Host::pg_version() . '/lib/pgxs/src/test/isolation/isolationtester';
my @specs  = sort map { glob "$_/specs/*.spec" } $dir, Pgq::Host::top() . '/pg_extension';

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nmax_prepared_transactions = 8\nlc_messages = C\n")->start;
my ($failed, undef, $error) = $pg->psql(undef, file => "$dir/helper.sql");
die $error if $failed;

my $out = Pgq::Host::temp_dir('isolation');
my %clean = map { $_ => undef } grep { /^PG(?!Q_|VERSION)/ } keys %ENV;

for my $spec (@specs) {
    my ($in, $name) = $spec =~ m{(.*)/specs/(.*)\.spec$};
    my ($status, $text, $errors) = Pgq::Host::run([ $tester, $pg->conninfo ], in => Pgq::Host::slurp($spec), env => \%clean);
    my $expected = "$in/expected/$name.out";
    Pgq::Host::spew("$out/$name.out", $text, $errors);

    my (undef, $difference) = Pgq::Host::run([ 'diff', '-u', -e $expected ? $expected : '/dev/null', "$out/$name.out" ]);
    ok(!$status && $difference eq '', "$name: the output is the expected one") or diag("status $status\n$difference");
}

cmp_ok(scalar @specs, '>=', 1, 'specs are found');

done_testing;
