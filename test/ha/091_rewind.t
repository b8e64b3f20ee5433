# P1, P2: the primary has written what no standby has, nothing of it acknowledged, and is gone. When it is back its WAL
# has parted from the others': it is rewound by itself, and none of that appears.

use Pgq;
use Pgq::ClusterTest;

my $test     = Pgq::ClusterTest->new('old primary rewound', allow => 'unknown|refused|read_failed');
my $cluster  = $test->cluster;
my @standbys = $cluster->standbys;
my $since    = '@' . time;

my $leader = $test->takeover(sub {
    my ($leader) = @_;

    $cluster->partition($leader, both => @standbys, 'tcp dport 5432', 'tcp sport 5432');
    $test->accepts_nothing(2);
    $cluster->safe_psql("set synchronous_commit = local; create table not_replicated (n int)");
    $cluster->do_to(off => $leader);
}, repair => sub { $cluster->do_to(up => @_) });

like($cluster->must($leader, qw(journalctl -q -o cat -u patroni), "--since=$since"), qr/running pg_rewind/, 'the old one was rewound');
is($cluster->must($leader, qw(runuser -u postgres -- psql -d posts -XAtc), "select to_regclass('not_replicated') is null"), 't',
    'and what it alone had is gone');

$test->end;

done_testing;
