# P10: each host of the cluster is shut down and started in turn: the standbys, the primary after a switchover, the
# web hosts. Clients that know both web hosts see no error.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new('rolling restart of the database hosts', target => 5);
my $cluster = $test->cluster;
my $restart = sub { my ($host) = @_; $cluster->do_to(down => $host); $cluster->do_to(up => $host) };

for my $standby ($cluster->standbys) {
    $test->round(sub { $restart->($standby) });
}

my $leader = $cluster->leader;
$test->round(sub { ok($cluster->switchover, 'the switchover succeeds'); $restart->($leader) });
$test->end;

# ---- web hosts

$test = Pgq::ClusterTest->new('rolling restart of the web hosts', allow => 'closed|unreachable|reader .*', gap => { kind => qr/failover/ });

for my $web ($cluster->webs) {
    $test->round(sub { $restart->($web->name) });
}

$test->end;

done_testing;
