# P3: a standby is off for longer than its WAL is kept. The primary removes that WAL, and so does not fill its disk.
# The standby logs what it lacks, and the command of the runbook copies it again.

use Pgq;
use Pgq::ClusterTest;

my $test      = Pgq::ClusterTest->new('standby off for longer than its WAL is kept', target => 10);
my $cluster   = $test->cluster;
my $leader    = $cluster->leader;
my ($standby) = $cluster->standbys;
my $since     = time;
my $keep      = sub {
    my ($keep, $slots) = @_;
    $cluster->patronictl($leader, qw(edit-config --force --quiet), '-p', "wal_keep_size=$keep", '-p', "max_slot_wal_keep_size=$slots");
    ok($cluster->poll_query_until("select current_setting('max_slot_wal_keep_size')", $slots), "slots keep at most $slots of WAL");
};

# The shipped limits would need 4 GB of WAL.
$keep->('16MB', '64MB');

$test->round(sub {
    $cluster->do_to(off => $standby);
    for (1 .. 12) {
        $cluster->safe_psql("select pg_logical_emit_message(true, 'away', ''); select pg_switch_wal()");
    }
    ok($cluster->poll_query_until("checkpoint; select wal_status in ('lost', 'unreserved') from pg_replication_slots where slot_name = '$standby'", 't'),
        'the primary removes WAL that the standby lacks');
}, repair => sub {
    $cluster->do_to(up => $standby);
    ok((poll_until {
        $cluster->log_since($standby, $since) =~ /requested WAL segment \w+ has already been removed/
    } 60), 'the standby logs that a WAL segment has been removed');
    $cluster->patronictl($leader, qw(reinit --force --wait ngx_pgq), $standby);
});

$keep->('1GB', '4GB');
$test->end;

done_testing;
