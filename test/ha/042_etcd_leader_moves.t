# P3: etcd on the primary's host does not stay the leader of etcd: the leader moves to another host when its host is
# promoted, and when it is elected on the primary's host later.

use Pgq;
use Pgq::Cluster;

my $cluster = Pgq::Cluster->new;
my @hosts   = map { $_->name } $cluster->databases;
my $timer   = sub { my ($what) = @_; $cluster->must($_, 'systemctl', $what, 'ngx_pgq_etcd_aside.timer') for @hosts };

sub lead_etcd {
    my ($host) = @_;
    my $now = $cluster->etcd_leader;
    my ($id) = map { /^(\w+).*https:\/\/$host:2380/ } split /\n/, $cluster->etcdctl($now, qw(member list));

    $cluster->etcdctl($now, 'move-leader', $id) if $now ne $host;
    is($cluster->etcd_leader, $host, "etcd on $host leads");

    return;
}

# ---- the host that leads etcd is promoted

ok($cluster->settled, 'each member is the primary or a synchronous standby');
$timer->('stop');

my $before = $cluster->leader;
my ($next) = $cluster->standbys;

lead_etcd($next);
$cluster->patronictl($before, qw(switchover ngx_pgq --force --candidate), $next);
is($cluster->leader, $next, 'the switchover promotes the host that leads etcd');
ok((poll_until { $cluster->etcd_leader ne $next } 10), 'after the promotion etcd leads on another host');

# ---- etcd on the primary's host becomes the leader

lead_etcd($next);
$timer->('start');
ok((poll_until { $cluster->etcd_leader ne $next } 20), 'etcd leads on another host than the primary within seconds');

# ---- a host does not make a new etcd cluster while the others have a quorum

$cluster->must($before, qw(systemctl stop etcd));
my ($status, $out, $err) = $cluster->on($before, '/usr/local/lib/ngx_pgq/etcd_alone');
is($status, 1, 'etcd_alone refuses while the other members of etcd run');
like($err . $out, qr/etcd of pg\d answers: it is not lost/, 'etcd_alone says which member of etcd answers');
$cluster->must($before, qw(systemctl start etcd));
ok($cluster->settled, 'all members have their roles again');

done_testing;
