# P10: the files of monitoring/ work with Prometheus. Each alert is tested both ways, and each metric exists.

use Pgq;
use Pgq::Host qw(run top slurp has_program);

plan skip_all => 'make check-others' if !$ENV{PGQ_OTHERS};
has_program($_) for qw(promtool prometheus jq);

my $dir = top() . '/monitoring';

sub text { my ($status, $out, $err) = run(\@_, cwd => $dir); return $status ? "$out${err}status $status\n" : '' }

# ---- rules: each alert has a case with values with which nothing fires, then values with which this alert fires

is(text(qw(promtool check rules rules.yml)), '', 'promtool accepts the rules');
is(text(qw(promtool test rules rules.test.yml)), '', 'each alert fires in its case, and no other');

my @alerts = slurp("$dir/rules.yml") =~ /^ +- alert: (\w+)$/mg;
my @cases  = split /^  - name: /m, slurp("$dir/rules.test.yml");

for my $alert (@alerts) {
    my @case = grep { /exp_samples: \[\].*\{alertname="$alert"\}/s } @cases;
    is(scalar @case, 1, "$alert has a case, in which it does not fire at first");
}

# ---- metrics: each one that a file names is in a scrape

sub families {
    my ($scrape) = @_;
    my %type = $scrape =~ /^# TYPE (\w+) (\w+)$/mg;

    return map { my $name = $_; ($name, $type{$name} eq 'histogram' ? map { "${name}_$_" } qw(bucket sum count) : ()) } keys %type;
}

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, ring => '', locations => 'location = /metrics { pgq_metrics; }')->start;
my %there = map { $_ => 1 } families(Pgq::Client->new($nginx)->get('/metrics')->body);

for my $file (qw(rules.yml)) {
    my %named = map { $_ => 1 } slurp("$dir/$file") =~ /\b(pgq_[a-z_]+)\b/g;
    cmp_ok(scalar keys %named, '>', 2, "the metrics of $file are found");
    is(join(' ', grep { !$there{$_} } sort keys %named), '', "every metric of ngx_pgq in $file exists");
}

done_testing;
