# P2, P8: the mover ends. If it is killed, PostgreSQL restarts all backends and recovers on the same host. If it is
# terminated, only the mover is started again.

use Pgq;
use Pgq::ClusterTest;

my $mover = 'select pid from ngx_pgq.status where mover is not null and pid is not null limit 1';

my $test    = Pgq::ClusterTest->new('mover killed', target => 5);
my $cluster = $test->cluster;
my $leader  = $cluster->leader;

for (1 .. 3) {
    $test->round(sub {
        $cluster->must($leader, 'kill', '-9', $cluster->safe_psql($mover));

        # While PostgreSQL recovers, and afterwards.
        my %seen;
        ok((poll_until {
            my ($status, $out) = $cluster->psql('select count(*) from posts p join ngx_pgq.queue q using (message_id)');
            $seen{$out}++ if !$status;
            return ($seen{0} // 0) >= 10;
        } 60), 'the queue can be read again');
        is(join(' ', keys %seen), 0, 'no message is in the queue and in posts');
    });
}
$test->end;

$test = Pgq::ClusterTest->new('mover terminated', target => 1);
$test->round(sub { $cluster->safe_psql("select pg_terminate_backend(($mover))") }) for 1 .. 3;
$test->end;

is($cluster->leader, $leader, 'the primary keeps leading');

done_testing;
