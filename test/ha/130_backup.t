# P1, P2, P6: all three database hosts are lost and restored from the backup host. What was acknowledged and archived
# is there once, moved or not, and ids continue far above those that were seen. Then the cluster is restored to an
# earlier moment.

use Pgq;
use Pgq::Cluster;

my $cluster = Pgq::Cluster->new;
my ($web)   = $cluster->webs;
my $run     = time;

my $posted = sub { return join ' ', map { Pgq::Client->new($web)->post('/post', qq({"backup": "$run $_"}))->status } @_ };
my $posts  = sub {
    return $cluster->safe_psql(qq(select coalesce(string_agg(name || case when n > 1 then ' twice' else '' end, ' ' order by name), '')
        from (select split_part(data->>'backup', ' ', 2), count(*) from posts where data->>'backup' like '$run %' group by 1) as p (name, n)));
};

# Waits until all that is acknowledged is on the backup host.
my $archived = sub {
    my $wal = $cluster->safe_psql('select pg_walfile_name(pg_switch_wal())');
    return $cluster->poll_query_until("select last_archived_wal >= '$wal' from pg_stat_archiver", 't', 60);
};

ok($cluster->settled, 'one member leads and the others are synchronous standbys');
ok($cluster->must_provision('backup'), 'the first backup creates a backup host');
is(join(' ', $cluster->must('backup1', qw(runuser -u postgres -- pgbackrest --stanza=ngx_pgq --output=json info)) =~ /"cipher":"([^"]*)"/), 'aes-256-cbc',
    'the backup is encrypted');

# ---- backup

my $load = $cluster->load(pause => 0.05)->start;
ok($load->wait_for(20), 'both web hosts accept messages');
ok($cluster->must_provision('backup'), 'a backup under load succeeds');
ok($load->wait_for(20), 'after the backup the load continues');
$load->stop;
is($load->failures, '', 'no request failed');
is(join("\n", $load->complaints), '', 'accepted messages are in posts once');

is($posted->('a'), '202', 'a message is accepted after the backup');
ok($cluster->poll_query_until("select count(*) from posts where data->>'backup' = '$run a'", 1), 'the message from after the backup is moved');
my $moment = $cluster->safe_psql(q(select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US"Z"')));
is($posted->('b'), '202', 'a message is accepted after the restore moment');
ok($cluster->poll_query_until("select count(*) from posts where data->>'backup' = '$run b'", 1), 'the message from after the restore moment is moved');
$cluster->safe_psql('select ngx_pgq.pause()');
is($posted->('c', 'd'), '202 202', 'two messages wait in the queue');
my $seen = $cluster->safe_psql('select max(id) from posts');
ok($archived->(), 'all WAL is archived');

# ---- all database hosts are lost

$cluster->must_provision("lose @{[ $_->name ]}") for $cluster->databases;
ok($cluster->must_provision('restore'), 'all three database hosts are restored');
ok($cluster->settled(120), 'after the restore one member leads and the others are synchronous standbys');
ok($cluster->poll_query_until('select count(*) from ngx_pgq.queue', 0), 'after the restore the waiting messages are moved');
is($posts->(), 'a b c d', 'after the restore every message is in posts once');
is(join("\n", $load->complaints), '', 'after the restore the messages of the load are in posts once');
cmp_ok($cluster->safe_psql("select min(id) from posts where data->>'backup' in ('$run c', '$run d')"), '>', $seen + 1e8, 'messages that are moved after the restore have ids that no reader can have seen');
is($cluster->safe_psql('show ngx_pgq.movers'), 1, 'after the restore ngx_pgq.movers has its old value');
is($posted->('e'), '202', 'after the restore a message is accepted');
ok($cluster->poll_query_until("select count(*) from posts where data->>'backup' = '$run e'", 1), 'a message from after the restore is moved');
ok($cluster->must_provision('backup'), 'after the restore a backup succeeds');
$seen = $cluster->safe_psql('select max(id) from posts');
ok($archived->(), 'after the restore WAL is archived');

# ---- restore to a moment

for my $wrong ('nonsense', '2020-01-01 00:00:00Z') {
    ok(!eval { $cluster->must_provision("restore '$wrong'") }, "a restore to $wrong is refused");
    ok($cluster->settled(1), "a restore to $wrong that is refused changes nothing");
}

# While Patroni is paused PostgreSQL does not end with it.
$cluster->patronictl($cluster->leader, qw(pause --wait ngx_pgq));
ok($cluster->must_provision("restore '$moment'"), 'the restore to a moment before the second message succeeds');
ok($cluster->settled(120), 'after the restore to a moment one member leads and the others are synchronous standbys');
is($posts->(), 'a', 'only the message from before the restore moment is in posts');
is($posted->('f'), '202', 'after the restore to a moment a message is accepted');
ok($cluster->poll_query_until("select count(*) from posts where data->>'backup' = '$run f' and id > $seen", 1), 'an id after the restore is greater than any that was read');
is(($cluster->on($cluster->leader, 'sh', '-c', 'ls -d /var/lib/postgresql/17/ngx_pgq.before.*'))[0], 0, 'the old data directory is kept under another name');
$cluster->on($_, 'sh', '-c', 'rm -rf /var/lib/postgresql/17/ngx_pgq.before.*') for $cluster->databases;
ok($cluster->must_provision('remove backup1'), 'the backup host is removed');
ok($cluster->settled, 'all members have their roles again');

done_testing;
