# P6: with several movers and many who enqueue, ids are in commit order: a reader that goes on from the last id it
# has seen misses nothing, ever.

use Pgq;

my $pg    = Pgq::Postgres->new(conf => "ngx_pgq.movers = 4\nngx_pgq.batch_size = 50\n")->start;
my $nginx = Pgq::Nginx->new(pg => $pg, workers => 2)->start;

my $dir  = Pgq::Host::temp_dir('load');
my $load = Pgq::Host::spawn([
    Pgq::Host::build_dir() . '/bench/pgq_load', '--connections', 32, '--messages', 20_000, '--all-ok', '--check', $pg->conninfo,
    $nginx->url('/post'),
], out => "$dir/out", err => "$dir/err");

my $reader = $pg->session;
my ($last, $read, $status) = (0, 0);

until (defined $status && $read == 20_000) {
    my $was = $status;
    $status //= Pgq::Host::ended($load, 0.01);

    my ($count, $max) = split /\|/, $reader->query("select count(*), coalesce(max(id), $last) from posts where id > $last");
    $read += $count;
    $last  = $max;

    # one more look when the load has ended, and then it is enough
    last if defined $was;
}

is($status, 0, 'all are accepted and found') or diag(Pgq::Host::slurp("$dir/out"));
is($read, 20_000, 'a reader that goes on from the last id it has seen misses nothing');
cmp_ok($pg->safe_psql('select count(*) from ngx_pgq.status where messages > 0'), '>', 1, 'several movers have worked');
$reader->quit;

done_testing;
