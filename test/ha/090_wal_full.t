# P1, P3, P5: the disk with the primary's WAL is full. PostgreSQL ends there and a standby takes over. When there is
# space again the host becomes a standby by itself.

use Pgq;
use Pgq::ClusterTest;

my $cluster = Pgq::Cluster->new;
my $data    = '/var/lib/postgresql/17/ngx_pgq';
ok($cluster->settled, 'each member is the primary or a synchronous standby');

# ---- move the WAL of one member to a small disk, and promote it

my ($full) = $cluster->standbys;
my $move = sub {
    my ($script) = @_;
    $cluster->must($full, qw(systemctl stop patroni));
    $cluster->must($full, 'bash', '-euc', "cd $data; $script");
    $cluster->must($full, qw(systemctl start patroni));
    ok($cluster->settled, 'each member is the primary or a synchronous standby');
};

$move->('mv pg_wal ..; mkdir pg_wal; mount -t tmpfs -o size=2g,mode=700 tmpfs pg_wal; chown postgres: pg_wal; cp -a ../pg_wal/. pg_wal/');
$cluster->patronictl($full, qw(switchover ngx_pgq --force --candidate), $full);
is($cluster->leader, $full, 'the member with the small WAL disk leads');

# ---- fill the disk

my $since = time;
my $test = Pgq::ClusterTest->new("the primary's WAL disk full", target => 20,
    log => qr/PANIC: .*No space left on device|signal 6: Aborted|archive command was terminated by signal 3/);

$test->round(sub {
    $cluster->on($full, 'sh', '-c', "head -c 3G /dev/zero > $data/pg_wal/filler");
    ok((poll_until {
        $cluster->on($full, qw(runuser -u postgres -- psql -d posts -qc), "select pg_logical_emit_message(true, 'full', ''), pg_switch_wal()");
        return ($cluster->leader // $full) ne $full;
    } 60), 'another member takes over when the WAL disk is full');
    ok((poll_until {
        $cluster->log_since($full, $since) =~ /MB are free for \Q$data\E or its WAL: waiting for more|LOG:  fetching timeline history file/
    } 60), 'the old primary cannot become a standby, with or without pg_rewind');
    like($cluster->log_since($full, $since), qr/No space left on device/, 'the log of the old primary names the lack of space');
    unlike(join(' ', map { $_->{State} } grep { $_->{Member} eq $full } $cluster->members), qr/streaming/, 'the old primary does not stream');
}, repair => sub { $cluster->must($full, 'rm', "$data/pg_wal/filler") });

$test->end;

$move->('rm -r ../pg_wal; cp -a pg_wal ..; umount pg_wal; rmdir pg_wal; mv ../pg_wal .');

done_testing;
