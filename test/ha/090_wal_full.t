# P1, P3, P5: the disk of the primary's WAL is full. PostgreSQL ends there, a standby takes over; when there is room
# again the host comes back by itself.

use Pgq;
use Pgq::ClusterTest;

my $cluster = Pgq::Cluster->new;
my $data    = '/var/lib/postgresql/17/ngx_pgq';
ok($cluster->settled, 'all members are in their places');

# ---- a member whose WAL is on a disk of its own

my ($full) = $cluster->standbys;
my $move = sub {
    my ($script) = @_;
    $cluster->must($full, qw(systemctl stop patroni));
    $cluster->must($full, 'bash', '-euc', "cd $data; $script");
    $cluster->must($full, qw(systemctl start patroni));
    ok($cluster->settled, 'all members are in their places');
};

$move->('mv pg_wal ..; mkdir pg_wal; mount -t tmpfs -o size=2g,mode=700 tmpfs pg_wal; chown postgres: pg_wal; cp -a ../pg_wal/. pg_wal/');
$cluster->patronictl($full, qw(switchover ngx_pgq --force --candidate), $full);
is($cluster->leader, $full, 'it leads');

# ---- and that is full

my $since = '@' . time;
my $test = Pgq::ClusterTest->new("the primary's WAL disk full", target => 20,
    log => qr/PANIC: .*No space left on device|signal 6: Aborted|archive command was terminated by signal 3/);

$test->round(sub {
    $cluster->on($full, 'sh', '-c', "head -c 3G /dev/zero > $data/pg_wal/filler");
    ok((poll_until {
        $cluster->on($full, qw(runuser -u postgres -- psql -d posts -qc), "select pg_logical_emit_message(true, 'full', ''), pg_switch_wal()");
        return ($cluster->leader // $full) ne $full;
    } 60), 'another member leads');
    ok((poll_until {
        $cluster->must($full, qw(journalctl -q -o cat -u patroni), "--since=$since")
            =~ /MB are free for \Q$data\E or its WAL: waiting for more|LOG:  fetching timeline history file/
    } 60), 'and this one cannot follow, be it to be rewound or not');
    like($cluster->must($full, qw(journalctl -q -o cat -u patroni), "--since=$since"), qr/No space left on device/, 'for want of room');
    unlike(join(' ', map { $_->{State} } grep { $_->{Member} eq $full } $cluster->members), qr/streaming/, 'and does not');
}, repair => sub { $cluster->must($full, 'rm', "$data/pg_wal/filler") });

$test->end;

$move->('rm -r ../pg_wal; cp -a pg_wal ..; umount pg_wal; rmdir pg_wal; mv ../pg_wal .');

done_testing;
