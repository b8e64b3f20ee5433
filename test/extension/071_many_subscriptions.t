# P2: eight consumers of a hundred subscriptions, which have different topics and parts, process each post of each subscription
# exactly once and the posts of a topic in order. Their sessions, their clients and they themselves are killed while they have
# posts and while their commits wait for a standby, and the server crashes. PGQ_POSTS=20000 is the number of posts, PGQ_SEED
# repeats the order of kills.

use Pgq;
use Pgq::Consumers;

my $posts = $ENV{PGQ_POSTS} // 2_000;
my $seed  = $ENV{PGQ_SEED} // int rand 1_000_000;
my $pg    = Pgq::Postgres->new->start;
my %expected;

srand $seed;
diag("seed $seed");

for my $n (0 .. 99) {
    my @topics = map { 't/' . (1 + ($n + $_) % 19) } 0 .. 2;
    my ($topics, $condition) = $n % 4 < 2 ? ('null', 'true') : ("'{" . join(',', @topics) . "}'", "topic in ('" . join("', '", @topics) . "')");

    $pg->safe_psql("select ngx_pgq.subscribe('s$n', $topics, parts => " . ($n % 2 ? 3 : 1) . ')');
    $expected{"s$n"} = $condition;
}

my $consumers = Pgq::Consumers->new($pg, join(' ', sort keys %expected) => 8)->start;
my %killed;
my $sent = 0;
my $crashed;

# Waits until a consumer waits for this event, and kills something of it.
sub kill_at {
    my ($event, $what) = @_;
    $pg->poll_query_until("select count(*) > 0 from pg_stat_activity where application_name like 'consumer%' and wait_event = '$event'", 't', 2);
    $consumers->kill_one($what, $event) and $killed{"$what in $event"}++;
    return;
}

while ($sent < $posts) {
    $pg->safe_psql(q{insert into ngx_pgq.queue (data, topic) select to_json(n), coalesce('t/' || nullif(n % 20, 0), '') from generate_series(1, 100) as n});
    $sent += 100;
    kill_at('PgSleep', $_) for qw(session client consumer);

    # The mover would wait as well, so these posts are inserted without it.
    if ($sent % 400 == 0) {
        $pg->wait_until_moved;
        $pg->commits_wait_for('absent') or die "commits do not wait\n";
        $pg->safe_psql(q{insert into posts (at, message_id, data, topic) select now(), gen_random_uuid(), to_json(n), 't/' || n from generate_series(1, 19) as n},
            env => { PGOPTIONS => '-c synchronous_commit=local' });
        kill_at('SyncRep', $_) for qw(session client consumer);
        $pg->commits_wait_for('') or die "commits still wait\n";
    }

    if (!$crashed && $sent >= $posts / 2) {
        $pg->stop('immediate')->start;
        $crashed = 1;
    }
}

ok($pg->wait_until_moved, 'all messages become posts');
my $end = $pg->safe_psql('select ' . join ' + ', map { "(select count(*) from posts where $_)" } values %expected);
ok($pg->poll_query_until('select count(*) from (select distinct subscription, id from effect) as e', $end, 60 + $posts / 20), "all $end posts of the subscriptions have an effect");
$consumers->stop;

my @complaints = $consumers->complaints(%expected);
is(scalar @complaints, 0, 'each post has one effect, and those of a topic are in order') or diag(join "\n", @complaints[ 0 .. ($#complaints < 9 ? $#complaints : 9) ]);
cmp_ok($killed{$_} // 0, '>', 0, "killed: $_, " . ($killed{$_} // 0) . ' times') for map { ("$_ in PgSleep", "$_ in SyncRep") } qw(session client consumer);
cmp_ok($consumers->count('lost'), '>', 0, 'consumers lost connections');
diag(join ', ', map { "$_ " . $consumers->count($_) } qw(accepted lost PQ410 PQ412));

done_testing;
