# P1, P3: the primary cannot send to etcd on other hosts, cannot receive from it, or both; all other connections work.
# The primary may keep leading, since it reaches its standbys, or another member may take over. There is one primary,
# and messages are accepted.

use Pgq;
use Pgq::ClusterTest;

for my $way (qw(in out both)) {
    my $test    = Pgq::ClusterTest->new("primary cut from etcd ($way)", target => 20);
    my $cluster  = $test->cluster;
    my $leader   = $cluster->leader;
    my @standbys = $cluster->standbys;

    $test->round(sub {
        $cluster->partition($leader, $way, @standbys, 'tcp dport { 2379, 2380 }', 'tcp sport { 2379, 2380 }');
        ok((poll_until { ($cluster->on($leader, qw(/usr/local/lib/ngx_pgq/etcdctl endpoint health)))[0] } 30), "etcd on $leader has no quorum");
        $test->hold(30);
    }, repair => sub { $cluster->heal($leader) });

    diag("$leader led, " . $cluster->leader . ' leads');
    $test->end;
}

done_testing;
