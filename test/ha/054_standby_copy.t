# P1: the only standby is frozen while another one is being copied. WAL that an unfinished copy has received does not
# count: no message is acknowledged because of it.

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
    ok($cluster->poll_query_until($copies, 2), 'pg_basebackup copies data and streams WAL');
    $cluster->must($frozen, qw(systemctl freeze patroni));
    ok($cluster->poll_query_until("select current_setting('synchronous_standby_names') ~ '[*]'", 't', 60), 'synchronous_standby_names accepts any standby');

    # A copy reports complete segments only.
    $cluster->safe_psql("set synchronous_commit = local; select pg_logical_emit_message(true, 'copy', ''); select pg_switch_wal()");
    $test->accepts_nothing(15);
    is($cluster->safe_psql($copies), 2, 'the copy is not finished');
}, stops_load => 1, repair => sub {
    $rate->('/# 054$/d');
    $cluster->must($frozen, qw(systemctl thaw patroni));
});

$test->end;

done_testing;
