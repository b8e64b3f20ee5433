# P1: the only standby there is stands still, and another is being copied anew. What a copy under way has received is no
# use to anybody before the copy is whole: no 202 rests on it.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new('a standby is copied while the other one is frozen', allow => 'refused|unknown|read_failed');
my $cluster = $test->cluster;
my ($copied, $frozen) = $cluster->standbys;
my $rate    = sub {
    my ($edit) = @_;
    $cluster->must($copied, 'sh', '-c', "sed -i '$edit' /etc/patroni/config.yml && systemctl reload patroni");
};
my $copies  = "select count(*) from pg_stat_replication where application_name = 'pg_basebackup'";

$test->round(sub {
    $rate->('s/^\(  *\)- checkpoint: fast.*/&\n\1- max-rate: 512k  # 054/');
    $cluster->patronictl($cluster->leader, qw(reinit --force ngx_pgq), $copied);
    ok($cluster->poll_query_until($copies, 2), 'a copy is made: its data, and its WAL');
    $cluster->must($frozen, qw(systemctl freeze patroni));
    ok($cluster->poll_query_until("select current_setting('synchronous_standby_names') ~ '[*]'", 't', 60), 'any standby would do');

    # A segment that is whole is what a copy tells of.
    $cluster->safe_psql("set synchronous_commit = local; select pg_logical_emit_message(true, 'copy', ''); select pg_switch_wal()");
    $test->accepts_nothing(15);
    is($cluster->safe_psql($copies), 2, 'it is not ready yet');
}, stops_load => 1, repair => sub {
    $rate->('/# 054$/d');
    $cluster->must($frozen, qw(systemctl thaw patroni));
});

$test->end;

done_testing;
