# P1: patroni/pg_rewind rewinds a member to a primary on a newer timeline, but not to one on an older timeline, and
# not while the disk is full.

use Pgq;
use Pgq::Disk;
use Pgq::Host qw(run spawn ended top pg_bin server_user temp_dir slurp spew);

my $no_disk = Pgq::Disk::cannot();

my $old = Pgq::Postgres->new(conf => "wal_log_hints = on\nwal_keep_size = 1GB\n")->start;
my $new = $old->standby->start;
$new->promote;

$old->safe_psql('create table not_replicated (n int)');
$new->safe_psql('create table replicated (n int)');

# The server's user may have no access to the sources.
my $script = temp_dir('script') . '/pg_rewind';
spew($script, slurp(top() . '/patroni/pg_rewind'));
chmod 0755, $script;

sub rewind {
    my ($how, $target, $source) = @_;
    my @command = ($script, '-D', $target->data, '--source-server', $source->conninfo(database => 'postgres'));

    return $how->(\@command, user => server_user(), env => { PGBIN => pg_bin(), LC_ALL => 'C' });
}

sub move_wal {
    my ($server, $dir) = @_;

    run([ 'cp', '-a', $server->data . '/pg_wal/.', $dir ]);
    run([ 'rm', '-r', $server->data . '/pg_wal' ]);
    symlink $dir, $server->data . '/pg_wal' or die "pg_wal: $!\n";

    return;
}

# ---- the server that was promoted, with its WAL in another directory

$new->stop;
move_wal($new, $new->own(temp_dir('wal'), 0700));
my ($status, $out, $err) = rewind(\&run, $new, $old);
is($status, 1, 'a server on a newer timeline is not rewound to one on an older timeline');
like($err, qr/\Apg_rewind: this member is on timeline 2, the primary on 1, which is older: .*\n\z/, 'the error names both timelines');

$new->start;
is($new->safe_psql('select count(*) from replicated'), 0, 'the server that is not rewound keeps its data');

# ---- the server that was not promoted

my $conf = slurp($old->data . '/postgresql.conf');
$old->stop;
if ($no_disk) {
    ($status, $out, $err) = rewind(\&run, $old, $new);
}
else {
    my $disk = Pgq::Disk->new('disk', 1024);
    move_wal($old, $disk->dir);
    $disk->fill;

    my $waits = rewind(\&spawn, $old, $new);
    is(ended($waits, 3), undef, 'with a full disk pg_rewind waits');
    $disk->make_space;
    $status = ended($waits, 60);
}
is($status, 0, 'a server on an older timeline is rewound to one on a newer timeline') or diag($err);

spew($old->data . '/postgresql.conf', $conf);
# What pg_basebackup wrote for the other server is here now, and overrides postgresql.conf.
spew($old->data . '/postgresql.auto.conf', "primary_conninfo = '@{[ $new->conninfo(database => 'postgres') ]}'\n");
spew($old->data . '/standby.signal', '');
$old->own($old->data . '/standby.signal', 0600);
$old->start;
ok($old->poll_query_until(q{select to_regclass('replicated') is not null and to_regclass('not_replicated') is null}, 't'), 'the rewound server has the tables of the other one only');

# ---- calls that the script passes to pg_rewind

($status, $out, $err) = run([ $script, '--help' ], env => { PGBIN => pg_bin(), LC_ALL => 'C' });
is($status, 0, '--help, by which Patroni finds pg_rewind, succeeds');
like($out, qr/^pg_rewind resynchronizes/, '--help prints the help of pg_rewind');

$old->stop;
($status, $out, $err) = rewind(\&run, $old, Pgq::Postgres->new(name => 'off'));
isnt($status, 0, 'without a reachable primary pg_rewind fails');
unlike($err, qr/older/, 'without a reachable primary the error does not name timelines');

done_testing;
