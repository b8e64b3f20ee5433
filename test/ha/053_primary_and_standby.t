# P1: the primary and a standby are lost together. The other standby may lack messages that those two acknowledged: it
# is not promoted, with or without a quorum of etcd, until one of the two is back. Then no message is missing.

use Pgq;
use Pgq::ClusterTest;

for my $first (qw(standby primary)) {
    my $test    = Pgq::ClusterTest->new("primary and standby off, the $first back first", allow => 'refused|unknown|read_failed|timeout');
    my $cluster = $test->cluster;
    my %lost    = (primary => $cluster->leader, standby => ($cluster->standbys)[0]);
    my $second  = delete $lost{ $first eq 'primary' ? 'standby' : 'primary' };

    $test->round(sub {
        $cluster->do_to(off => $second, values %lost);
        $test->accepts_nothing(40);
        $cluster->do_to(up => values %lost);
    }, repair => sub { $cluster->do_to(up => $second) });

    $test->end;
}

# ---- etcd runs everywhere; the other standby belongs to the quorum of commits but lacks acknowledged messages

my $test    = Pgq::ClusterTest->new('primary and standby frozen, the other standby behind', allow => 'refused|unknown|read_failed|timeout');
my $cluster = $test->cluster;
my $leader  = $cluster->leader;
my ($standby, $behind) = $cluster->standbys;
my $control = sub { my ($what) = @_; $cluster->must($_, 'systemctl', $what, 'patroni') for $leader, $standby };
my $query   = sub { my ($sql) = @_; return $cluster->must($behind, qw(runuser -u postgres -- psql -d posts -XAtqc), $sql) };

$test->round(sub {
    $cluster->partition($behind, both => $leader, 'tcp dport 5432', 'tcp sport 5432');
    $test->hold(0.5);
    my $had = $test->accepted;
    ok($test->load_runs, 'while the other standby does not replicate messages are accepted');
    cmp_ok($test->accepted, '>', $had, 'messages are accepted that the other standby lacks');
    my $acknowledged = $cluster->safe_psql('select pg_current_wal_flush_lsn()');
    $control->('freeze');

    # End the connection for which the kernel of the frozen host may still have data to send.
    $cluster->must($behind, qw(pkill -TERM -f), 'postgres: .*walreceiver');
    $cluster->heal($behind);

    $test->accepts_nothing(40);
    is($query->("select pg_last_wal_replay_lsn() < '$acknowledged'"), 't', "$behind lacks acknowledged messages");
    is($query->('select pg_is_in_recovery()'), 't', "$behind has not been promoted");
    is($cluster->etcdctl($behind, qw(get --print-value-only /service/ngx_pgq/leader)), '', 'the leader lock has expired and no member holds it');
}, stops_load => 1, repair => sub { $control->('thaw') });

isnt($cluster->leader, $behind, 'a member that has all acknowledged messages leads');
$test->end;

done_testing;
