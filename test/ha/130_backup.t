# P1, P2, P6: all three database hosts are lost for good, and made anew from the backup host: what was acknowledged and
# archived is there, once, whether it had been moved or not; ids go on far above those that were seen. And back to a
# moment of one's choice.

use Pgq;
use Pgq::Cluster;
use Pgq::Host qw(top temp_dir slurp run);

my $cluster = Pgq::Cluster->new;
my $log     = temp_dir('cluster') . '/log';
my ($web)   = $cluster->webs;
my $run     = time;

# What provision/cluster/cluster starts goes on when it has ended.
sub provision {
    my ($status) = (system(top() . "/provision/cluster/cluster @_ > $log 2>&1"));

    die("cluster @_: ", slurp($log)) if $status;

    return 1;
}

my $posted = sub { return join ' ', map { Pgq::Client->new($web)->post('/post', qq({"backup": "$run $_"}))->status } @_ };
my $posts  = sub {
    return $cluster->safe_psql(qq(select coalesce(string_agg(name || case when n > 1 then ' twice' else '' end, ' ' order by name), '')
        from (select split_part(data->>'backup', ' ', 2), count(*) from posts where data->>'backup' like '$run %' group by 1) as p (name, n)));
};

# All that is acknowledged by now is at the backup host.
my $archived = sub {
    my $wal = $cluster->safe_psql('select pg_walfile_name(pg_switch_wal())');
    return $cluster->poll_query_until("select last_archived_wal >= '$wal' from pg_stat_archiver", 't', 60);
};

ok($cluster->settled, 'a leader, and all others synchronous standbys');
ok(provision('backup'), 'a backup, with a host for it');
is(join(' ', $cluster->must('backup1', qw(runuser -u postgres -- pgbackrest --stanza=ngx_pgq --output=json info)) =~ /"cipher":"([^"]*)"/), 'aes-256-cbc',
    'which is encrypted');

# ---- backup

my $load = $cluster->load(pause => 0.05)->start;
ok($load->wait_for(20), 'a load on both doors');
ok(provision('backup'), 'a backup under load');
ok($load->wait_for(20), 'and the load goes on');
$load->stop;
is($load->failures, '', 'no request failed');
is(join("\n", $load->complaints), '', 'what was accepted is in posts, once');

is($posted->('a'), '202', 'a message after the backup');
ok($cluster->poll_query_until("select count(*) from posts where data->>'backup' = '$run a'", 1), 'is moved');
my $moment = $cluster->safe_psql(q(select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US"Z"')));
is($posted->('b'), '202', 'and another');
ok($cluster->poll_query_until("select count(*) from posts where data->>'backup' = '$run b'", 1), 'is moved');
$cluster->safe_psql('select ngx_pgq.pause()');
is($posted->('c', 'd'), '202 202', 'and two that wait in the queue');
my $seen = $cluster->safe_psql('select max(id) from posts');
ok($archived->(), 'all of it is archived');

# ---- all is lost

provision(lose => $_->name) for $cluster->databases;
ok(provision('restore'), 'all three database hosts lost, and restored');
ok($cluster->settled(120), 'a leader, and all others synchronous standbys');
ok($cluster->poll_query_until('select count(*) from ngx_pgq.queue', 0), 'what waited is moved');
is($posts->(), 'a b c d', 'every message is there, once');
is(join("\n", $load->complaints), '', 'those of before the backup, too');
cmp_ok($cluster->safe_psql("select min(id) from posts where data->>'backup' in ('$run c', '$run d')"), '>', $seen + 1e8, 'with ids that nobody can have seen');
is($cluster->safe_psql('show ngx_pgq.movers'), 1, 'movers are as they were');
is($posted->('e'), '202', 'messages are taken');
ok($cluster->poll_query_until("select count(*) from posts where data->>'backup' = '$run e'", 1), 'and moved');
ok(provision('backup'), 'and backed up');
$seen = $cluster->safe_psql('select max(id) from posts');
ok($archived->(), 'and archived');

# ---- a moment

for my $wrong ('nonsense', '2020-01-01 00:00:00Z') {
    ok(!eval { provision('restore', "'$wrong'") }, "no restore to $wrong");
    ok($cluster->settled(1), 'and nothing was touched');
}

# PostgreSQL does not end with Patroni then.
$cluster->patronictl($cluster->leader, qw(pause --wait ngx_pgq));
ok(provision('restore', "'$moment'"), 'back to a moment before the second message');
ok($cluster->settled(120), 'a leader, and all others synchronous standbys');
is($posts->(), 'a', 'the first is there, what came later is not');
is($posted->('f'), '202', 'messages are taken');
ok($cluster->poll_query_until("select count(*) from posts where data->>'backup' = '$run f' and id > $seen", 1), 'with ids that nobody has seen');
is(($cluster->on($cluster->leader, 'sh', '-c', 'ls -d /var/lib/postgresql/17/ngx_pgq.before.*'))[0], 0, 'and what was there is kept aside');
$cluster->on($_, 'sh', '-c', 'rm -rf /var/lib/postgresql/17/ngx_pgq.before.*') for $cluster->databases;
ok(provision(remove => 'backup1'), 'the backup host is removed');
ok($cluster->settled, 'and all are back');

done_testing;
