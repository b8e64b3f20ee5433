# P1: a member of the cluster is rewound to a primary that is on a newer timeline, and to none that is on an older one;
# and not on a full disk.

use Pgq;
use Pgq::Disk;
use Pgq::Host qw(run spawn ended top pg_bin server_user temp_dir slurp spew);

my $no_disk = Pgq::Disk::cannot();

my $old = Pgq::Postgres->new(conf => "wal_log_hints = on\nwal_keep_size = 1GB\n")->start;
my $new = $old->standby->start;
$new->promote;

$old->safe_psql('create table promised_by_nobody (n int)');
$new->safe_psql('create table promised (n int)');

# The server's user may not be let in to where the sources are.
my $script = temp_dir('script') . '/pg_rewind';
spew($script, slurp(top() . '/patroni/pg_rewind'));
chmod 0755, $script;

sub rewind {
    my ($how, $target, $source) = @_;
    my @command = ($script, '-D', $target->data, '--source-server', $source->conninfo(database => 'postgres'));

    return $how->(\@command, user => server_user(), env => { PGBIN => pg_bin(), LC_ALL => 'C' });
}

sub wal_is_at {
    my ($server, $dir) = @_;

    run([ 'cp', '-a', $server->data . '/pg_wal/.', $dir ]);
    run([ 'rm', '-r', $server->data . '/pg_wal' ]);
    symlink $dir, $server->data . '/pg_wal' or die "pg_wal: $!\n";

    return;
}

# ---- the one that was promoted stays as it is, wherever its WAL is

$new->stop;
wal_is_at($new, $new->own(temp_dir('wal'), 0700));
my ($status, $out, $err) = rewind(\&run, $new, $old);
is($status, 1, 'who was promoted is not rewound to who was not');
like($err, qr/\Apg_rewind: this member is on timeline 2, the primary on 1, which is older: .*\n\z/, 'and says why');

$new->start;
is($new->safe_psql('select count(*) from promised'), 0, 'what it has is all there');

# ---- the other follows

my $conf = slurp($old->data . '/postgresql.conf');
$old->stop;
if ($no_disk) {
    ($status, $out, $err) = rewind(\&run, $old, $new);
}
else {
    my $disk = Pgq::Disk->new('disk', 1024);
    wal_is_at($old, $disk->dir);
    $disk->fill;

    my $waits = rewind(\&spawn, $old, $new);
    is(ended($waits, 3), undef, 'who has no room waits');
    $disk->make_space;
    $status = ended($waits, 60);
}
is($status, 0, 'who was not promoted is rewound to who was') or diag($err);

spew($old->data . '/postgresql.conf', $conf);
# What pg_basebackup had written for the other leads here, and counts more than postgresql.conf.
spew($old->data . '/postgresql.auto.conf', "primary_conninfo = '@{[ $new->conninfo(database => 'postgres') ]}'\n");
spew($old->data . '/standby.signal', '');
$old->own($old->data . '/standby.signal', 0600);
$old->start;
ok($old->poll_query_until(q{select to_regclass('promised') is not null and to_regclass('promised_by_nobody') is null}, 't'), 'and has what the other has');

# ---- what is none of its business

($status, $out, $err) = run([ $script, '--help' ], env => { PGBIN => pg_bin(), LC_ALL => 'C' });
is($status, 0, 'its help, by which Patroni sees whether it is there,');
like($out, qr/^pg_rewind resynchronizes/, q{is pg_rewind's});

$old->stop;
($status, $out, $err) = rewind(\&run, $old, Pgq::Postgres->new(name => 'off'));
isnt($status, 0, 'where the primary cannot be asked');
unlike($err, qr/older/, 'nothing is said about timelines');

done_testing;
