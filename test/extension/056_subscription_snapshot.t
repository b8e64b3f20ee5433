# P7: the cost of a fetch and of an acknowledgement does not grow with the number of earlier ones, also if a snapshot is held, and
# an acknowledgement leaves little behind. A consumer that has nothing to do writes nothing.

use Pgq;

my $acks = 20_000;
my $pg   = Pgq::Postgres->new(conf => "autovacuum = off\n")->start;

$pg->safe_psql("insert into posts (at, message_id, data) select now(), gen_random_uuid(), to_json(n) from generate_series(1, $acks + 100) as n");
$pg->safe_psql(q{select ngx_pgq.subscribe('s', start => 0)});

my $generation = $pg->safe_psql(q{select max(generation) from ngx_pgq.fetch('s', lease => '1 day')});
my $ack        = "select ngx_pgq.ack('s', 0, $generation)";
my $next       = "select count(*) from ngx_pgq.fetch('s', 1, generation => $generation)";
my $other      = q{select count(*) from ngx_pgq.fetch('s')};
my $view       = 'select count(*) from ngx_pgq.subscriptions';

# The blocks that a query reads which its session has run before.
sub buffers {
    my ($query) = @_;
    my ($found) = $pg->safe_psql("$query; explain (analyze, buffers) $query") =~ /Buffers: shared (.*)/;
    my $sum = 0;
    $sum += $1 while $found =~ /=(\d+)/g;
    return $sum;
}

sub size { return $pg->safe_psql(q{select pg_table_size('ngx_pgq.progress') + pg_indexes_size('ngx_pgq.progress')}) }

$pg->safe_psql('vacuum analyze');
my %before = map { $_ => buffers($_) } $ack, $next, $other, $view;
my $holder = $pg->session;
$holder->query('begin isolation level repeatable read; select count(*) from posts');
my $size = size();

$pg->safe_psql("do \$\$ begin for id in 1 .. $acks loop perform ngx_pgq.ack('s', id, $generation); commit; end loop; end \$\$");

my $left = (size() - $size) / $acks;
cmp_ok($left, '<', 150, "an acknowledgement leaves $left bytes while a snapshot is held");
cmp_ok(buffers($ack), '<=', $before{$ack} + 5, "after $acks acknowledgements one more reads as many blocks");
cmp_ok(buffers($next), '<=', $before{$next} + 5, 'a fetch by the holder of the lease reads as many blocks');
cmp_ok(buffers($other), '<=', $before{$other} + 5, 'a fetch by another consumer reads as many blocks');
cmp_ok(buffers($view), '<=', $before{$view} + 5, 'the view of subscriptions reads as many blocks');
cmp_ok(buffers("select count(*) from ngx_pgq.progress where name = 's' and part = 1"), '>', 50, 'the row cannot be found that way without its turn');

# A session that has locked the row: others do not search its older versions.
my $locker = $pg->session;
$locker->query("begin; select ngx_pgq.ack('s', 0, $generation, release => true)");
cmp_ok(buffers($other), '<=', $before{$other} + 5, 'a fetch while an acknowledgement is open reads as many blocks');
$locker->release;

# ---- nothing to do
$pg->safe_psql("select ngx_pgq.ack('s', $acks + 100, generation, release => true) from ngx_pgq.fetch('s', 1)");
like($pg->safe_psql(q{begin; select count(*), pg_current_xact_id_if_assigned() is null from ngx_pgq.fetch('s'); commit}), qr/^0\|t$/m,
    'a fetch without a post changes and locks nothing: its transaction has no id');
$pg->safe_psql(q{select ngx_pgq.subscribe('t', start => 0)});
my $held = $pg->safe_psql(q{select max(generation) from ngx_pgq.fetch('t')});
like($pg->safe_psql("begin; select count(*), pg_current_xact_id_if_assigned() is null from ngx_pgq.fetch('t', generation => $held); commit"),
    qr/^100\|t$/m, 'nor does a fetch by the holder of a lease');
$holder->quit;

done_testing;
