# P1: a primary stood still, another one took over and acknowledged more; then the lock is back at the first, as it is when
# etcd lets go of it. Nobody gives up what was acknowledged: there is no 202 until somebody has said who is right. Who reads
# meanwhile reads at the first, what it alone has, too.

use Pgq;
use Pgq::Host qw(run top);
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new('lock taken back by a primary that stood still', allow => 'refused|unknown|read_failed|timeout',
    load => { reader => 0 });
my $cluster = $test->cluster;
my $signal  = sub { my ($signal, @hosts) = @_; $cluster->must($_, qw(systemctl kill --kill-whom=main), "--signal=$signal", 'patroni') for @hosts };
my $since   = '@' . time;
my ($old, $new) = $cluster->leader;

$test->round(sub {
    $cluster->do_to(freeze => $old);
    ok($test->load_runs, 'a second primary');
    $new = $cluster->leader;
    isnt($new, $old, 'which is another member');

    # the lock is the first one's again while nobody looks
    my @others = grep { $_ ne $old } map { $_->name } $cluster->databases;
    $signal->(STOP => @others);
    my ($lease) = $cluster->etcdctl($new, qw(lease grant 60)) =~ /^lease (\w+) granted/;
    $cluster->etcdctl($new, qw(put /service/ngx_pgq/leader), $old, "--lease=$lease");

    my $thawed = '@' . time;
    $cluster->do_to(thaw => $old);
    ok((poll_until { $cluster->must($old, qw(journalctl -q -o cat -u patroni), "--since=$thawed") =~ /the leader with the lock/ } 30), 'the first one takes it');
    $signal->(CONT => @others);

    for my $host (@others) {
        ok((poll_until { $cluster->must($host, qw(journalctl -q -o cat -u patroni), "--since=$since") =~ /the primary on \d+, which is older/ } 60),
            "$host stays as it is");
    }
    $test->accepts_nothing(10);
}, stops_load => 1, repair => sub {
    isnt((run([ top() . '/provision/cluster/cluster', reinit => $new ]))[0], 0, 'make cluster-reinit does not throw away what the second one acknowledged');
    my ($status, $out, $err) = run([ top() . '/provision/cluster/cluster', failover => $new ]);
    is($status, 0, 'make cluster-failover lets it lead, as it provably has everything') or diag("$out$err");
});

is($cluster->leader, $new, 'the second one leads again');
$test->end;

done_testing;
