# P1: the primary and a standby are lost together. The one that is left may lack what those two had acknowledged: it
# does not take over, however long that lasts, be it that etcd has no quorum, or that it has. As soon as either is back
# nothing is missing.

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

# ---- etcd goes on everywhere, the one that is left provably lacks what was acknowledged, and is one of the quorum still

my $test    = Pgq::ClusterTest->new('primary and standby frozen, the other standby behind', allow => 'refused|unknown|read_failed|timeout');
my $cluster = $test->cluster;
my $leader  = $cluster->leader;
my ($standby, $behind) = $cluster->standbys;
my $state   = sub { my ($what) = @_; $cluster->must($_, 'systemctl', $what, 'patroni') for $leader, $standby };
my $asked   = sub { my ($sql) = @_; return $cluster->must($behind, qw(runuser -u postgres -- psql -d posts -XAtqc), $sql) };

$test->round(sub {
    $cluster->partition($behind, both => $leader, 'tcp dport 5432', 'tcp sport 5432');
    $test->hold(0.5);
    my $had = $test->accepted;
    ok($test->load_runs, 'acknowledged by two, and not at the third');
    cmp_ok($test->accepted, '>', $had, 'which lacks messages');
    my $acknowledged = $cluster->safe_psql('select pg_current_wal_flush_lsn()');
    $state->('freeze');

    # What the kernel of a host that is frozen has yet to send is for a connection that is no more.
    $cluster->must($behind, qw(pkill -TERM -f), 'postgres: .*walreceiver');
    $cluster->heal($behind);

    $test->accepts_nothing(40);
    is($asked->("select pg_last_wal_replay_lsn() < '$acknowledged'"), 't', "$behind lacks what was acknowledged");
    is($asked->('select pg_is_in_recovery()'), 't', "$behind has not been promoted");
    is($cluster->etcdctl($behind, qw(get --print-value-only /service/ngx_pgq/leader)), '', 'the lock has run out, and nobody has it');
}, stops_load => 1, repair => sub { $state->('thaw') });

isnt($cluster->leader, $behind, 'one of those that had them leads');
$test->end;

done_testing;
