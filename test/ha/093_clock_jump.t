# P1, P3: the clock of Patroni and PostgreSQL on the primary's host jumps an hour ahead, back, and a day ahead. The
# clock of etcd, which times the leases, does not. There is one leader at all times, and no message is lost.

use Pgq;
use Pgq::ClusterTest;

my $cluster = Pgq::Cluster->new;
my ($host)  = $cluster->standbys;
ok($cluster->settled, 'each member is the primary or a synchronous standby');

my $lead = sub {
    $cluster->patronictl($host, qw(switchover ngx_pgq --force --candidate), $host) if $cluster->leader ne $host;
    is($cluster->leader, $host, "$host leads");
};

$cluster->clock($host, 0);
ok($cluster->settled(120), 'each member is the primary or a synchronous standby');

for my $offset (3600, -3600, 86_400, 0) {
    $lead->();
    my $test = Pgq::ClusterTest->new("the primary's clock at $offset s", target => 25);

    $test->round(sub {
        $cluster->clock($host, $offset);
        ok((poll_until { abs(($cluster->clock_of($host) // 1e9) - $offset) < 60 } 60), "the clock of $host is off by $offset s");
        $test->hold(30);
    });
    diag("$host led, " . $cluster->leader . ' leads');
    $test->end;
}

$cluster->true_clock($host);
ok($cluster->settled(120), 'each member is the primary or a synchronous standby');

done_testing;
