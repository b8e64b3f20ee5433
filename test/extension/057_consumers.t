# P2: consumers of subscriptions, with one part and with four, process each post exactly once and the posts of a topic in order,
# while their sessions, their clients and they themselves are killed, and the server crashes. PGQ_POSTS=1000000 is the number of
# posts, PGQ_SEED repeats the order of kills.

use Pgq;
use Pgq::Consumers;

my $posts = $ENV{PGQ_POSTS} // 20_000;
my $seed  = $ENV{PGQ_SEED} // int rand 1_000_000;
my %expected = (all => 'true', parts => 'true', topics => q{topic in ('t/1', 't/2', 't/3')});

srand $seed;
diag("seed $seed");

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\n")->start;
$pg->safe_psql(q{select ngx_pgq.subscribe('all'), ngx_pgq.subscribe('parts', parts => 4), ngx_pgq.subscribe('topics', '{t/1,t/2,t/3}')});

my $consumers = Pgq::Consumers->new($pg, all => 3, parts => 5, topics => 2)->start;
my $sent    = 0;
my $crashed = 0;
my %killed;

my $effects = sub {
    my ($failed, $out) = $pg->psql('select count(distinct id) from effect group by subscription order by 1');
    return $failed ? '' : $out;
};
my $end = sub { join "\n", sort { $a <=> $b } map { $pg->safe_psql("select count(*) from posts where $expected{$_}") } keys %expected };

while ($sent < $posts) {
    my $more = $posts - $sent < 500 ? $posts - $sent : 500;
    $pg->safe_psql("insert into ngx_pgq.queue (data, topic) select to_json(n), coalesce('t/' || nullif(n % 20, 0), '') from generate_series(1, $more) as n");
    $sent += $more;
    my $what = (qw(session client consumer))[ rand 3 ];
    $consumers->kill_one($what);
    $killed{$what}++;
    poll_until { $consumers->count('accepted') * 25 > $sent } 0.5;

    if (!$crashed && $sent >= $posts / 2) {
        $pg->stop('immediate')->start;
        $crashed = 1;
    }
}

ok($pg->wait_until_moved, 'all messages become posts');
ok((poll_until { $effects->() eq $end->() } 120 + $posts / 1000), 'all posts of each subscription have an effect') or diag($effects->());
$consumers->stop;

my @complaints = $consumers->complaints(%expected);
is(scalar @complaints, 0, 'each post has one effect, and those of a topic are in order') or diag(join "\n", @complaints[ 0 .. ($#complaints < 9 ? $#complaints : 9) ]);
cmp_ok($killed{$_} // 0, '>', 0, "a $_ was killed " . ($killed{$_} // 0) . ' times') for qw(session client consumer);
cmp_ok($consumers->count('lost'), '>', 0, 'consumers lost connections');
cmp_ok($consumers->count('PQ410'), '>', 0, 'consumers lost their part to others');
diag(join ', ', map { "$_ " . $consumers->count($_) } qw(accepted lost PQ410 PQ412));
is($pg->safe_psql('select count(*) from ngx_pgq.progress'), 6, 'each part has one row');

done_testing;
