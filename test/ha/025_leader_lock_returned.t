# P1: a frozen primary is replaced by a second one, which acknowledges more messages. Then etcd gives the leader lock
# back to the first one, as after a loss of etcd's data. No acknowledged message is given up: nothing is accepted
# until an operator decides which one leads. The first one then has posts that disappear later; so the load has no
# readers.

use Pgq;
use Pgq::ClusterTest;

my $test    = Pgq::ClusterTest->new('leader lock given back to a frozen primary', allow => 'refused|unknown|read_failed|timeout',
    load => { reader => 0 });
my $cluster = $test->cluster;
my $signal  = sub { my ($signal, @hosts) = @_; $cluster->must($_, qw(systemctl kill --kill-whom=main), "--signal=$signal", 'patroni') for @hosts };
my $since   = time;
my ($old, $new) = $cluster->leader;

$test->round(sub {
    $cluster->do_to(freeze => $old);
    ok($test->load_runs, 'while the first primary is frozen messages are accepted');
    $new = $cluster->leader;
    isnt($new, $old, 'while the first primary is frozen another member leads');

    # give the lock to the first primary while Patroni is stopped on the other hosts
    my @others = grep { $_ ne $old } map { $_->name } $cluster->databases;
    $signal->(STOP => @others);
    my ($lease) = $cluster->etcdctl($new, qw(lease grant 60)) =~ /^lease (\w+) granted/;
    $cluster->etcdctl($new, qw(put /service/ngx_pgq/leader), $old, "--lease=$lease");

    my $thawed = time;
    $cluster->do_to(thaw => $old);
    ok((poll_until { $cluster->log_since($old, $thawed) =~ /the leader with the lock/ } 30), 'the first primary takes the lock');
    $signal->(CONT => @others);

    for my $host (@others) {
        ok((poll_until { $cluster->log_since($host, $since) =~ /the primary on \d+, which is older/ } 60),
            "$host does not follow the first primary");
    }
    $test->accepts_nothing(10);
}, stops_load => 1, repair => sub {
    isnt(($cluster->provision(reinit => $new))[0], 0, 'make cluster-reinit refuses to discard what the second primary acknowledged');
    my ($status, $output) = $cluster->provision(failover => $new);
    is($status, 0, 'make cluster-failover promotes the second primary, which has everything') or diag($output);
});

is($cluster->leader, $new, 'the second primary leads again');
$test->end;

done_testing;
