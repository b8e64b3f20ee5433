# P3: a standby is away for longer than its WAL is kept. The primary does not keep all of it, and so does not fill its
# disk. The standby says what it lacks, and is copied anew by the command that the runbook names.

use Pgq;
use Pgq::ClusterTest;

my $test      = Pgq::ClusterTest->new('standby away longer than WAL is kept', target => 10);
my $cluster   = $test->cluster;
my $leader    = $cluster->leader;
my ($standby) = $cluster->standbys;
my $since     = '@' . time;
my $keep      = sub {
    my ($keep, $slots) = @_;
    $cluster->patronictl($leader, qw(edit-config --force --quiet), '-p', "wal_keep_size=$keep", '-p', "max_slot_wal_keep_size=$slots");
    ok($cluster->poll_query_until("select current_setting('max_slot_wal_keep_size')", $slots), "WAL of $slots is kept");
};

# The bounds that are shipped would take 4 GB; these take the same way.
$keep->('16MB', '64MB');

$test->round(sub {
    $cluster->do_to(off => $standby);
    for (1 .. 12) {
        $cluster->safe_psql("select pg_logical_emit_message(true, 'away', ''); select pg_switch_wal()");
    }
    ok($cluster->poll_query_until("checkpoint; select wal_status in ('lost', 'unreserved') from pg_replication_slots where slot_name = '$standby'", 't'),
        'what it lacks is gone');
}, repair => sub {
    $cluster->do_to(up => $standby);
    ok((poll_until {
        $cluster->must($standby, qw(journalctl -q -o cat -u patroni), "--since=$since") =~ /requested WAL segment \w+ has already been removed/
    } 60), 'it says so');
    $cluster->patronictl($leader, qw(reinit --force --wait ngx_pgq), $standby);
});

$keep->('1GB', '4GB');
$test->end;

done_testing;
