# P10: a monitoring host is added to a running cluster. Its Prometheus scrapes every host, and no alert fires while all is
# well. It starts at boot, and takes new rules. Only monitors reach it. Afterwards the host is removed.

use Pgq;
use Pgq::Cluster;
use Pgq::Host qw(run slurp top);

my $cluster = Pgq::Cluster->new;

ok($cluster->settled, 'one member leads and the others are synchronous standbys');
ok($cluster->must_provision('add monitor monitor1'), 'a monitoring host is added');
my ($status, $said) = $cluster->provision(qw(add monitor monitor2));
isnt($status, 0, 'a second one is refused');
like($said, qr/only one monitor host is possible/, 'the reason is said');

$cluster = Pgq::Cluster->new;    # of six hosts
my $monitor    = $cluster->host('monitor1');
my $prometheus = bless { %$monitor, port => 9090 }, ref $monitor;

sub api { return Pgq::Client->new($prometheus)->get("/api/v1/$_[0]")->json->{data} }

sub result { return @{ api('query?query=' . ($_[0] =~ s/([^\w])/sprintf '%%%02X', ord $1/ger))->{result} } }

sub reaches { my ($host, $port) = @_; return !($cluster->on($host, 'timeout', '2', 'bash', '-c', "exec 3<>/dev/tcp/$port"))[0] }

# The jobs of an instance that is scraped with success.
sub scraped {
    my %jobs;

    push @{ $jobs{ $_->{labels}{instance} =~ s/:.*//r } }, $_->{labels}{job} for grep { $_->{health} eq 'up' } @{ api('targets')->{activeTargets} };

    return { map { $_ => join ' ', sort @{ $jobs{$_} } } keys %jobs };
}

# ---- all is well

my %want = ((map { $_->name => 'etcd node patroni' } $cluster->databases), (map { $_->name => 'haproxy ngx_pgq node' } $cluster->webs), monitor1 => 'node');
my $count = 0;
$count += split / / for values %want;

ok((poll_until { $count == grep { $_->{health} eq 'up' } @{ (eval { api('targets') } // {})->{activeTargets} // [] } } 60), 'every target answers') or diag(explain(scraped()));
is_deeply(scraped(), \%want, 'Prometheus scrapes each program of each host');

my @rules = map { @{ $_->{rules} } } @{ api('rules')->{groups} };
is(scalar @rules, scalar(() = slurp(top() . '/monitoring/rules.yml') =~ /alert: /g), 'Prometheus has the alerts');
ok((poll_until { my ($scrapes) = result('min(count_over_time(up[10m]))'); $scrapes && $scrapes->{value}[1] > 9 } 240), 'every target is scraped for more than two minutes');
is(join(' ', map { "$_->{metric}{alertname} " . ($_->{metric}{instance} // '') } result('count_over_time(ALERTS{alertstate="firing"}[10m])')), '', 'no alert fires');
is(join(' ', map { $_->{health} } grep { $_->{health} ne 'ok' } map { @{ $_->{rules} } } @{ api('rules')->{groups} }), '', 'every rule is evaluated');
is(scalar(result('node_timex_sync_status')), 0, 'no container has a clock');

my $console = Pgq::Client->new($prometheus)->get('/consoles/console.html');
like($console->body, qr{<td>none</td>.*<td>web1:9180</td>.*<td>movers: idle</td><td>1</td>}s, 'the console shows no alert, and the state of the cluster');
like(($cluster->provision('status'))[1], qr/^monitor1: alerts: 0$/m, 'the status of the cluster shows the number of alerts');

# ---- access

my ($pg, $web) = map { $_->name } ($cluster->databases)[0], ($cluster->webs)[0];
ok(!reaches($pg, "monitor1/$_"), "a database host does not reach port $_ of the monitoring host") for 9090, 9100;
ok(!reaches($pg, "$web/9100"), 'a database host does not reach node exporter of another host');
ok(reaches('monitor1', "$pg/9100"), 'the monitoring host reaches node exporter');
ok(!reaches('monitor1', "$pg/$_"), "the monitoring host does not reach port $_ of a database host") for 2379, 5432;

# ---- alerts of a fault, new rules, boot

$cluster->must($web, qw(systemctl stop prometheus-node-exporter));
ok((poll_until { result(qq(ALERTS{alertstate="firing", alertname="TargetDown", instance="$web:9100"})) } 180), 'a target that is down raises its alert');
like(($cluster->provision('status'))[1], qr/^monitor1: alerts: 1\n! TargetDown, instance="$web:9100", job="node": see docs\/runbook\.md$/m, 'the status of the cluster shows the alert');
$cluster->must($web, qw(systemctl start prometheus-node-exporter));

$cluster->must('monitor1', 'sh', '-c', 'echo "groups: []" > /etc/prometheus/rules.yml; systemctl reload prometheus');
ok((poll_until { !@{ api('rules')->{groups} } } 30), 'Prometheus has other rules');
$cluster->must('monitor1', '/root/kit/provision/host/setup', 'monitor1', $monitor->address, 'monitor', split /\n/, slurp(top() . '/run/cluster/peers'));
ok((poll_until { @rules == map { @{ $_->{rules} } } @{ api('rules')->{groups} } } 30), 'setup restores the rules, and Prometheus loads them');

$cluster->do_to($_ => 'monitor1') for qw(off up);
ok((poll_until { (eval { result('count_over_time(up{job="node"}[10m]) > 9') } // 0) >= 6 } 60), 'after a power cut Prometheus starts, with the data that it had');
is(($cluster->on('monitor1', qw(systemctl is-active --quiet prometheus-node-exporter nftables)))[0], 0, 'so do node exporter and the firewall');

# ---- removed

like($cluster->must($pg, qw(nft list set inet ngx_pgq monitors)), qr/\Q@{[ $monitor->address ]}\E/, 'the firewall of a database host admits the monitoring host');
ok($cluster->must_provision('remove monitor1'), 'the monitoring host is removed');
unlike($cluster->must($pg, qw(nft list set inet ngx_pgq monitors)), qr/\Q@{[ $monitor->address ]}\E/, 'the firewall admits it no more');
ok($cluster->settled, 'all members have their roles');

done_testing;
