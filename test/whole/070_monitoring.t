# P10: the files of monitoring/ work with Prometheus. Each alert is tested both ways, each metric exists, and make run-stats
# loads all of it.

use Pgq;
use Pgq::Host qw(run top slurp spew temp_dir free_port pg_version has_program);
use Cwd qw(realpath);
use JSON::PP;

plan skip_all => 'make check-others' if !$ENV{PGQ_OTHERS};
has_program($_) for qw(promtool prometheus prometheus-node-exporter jq haproxy);

my $dir     = top() . '/monitoring';
my $scratch = temp_dir('monitoring');

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

# ---- the configuration, and the rules of Grafana's linter

is(text(qw(promtool check config --syntax-only prometheus.yml)), '', 'promtool accepts the configuration');

sub lint {
    my ($change) = @_;
    my ($status, $out, $err) = run([ 'sh', '-c', 'jq "$1" dashboard.json | jq -r -f "$2"', 'sh', $change, top() . '/test/tools/dashboard-lint.jq' ], cwd => $dir);

    die $err if $status;

    return $out;
}

is(lint('.'), '', 'the dashboard follows the rules of the linter');

for my $change (
    '.editable = true', '.templating.list[0].name = "ds"', 'del(.templating.list[2])', '.templating.list[1].label = ""',
    '.templating.list[1].type = "custom"', '.templating.list[1].datasource.uid = "x"', '.templating.list[1].multi = false',
    '.templating.list[1].refresh = 1', '.panels[3].description = ""', '.panels[3].datasource.uid = "x"',
    '.panels[3].fieldConfig.defaults.unit = "seconds"', '.panels[3].targets = []', '.panels[3].targets[0].expr = "1"',
    '.panels[0].targets[0].expr |= sub("job=~[^,]*, "; "")', '.panels[0].targets[0].expr |= sub(", instance[^}]*"; "")',
    '.panels[0].targets[0].expr |= sub("\\\\$__rate_interval"; "5m")', '.panels[0].targets[0].expr |= sub("rate"; "delta")',
) {
    isnt(lint($change), '', "the linter notices: $change");
}

my $dashboard = decode_json(slurp("$dir/dashboard.json"));
my @queries   = map { $_->{expr} } map { @{ $_->{targets} } } @{ $dashboard->{panels} };
my $rules     = { groups => [ { name => 'dashboard', rules => [ map { { record => 'a', expr => s/\$__rate_interval/1m/gr } } @queries ] } ] };
is(text(qw(promtool check rules --lint=none), spew("$scratch/dashboard.yml", encode_json($rules))), '', 'each query of the dashboard is valid');

# ---- metrics: each one that a file names is in a scrape

sub families {
    my ($scrape) = @_;
    my %type = $scrape =~ /^# TYPE (\w+) (\w+)$/mg;

    return map { my $name = $_; ($name, $type{$name} eq 'histogram' ? map { "${name}_$_" } qw(bucket sum count) : ()) } keys %type;
}

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, ring => '', locations => 'location = /metrics { pgq_metrics main; }')->start;
$pg->safe_psql(q{select ngx_pgq.subscribe('billing')});
poll_until { Pgq::Client->new($nginx)->get('/metrics')->body =~ /^pgq_database_up 1$/m };
my %there = map { $_ => 1 } families(Pgq::Client->new($nginx)->get('/metrics')->body);

for my $file (qw(rules.yml dashboard.json console.html)) {
    my %named = map { $_ => 1 } slurp("$dir/$file") =~ /\b(pgq_[a-z_]+)\b/g;
    cmp_ok(scalar keys %named, '>', 2, "the metrics of $file are found");
    is(join(' ', grep { !$there{$_} } sort keys %named), '', "every metric of ngx_pgq in $file exists");
}

# ---- HAProxy, with the frontend of a web host. Those of Patroni and etcd are compared on a cluster: test/ha/012_access.t.

my $at = free_port();
my ($frontend) = slurp(top() . '/haproxy/haproxy.cfg.in') =~ /^(frontend metrics.*?)^listen/ms;
my $haproxy = Pgq::Host::spawn([ 'haproxy', '-db', '-f', spew("$scratch/haproxy.cfg", <<"END") ]);
defaults
    timeout client 9s
    timeout connect 9s
    timeout server 9s
@{[ $frontend =~ s/\@ADDRESS\@:8404/127.0.0.1:$at/r ]}
listen primary
    mode tcp
    bind 127.0.0.1:@{[ free_port() ]}
    server pg1 127.0.0.1:9
END

my $scrape = poll_until { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $at) && Pgq::Client->new($at)->get('/metrics')->body };
@there{ families($scrape) } = ();
is(join(' ', grep { !exists $there{$_} } slurp("$dir/rules.yml") =~ /\b(haproxy_\w+)/g), '', 'every metric of HAProxy in the rules exists');
is(Pgq::Client->new($at)->get('/')->status, 404, 'HAProxy serves nothing else there');
Pgq::Host::kill_all('TERM', $haproxy);

# ---- make run-stats, in a copy of the repository with links to the build

my $tree = "$scratch/tree";
my ($port, $stats) = (free_port(), free_port());
my %env = (PORT => $port, MONITOR => free_port(), STATS => $stats, LISTEN => '127.0.0.1', PGVERSION => pg_version(), MAKEFLAGS => undef, MAKELEVEL => undef,
    map { $_ => undef } grep { /^(?:PG(?!VERSION)|DB_)/ } keys %ENV);

mkdir $tree;
run([ 'sh', '-c', 'tar -C "$1" --exclude=./build --exclude=./run --exclude=./.git --exclude=./.vagrant -c . | tar -C "$2" -x', 'sh', top(), $tree ]);
mkdir "$tree/build";
symlink realpath($_), "$tree/build/" . s{.*/}{}r for glob top() . '/build/*';

sub in_tree { my ($status, $out, $err) = run(\@_, cwd => $tree, env => \%env); return $status ? "$out$err" : '' }

sub api { return Pgq::Client->new($stats)->get("/api/v1/$_[0]")->json->{data} }

sub result { return api('query?query=' . ($_[0] =~ s/([^\w])/sprintf '%%%02X', ord $1/ger))->{result} }

is(in_tree(qw(provision/dev/run start)), '', 'the servers of make run start');
is(in_tree(qw(provision/dev/stats start)), '', 'make run-stats starts Prometheus');

my %health;
poll_until { %health = map { $_->{labels}{job} => $_->{health} } @{ api('targets')->{activeTargets} }; 2 == grep { $_ eq 'up' } values %health };
is_deeply(\%health, { ngx_pgq => 'up', node => 'up' }, 'Prometheus scrapes nginx and this host');
is(scalar(map { @{ $_->{rules} } } @{ api('rules')->{groups} }), scalar @alerts, 'Prometheus has loaded the alerts');
is(result('sum(pgq_messages_total)')->[0]{value}[1], 3, 'Prometheus has the messages of make run');

my @missing = grep { !@{ result($_) } } map { /\b(node_\w+)\b/g } slurp("$dir/rules.yml");
is("@missing", '', 'every metric of node exporter in the rules exists');

is(Pgq::Client->new($port)->method('PUT', '/sub/billing')->status, 201, 'a subscription is created');
poll_until { @{ result('pgq_subscription_oldest_seconds') } };

my $console = Pgq::Client->new($stats)->get('/consoles/console.html');
is($console->status, 200, 'Prometheus shows the console');
like($console->body, qr{<td>messages not yet moved</td><td>0</td>.*<td>movers: idle</td><td>1</td>}s, 'the console has numbers');
like($console->body, qr{<td>billing</td>\s+<td>0</td>\s+<td>0s</td>\s+<td>0</td>}, 'it has the subscription');

is(in_tree(qw(provision/dev/stats stop)), '', 'make stop stops Prometheus');
is(in_tree(qw(provision/dev/run stop)), '', 'make stop stops the servers');
ok(!IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $stats), 'Prometheus has stopped');

done_testing;
