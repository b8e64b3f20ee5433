# P2, P6: the primary dies while its mover has a batch in hand; the next primary's mover begins with what was not moved.

use Pgq;
use Pgq::ClusterTest;

my $cluster = Pgq::Cluster->new;

# ---- in the middle of one batch: its rows are taken from the queue, and posts does not let them in yet

my $test = Pgq::ClusterTest->new('promotion in the middle of a batch', target => 5);

$test->takeover(sub {
    my ($leader) = @_;

    $cluster->must($leader, qw(systemd-run -q --collect -u pgq_holder runuser -u postgres -- psql -d posts -c),
        'begin; lock table posts in share mode; select pg_sleep(600)');
    ok($cluster->poll_query_until("select wait_event_type from pg_stat_activity
         where pid = (select pid from ngx_pgq.status where mover is not null limit 1)", 'Lock'), 'a mover waits with its batch');
    $cluster->kill_postmaster($leader);
});
$test->end;

# ---- in the middle of many

my $many  = 300_000;
my $stamp = time;
my $ours  = qq(data::text like '{"backlog": "$stamp"%');

# Behind so many, messages of neighbouring batches may overtake each other (docs/architecture.md).
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
    cmp_ok($waiting, '>', 0, "$waiting were not moved yet");
});
$test->end;

is($cluster->safe_psql("select count(*), count(distinct data::jsonb->>'n') from posts where id > $since and $ours"), "$many|$many", 'each is there once');

done_testing;
