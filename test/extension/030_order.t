# P6: with several movers and producers, ids are in commit order: a reader that continues after the last id it has seen
# misses no post.

use Pgq;

# A mover waits after it has taken its first id: no other mover takes or commits a greater id.
my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 3\n")->start;

$pg->hold_message('slow');

my $lock = $pg->session;
$lock->query('select pg_advisory_lock(42)');

for my $case ([ 'slow' => 1 ], [ 'fast' => 2 ], [ 'faster' => 3 ]) {
    my ($message, $waiting) = @$case;
    $pg->safe_psql("insert into ngx_pgq.queue (data) values ('\"$message\"')");
    ok($pg->wait_for_movers($waiting), "$message: $waiting movers wait for a lock");
}

is($pg->safe_psql('select count(*) from posts'), 0, 'no mover commits before the one that has taken its ids');
$lock->quit;
ok($pg->poll_query_until('select count(*) from posts', 3), 'all movers continue when the lock is released');
is($pg->safe_psql('select data from posts order by id limit 1'), '"slow"', 'the message that was held up has the smallest id');
$pg->stop;

# A reader continues after its last id while 32 connections enqueue.
$pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 4\nngx_pgq.batch_size = 50\n")->start;
my $nginx = Pgq::Nginx->new(pg => $pg, workers => 2)->start;

my $dir  = Pgq::Host::temp_dir('load');
my $load = Pgq::Host::spawn([
    Pgq::Host::build_dir() . '/bench/pgq_load', '--connections', 32, '--messages', 20_000, '--all-ok', '--check', $pg->conninfo,
    $nginx->url('/post'),
], out => "$dir/out", err => "$dir/err");

my $reader = $pg->session;
my ($last, $read, $status) = (0, 0);

until (defined $status && $read == 20_000) {
    my $load_had_ended = defined $status;
    $status //= Pgq::Host::ended($load, 0.01);

    my ($count, $max) = split /\|/, $reader->query("select count(*), coalesce(max(id), $last) from posts where id > $last");
    $read += $count;
    $last  = $max;

    last if $load_had_ended;    # so the last query began after the end of the load
}

is($status, 0, 'the load client gets 202 for each message and finds its post') or diag(Pgq::Host::slurp("$dir/out"));
is($read, 20_000, 'the reader has seen each post');
cmp_ok($pg->safe_psql('select count(*) from ngx_pgq.status where messages > 0'), '>', 1, 'more than one mover has moved messages');
$reader->quit;

done_testing;
