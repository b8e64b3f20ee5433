# P2: while 50,000 messages are sent, the mover, PostgreSQL (immediate shutdown) and nginx are killed in a random
# order. No acknowledged message is lost or duplicated. PGQ_SEED repeats an order.

use Pgq;

use List::Util qw(shuffle);

my $messages = 50_000;
my $seed     = $ENV{PGQ_SEED} // int rand 1_000_000;

srand $seed;
diag("seed $seed");

my $pg    = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nrestart_after_crash = on\n")->start;
my $nginx = Pgq::Nginx->new(pg => $pg, workers => 2)->start;

my $dir  = Pgq::Host::temp_dir('load');
my $load = Pgq::Host::spawn([
    Pgq::Host::build_dir() . '/bench/pgq_load', '--connections', 32, '--messages', $messages, '--rate', 5000, '--retry', 100,
    '--give-up', timeout(60), '--drain', timeout(60), '--timeout', timeout(60), '--all-ok', '--check', $pg->conninfo,
    $nginx->url('/post'),
], out => "$dir/out", err => "$dir/err");

my %kills = (
    mover => sub {
        my $pid = $pg->safe_psql("select pid from pg_stat_activity where backend_type like '%mover%' limit 1") or return;
        kill 'KILL', $pid;
        $pg->wait_ready;
    },
    postgres => sub { $pg->stop('immediate')->start },
    nginx    => sub { $nginx->kill9->start },
);

my @order = shuffle sort keys %kills;    # each at least once
my ($status, %count, $last);
my $posts = sub { my ($failed, $out) = $pg->psql('select coalesce(max(id), 0) from posts'); return $failed ? 0 : $out };

until (defined $status) {
    my $goal = ($last // 0) + 500 + int rand 4000;

    # Near the end nothing is killed any more, as the load client then compares posts.
    poll_until {
        $status = Pgq::Host::ended($load, 0.05);
        return defined $status || $goal < $messages - 5_000 && $posts->() >= $goal;
    } 60;

    if (!defined $status && $goal < $messages - 5_000) {
        my $victim = shift @order // (sort keys %kills)[ rand 3 ];
        $kills{$victim}->();
        $count{$victim}++;
        $last = $posts->();
    }
}

my $out = Pgq::Host::slurp("$dir/out");
my %result = $out =~ /^result (\S+) (\S+)$/mg;

cmp_ok($count{$_} // 0, '>=', 1, "the $_ was killed " . ($count{$_} // 0) . ' times') for sort keys %kills;

is($status, 0, 'the load client finds no error') or diag($out . Pgq::Host::slurp("$dir/err"));
is($result{ok}, $messages, 'each message is acknowledged');
is($result{$_}, 0, "the load client counts 0 $_") for qw(lost twice altered unexpected unknown_twice);
diag("unknown $result{unknown}, of these present $result{unknown_present}; retries $result{retries}; lost connections $result{lost_connections}");

is($pg->safe_psql('select count(*) - count(distinct message_id) from posts'), 0, 'no message is in posts twice');
is($pg->safe_psql('select count(*) from ngx_pgq.queue'), 0, 'the queue is empty');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'there is no dead letter');

done_testing;
