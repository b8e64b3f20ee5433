# P1, P2: the primary has written WAL that no standby has, none of it acknowledged, and loses power. When it is back
# it has diverged from the others: Patroni rewinds it, and what only it had does not appear.

use Pgq;
use Pgq::ClusterTest;

my $test     = Pgq::ClusterTest->new('old primary rewound', allow => 'unknown|refused|read_failed');
my $cluster  = $test->cluster;
my @standbys = $cluster->standbys;
my $since    = time;

my $leader = $test->takeover(sub {
    my ($leader) = @_;

    $cluster->partition($leader, both => @standbys, 'tcp dport 5432', 'tcp sport 5432');
    $test->accepts_nothing(2);
    $cluster->safe_psql("set synchronous_commit = local; create table not_replicated (n int)");
    $cluster->do_to(off => $leader);
}, repair => sub { $cluster->do_to(up => @_) });

like($cluster->log_since($leader, $since), qr/running pg_rewind/, 'Patroni runs pg_rewind on the old primary');
is($cluster->must($leader, qw(runuser -u postgres -- psql -d posts -XAtc), "select to_regclass('not_replicated') is null"), 't',
    'what only the old primary had is gone');

$test->end;

done_testing;
