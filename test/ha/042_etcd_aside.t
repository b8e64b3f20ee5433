# P3: the primary's host does not lead etcd: not when a host that does is promoted, nor when etcd comes to lead there later.

use Pgq;
use Pgq::Cluster;
use Pgq::Wait qw(poll_until);

my $cluster = Pgq::Cluster->new;
my @hosts   = map { $_->name } $cluster->databases;
my $timer   = sub { my ($what) = @_; $cluster->must($_, 'systemctl', $what, 'ngx_pgq_etcd_aside.timer') for @hosts };

sub lead_etcd {
    my ($host) = @_;
    my $now = $cluster->etcd_leader;
    my ($id) = map { /^(\w+).*https:\/\/$host:2380/ } split /\n/, $cluster->etcdctl($now, qw(member list));

    $cluster->etcdctl($now, 'move-leader', $id) if $now ne $host;
    is($cluster->etcd_leader, $host, 'etcd leads at a host');

    return;
}

# ---- which is promoted

ok($cluster->settled, 'all members are in their places');
$timer->('stop');

my $before = $cluster->leader;
my ($next) = $cluster->standbys;

lead_etcd($next);
$cluster->patronictl($before, qw(switchover ngx_pgq --force --candidate), $next);
is($cluster->leader, $next, 'which is promoted');
ok((poll_until { $cluster->etcd_leader ne $next } 10), 'then etcd leads elsewhere');

# ---- which has the primary

lead_etcd($next);
$timer->('start');
ok((poll_until { $cluster->etcd_leader ne $next } 20), 'not for long');

# ---- nor does a host make an etcd of its own while the others have a quorum

$cluster->must($before, qw(systemctl stop etcd));
my ($status, $out, $err) = $cluster->on($before, '/usr/local/lib/ngx_pgq/etcd_alone');
is($status, 1, 'a host whose etcd alone is down is no survivor');
like($err . $out, qr/etcd of pg\d answers: it is not lost/, 'and says why');
$cluster->must($before, qw(systemctl start etcd));
ok($cluster->settled, 'all members are in their places');

done_testing;
