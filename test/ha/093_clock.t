# P1, P3: the clock of the primary's Patroni and PostgreSQL jumps an hour ahead, then back, and further; etcd's, by whose
# timers leases run out, does not. They may be wrong about what they take from the clock, but not about who leads, and
# nothing is lost.

use Pgq;
use Pgq::ClusterTest;

my $cluster = Pgq::Cluster->new;
my ($host)  = $cluster->standbys;
ok($cluster->settled, 'all members are in their places');

my $lead = sub {
    $cluster->patronictl($host, qw(switchover ngx_pgq --force --candidate), $host) if $cluster->leader ne $host;
    is($cluster->leader, $host, 'it leads');
};

$cluster->clock($host, 0);
ok($cluster->settled(120), 'all members are in their places');

for my $offset (3600, -3600, 86_400, 0) {
    $lead->();
    my $test = Pgq::ClusterTest->new("the primary's clock at $offset s", target => 25);

    $test->round(sub {
        $cluster->clock($host, $offset);
        ok((poll_until { abs(($cluster->clock_of($host) // 1e9) - $offset) < 60 } 60), 'it has that time');
        $test->hold(30);
    });
    diag("$host led, " . $cluster->leader . ' leads');
    $test->end;
}

$cluster->true_clock($host);
ok($cluster->settled(120), 'all members are in their places');

done_testing;
