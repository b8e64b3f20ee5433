# P10: etcd's data on one host is lost while its service is restarted again and again, which leaves a directory that
# looks like that of a member. `make cluster` asks the other members of etcd, and adds the host to them again.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new('etcd without its data', target => 5);
my $cluster = $test->cluster;
my ($host)  = grep { $_ ne $cluster->etcd_leader } $cluster->standbys;
$host //= ($cluster->standbys)[0];

sub healthy { return !($cluster->on($host, qw(/usr/local/lib/ngx_pgq/etcdctl endpoint health)))[0] }

my $before = $cluster->etcd_members;

$test->round(sub {
    $cluster->must($host, 'sh', '-c', 'systemctl kill --signal=KILL etcd; rm -rf /var/lib/etcd/ngx_pgq/*');
    ok((poll_until { ($cluster->on($host, 'ls', '/var/lib/etcd/ngx_pgq'))[1] =~ /member/ } timeout(30)), 'etcd creates a member directory again');
    ok(!healthy(), 'etcd without its data does not serve');
}, repair => sub {
    my ($status, $output) = $cluster->provision('start');
    is($status, 0, 'make cluster succeeds') or diag($output);
    ok(healthy(), 'etcd on this host serves again');
    is($cluster->etcd_members, $before, 'all hosts are voting members of etcd');
    my $starts = $cluster->must($host, qw(systemctl show -p NRestarts --value etcd));
    $test->hold(10);
    is($cluster->must($host, qw(systemctl show -p NRestarts --value etcd)), $starts, 'etcd is not restarted again');
    like($cluster->must($host, 'ls', '/var/lib/etcd'), qr/^ngx_pgq\.\d+T\d+Z$/m, 'the old data directory is kept under another name');
});

$test->end;

done_testing;
