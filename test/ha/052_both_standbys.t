# P1: no standby is left. What only one machine has is not acknowledged: no 202, and when a standby is back, all of them.

use Pgq;
use Pgq::ClusterTest;

my $test     = Pgq::ClusterTest->new('PostgreSQL of both standbys frozen for ten seconds');
my $cluster  = $test->cluster;
my @standbys = $cluster->standbys;
my $stand    = sub { my ($what) = @_; $cluster->must($_, 'systemctl', $what, 'patroni') for @standbys };

$test->round(sub {
    $stand->('freeze');
    $test->accepts_nothing(10);
}, stops_load => 1, repair => sub { $stand->('thaw') });

$test->end;

# ---- until Patroni has given both up: the primary goes on to lead, and asks for a standby all the same

$test     = Pgq::ClusterTest->new('PostgreSQL of both standbys frozen for forty seconds', allow => 'refused|unknown|read_failed');
@standbys = $cluster->standbys;
my $leader = $cluster->leader;

$test->round(sub {
    $stand->('freeze');
    $test->accepts_nothing(40);
    is($cluster->safe_psql('select count(*) from pg_stat_replication'), 0, 'no standby is left');
    is($cluster->leader, $leader, 'the same member leads');
    like($cluster->safe_psql('show synchronous_standby_names'), qr/^(?:ANY 1 \(.+\)|\*)$/, 'and commits wait for a standby');
}, stops_load => 1, repair => sub { $stand->('thaw') });

$test->end;

# ---- with their hosts, and so with etcd's quorum, for longer than a client waits

$test     = Pgq::ClusterTest->new('hosts of both standbys off', allow => 'refused|unknown|read_failed|timeout');
@standbys = $cluster->standbys;

$test->round(sub {
    $cluster->do_to(off => @standbys);
    $test->accepts_nothing(40);
}, stops_load => 1, repair => sub { $cluster->do_to(up => @standbys) });

$test->end;

done_testing;
