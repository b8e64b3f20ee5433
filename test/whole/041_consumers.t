# P2: consumers by HTTP, at two nginx, kill themselves at each step, while PostgreSQL, its sessions, nginx and its workers are
# killed. Each post is given at least once for each subscription, none is passed over, the posts of a topic come in order, and
# only posts that are not acknowledged are given again. PGQ_POSTS=20000 is the number of posts, PGQ_SEED repeats an order.

use Pgq;
use Pgq::HttpConsumers;

use List::Util qw(shuffle);

my $posts = $ENV{PGQ_POSTS} // 6_000;
my $seed  = $ENV{PGQ_SEED} // int rand 1_000_000;
my %expected = (all => 'true', parts => 'true', topics => q{topic in ('t/1', 't/2', 't/3')});

srand $seed;
diag("seed $seed");

my $pg    = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nrestart_after_crash = on\n")->start;
my %nginx = (conninfo => $pg->conninfo(user => 'ngx_pgq_web'), workers => 2, timeout => '5s', locations => 'location /sub/ { pgq_subscription main; }');
my @nginx = map { Pgq::Nginx->new(%nginx, name => "nginx$_", $_ ? (ring => '') : ())->allow(qr/exited on signal 9/)->start } 0, 1;

sub put { return Pgq::Client->new($nginx[0])->method('PUT', "/sub/$_[0]", $_[1])->status }
is(put('all', '{"start":0}'), 201, 'a subscription to all posts');
is(put('parts', '{"start":0,"parts":4}'), 201, 'one in four parts');
is(put('topics', '{"start":0,"topics":["t/1","t/2","t/3"]}'), 201, 'one to topics');

my $session = sub { return ($pg->psql(q{select pid from pg_stat_activity where usename = 'ngx_pgq_web' order by random() limit 1}))[1] =~ /(\d+)/ ? $1 : () };
my %kills = (
    'all processes of PostgreSQL' => sub { $pg->stop('immediate')->start },
    'a session of nginx (KILL)'   => sub { my @pid = $session->(); kill 'KILL', @pid; $pg->wait_ready; return scalar @pid },
    'a session of nginx (TERM)'   => sub { my @pid = $session->(); kill 'TERM', @pid; return scalar @pid },
    'all processes of an nginx'   => sub { $nginx[ rand 2 ]->kill9->start },
    'a worker of nginx'           => sub { my @pid = $nginx[ rand 2 ]->worker_pids; kill 'KILL', $pid[ rand @pid ] },
);

my $consumers = Pgq::HttpConsumers->new(\@nginx, all => 3, parts => 5, topics => 2)->start;
my @order = shuffle sort keys %kills;    # each at least once
my %count;
my $sent = 0;

while ($sent < $posts) {
    $pg->poll_query_until(q{insert into ngx_pgq.queue (data, topic) select to_json(n), coalesce('t/' || nullif(n % 20, 0), '')
                            from generate_series(1, 500) as n; select 'inserted'}, 'inserted') or die "messages cannot be inserted\n";
    $sent += 500;
    poll_until { $consumers->tend->effects('all') > $sent - 400 } 10;
    my $what = shift @order // (sort keys %kills)[ rand keys %kills ];
    $kills{$what}->() and $count{$what}++;
}

ok($pg->poll_query_until('select count(*) from ngx_pgq.queue', 0), 'all messages become posts');
my %end = map { $_ => $pg->safe_psql("select count(*) from posts where $expected{$_}") } keys %expected;
my $all = sub { $consumers->tend; return !grep { $consumers->effects($_) != $end{$_} } keys %end };
ok((poll_until { $all->() } 60 + $posts / 200), 'each post is given for each subscription')
    or diag(join ', ', map { "$_: " . $consumers->effects($_) . " of $end{$_}" } sort keys %end);
$consumers->stop;

my @complaints = $consumers->complaints($pg, %expected);
is(scalar @complaints, 0, 'none is passed over, the first effects are in order, and no acknowledged post is given again')
    or diag(join "\n", @complaints[ 0 .. ($#complaints < 9 ? $#complaints : 9) ]);
cmp_ok($count{$_} // 0, '>=', 1, "killed: $_, " . ($count{$_} // 0) . ' times') for sort keys %kills;
cmp_ok($consumers->count("killed $_"), '>=', 1, "consumers killed themselves at the step $_, " . $consumers->count("killed $_") . ' times')
    for qw(asked answered processed acknowledging acknowledged);
cmp_ok($consumers->count($_), '>=', 1, "answers: $_, " . $consumers->count($_)) for qw(got acked fenced failed);

done_testing;
