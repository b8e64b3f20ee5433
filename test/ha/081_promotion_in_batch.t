# P2, P6: the primary is killed while its mover moves a batch. The mover of the new primary continues with the
# messages that were not moved.

use Pgq;
use Pgq::ClusterTest;

my $cluster = Pgq::Cluster->new;

# ---- in one batch: its rows are deleted from the queue, and the INSERT into posts waits for a lock

my $test = Pgq::ClusterTest->new('promotion in the middle of a batch', target => 5);

$test->takeover(sub {
    my ($leader) = @_;

    $cluster->must($leader, qw(systemd-run -q --collect -u pgq_holder runuser -u postgres -- psql -d posts -c),
        'begin; lock table posts in share mode; select pg_sleep(600)');
    ok($cluster->poll_query_until("select wait_event_type from pg_stat_activity
         where pid = (select pid from ngx_pgq.status where mover is not null limit 1)", 'Lock'), 'the mover waits for a lock within its batch');
    $cluster->kill_postmaster($leader);
});
$test->end;

# ---- in a long backlog

my $many  = 300_000;
my $stamp = time;
my $ours  = qq(data::text like '{"backlog": "$stamp"%');

# In a backlog messages of neighbouring batches may overtake each other (docs/architecture.md).
$test = Pgq::ClusterTest->new("promotion while $many messages are moved", target => 10, load => { order => 0 });
my $since = $test->since;

$test->takeover(sub {
    my ($leader) = @_;

    $cluster->safe_psql(qq(select ngx_pgq.pause();
        insert into ngx_pgq.queue (data) select format('{"backlog": "$stamp", "n": %s}', n)::json from generate_series(1, $many) n));

    my $waiting = $cluster->must($leader, 'bash', '-euc', "
        ask() { runuser -u postgres -- psql -d posts -XAtqc \"\$1\"; }
        postmaster=\$(head -n 1 /var/lib/postgresql/17/ngx_pgq/postmaster.pid)
        ask 'select ngx_pgq.resume()' > /dev/null
        until [[ \$(ask 'select max(id) > $since + 20000 from posts') == t ]]; do :; done
        ask 'select count(*) from ngx_pgq.queue'
        kill -9 \$postmaster");
    cmp_ok($waiting, '>', 0, "$waiting messages were not moved when the primary was killed");
});
$test->end;

is($cluster->safe_psql("select count(*), count(distinct data::jsonb->>'n') from posts where id > $since and $ours"), "$many|$many", 'each message of the backlog is in posts once');

done_testing;
