# P1: no standby is left. Messages that only one machine has are not acknowledged: none is accepted until a standby is
# back, and then all are.

use Pgq;
use Pgq::ClusterTest;

my $test     = Pgq::ClusterTest->new('PostgreSQL of both standbys frozen for ten seconds');
my $cluster  = $test->cluster;
my @standbys = $cluster->standbys;
my $control  = sub { my ($what) = @_; $cluster->must($_, 'systemctl', $what, 'patroni') for @standbys };

$test->round(sub {
    $control->('freeze');
    $test->accepts_nothing(10);
}, stops_load => 1, repair => sub { $control->('thaw') });

$test->end;

# ---- until Patroni has removed both: the primary keeps leading and still requires a standby

$test     = Pgq::ClusterTest->new('PostgreSQL of both standbys frozen for forty seconds', allow => 'refused|unknown|read_failed');
@standbys = $cluster->standbys;
my $leader = $cluster->leader;

$test->round(sub {
    $control->('freeze');
    $test->accepts_nothing(40);
    is($cluster->safe_psql('select count(*) from pg_stat_replication'), 0, 'no standby is connected');
    is($cluster->leader, $leader, 'the primary keeps leading');
    like($cluster->safe_psql('show synchronous_standby_names'), qr/^(?:ANY 1 \(.+\)|\*)$/, 'commits wait for a standby when none is connected');
}, stops_load => 1, repair => sub { $control->('thaw') });

$test->end;

# ---- with their hosts and etcd's quorum, for longer than a client waits

$test     = Pgq::ClusterTest->new('hosts of both standbys off', allow => 'refused|unknown|read_failed|timeout');
@standbys = $cluster->standbys;

$test->round(sub {
    $cluster->do_to(off => @standbys);
    $test->accepts_nothing(40);
}, stops_load => 1, repair => sub { $cluster->do_to(up => @standbys) });

$test->end;

done_testing;
