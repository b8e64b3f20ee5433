# P2: consumers of subscriptions under clocks that differ. After a restart or a failover to a clock that is an hour behind or
# ahead, no part is blocked longer than the length of its lease, the former consumer is fenced, and no post is lost or
# processed twice. Two consumers never have the same generation, also if a change was rolled back or lost.

use Pgq;
use Pgq::Clock;
use Pgq::Consumers;

plan skip_all => 'libfaketime and sanitizers must both be loaded first' if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};

my %clock = map { $_ => Pgq::Clock->new } qw(one two);
my $pg    = Pgq::Postgres->new(env => { $clock{one}->environment })->start;

$pg->safe_psql('insert into posts (at, message_id, data) select now(), gen_random_uuid(), to_json(n) from generate_series(1, 9) as n');

# Runs fetch() with these arguments after the name. Returns the generation and the ids as text, or ('', '').
sub fetch {
    my ($server, $name, $arguments) = @_;
    my $fetched = $server->safe_psql("select generation, string_agg(id::text, ' ' order by id) from ngx_pgq.fetch('$name'$arguments) group by 1");
    return $fetched =~ /(\d+)\|(.*)/ ? ($1, $2) : ('', '');
}

sub ids { return (fetch(@_))[1] }

sub ack {
    my ($server, $name, $upto, $generation, @more) = @_;
    return $server->safe_psql("select ngx_pgq.ack('$name', $upto, $generation" . join('', map { ", $_" } @more) . ')');
}

# Creates a subscription and takes its part with a lease of ten minutes. Returns the generation.
sub taken {
    my ($server, $name) = @_;
    $server->safe_psql("select ngx_pgq.subscribe('$name', start => 0)");
    return (fetch($server, $name, q{, lease => '10 min'}))[0];
}

# The SQLSTATE of a call that fails.
sub error {
    my ($server, $call) = @_;
    return ($server->psql("\\set VERBOSITY sqlstate\nselect ngx_pgq.$call"))[2] =~ /ERROR:  (\w+)/ ? $1 : '';
}

sub is_fenced {
    my ($server, $name, $generation, $what) = @_;
    is(error($server, "ack('$name', 9, $generation)"), 'PQ410', "$what: the former consumer cannot acknowledge");
    is(error($server, "fetch('$name', part => 1, generation => $generation)"), 'PQ410', "$what: the former consumer cannot fetch");
    return;
}

# ---- the clock of an unchanged lease of ten minutes: what a consumer gets at each difference from the clock that wrote it
taken($pg, 'unchanged');
for my $case ([ -3600, 'free' ], [ -120, 'free' ], [ 0, 'leased' ], [ 300, 'leased' ], [ 540, 'leased' ], [ 660, 'free' ], [ 3600, 'free' ]) {
    my ($seconds, $state) = @$case;
    $clock{one}->set($seconds);
    is($pg->safe_psql(q{begin; select case count(*) when 0 then 'leased' else 'free' end from ngx_pgq.fetch('unchanged'); rollback}), $state,
        "a lease of 600 s when the clock is set by $seconds s: the part is $state");
    is($pg->safe_psql(q{select case when leased_until is null then 'free' else 'leased' end from ngx_pgq.subscriptions where name = 'unchanged'}),
        $state, "the view agrees at $seconds s");
}
$clock{one}->set(0);

# ---- a restart with another clock
for my $restart ([ -3600, 'immediate' ], [ 3600, 'fast' ]) {
    my ($seconds, $how) = @$restart;
    my $what = "restarted ($how), $seconds s";
    my %held = map { $_ => taken($pg, "$_$seconds") } qw(lost kept);

    ack($pg, "$_$seconds", 2, $held{$_}) for sort keys %held;
    $clock{one}->set($seconds);
    $pg->restart($how);
    cmp_ok(abs($pg->safe_psql('select round(extract(epoch from clock_timestamp()))') - time - $seconds), '<', 60, "$what: the server has that clock");

    my ($other, $ids) = fetch($pg, "lost$seconds", q{, lease => '10 min'});
    is($ids, '3 4 5 6 7 8 9', "$what: another consumer has all posts that are not acknowledged, and no other, at once");
    is_fenced($pg, "lost$seconds", $held{lost}, $what);
    is(ids($pg, "lost$seconds", ''), '', "$what: a third consumer has no posts");

    is(ids($pg, "kept$seconds", ", part => 1, generation => $held{kept}"), '3 4 5 6 7 8 9', "$what: a consumer whose part was not taken goes on");
    is(ids($pg, "kept$seconds", ''), '', "$what: it has a lease by that clock");
    ack($pg, "kept$seconds", 9, $held{kept}, 'first => 3');

    ack($pg, "lost$seconds", 4, $other);
    $clock{one}->set($seconds + 540);
    is(ids($pg, "lost$seconds", ''), '', "$what: an acknowledgement renews the lease by that clock");
    $clock{one}->set($seconds + 660);
    is(ids($pg, "lost$seconds", ''), '5 6 7 8 9', "$what: this lease ends by that clock");
    $clock{one}->set(0);
}

# ---- the length of a lease changes while the clock is behind the one that wrote it
my $held = taken($pg, 'length');
$clock{one}->set(-3600);
fetch($pg, 'length', ", lease => '1 min', part => 1, generation => $held");
$clock{one}->set(-3660);
isnt(ids($pg, 'length', ''), '', 'a lease of a minute is renewed by a clock that is behind, and is not valid by one that is behind that');
$clock{one}->set(0);
$pg->safe_psql(q{select ngx_pgq.subscribe('day', start => 0); set timezone = 'America/New_York'; select count(*) from ngx_pgq.fetch('day', lease => '1 day')});
is($pg->safe_psql(q{select lease || ' ' || (until - clock_timestamp() between '23:59' and '24:00') from ngx_pgq.progress where name = 'day'}), '24:00:00 true',
    'a lease of a day has 24 hours, in each time zone');

# ---- a change that was rolled back, when the clock is behind the one by which the part was taken before
$clock{one}->set(3600);
my $before = taken($pg, 'rolled_back');
$clock{one}->set(0);
my ($undone) = $pg->safe_psql(q{begin; select max(generation) from ngx_pgq.fetch('rolled_back'); rollback}) =~ /(\d+)/;
my ($after)  = fetch($pg, 'rolled_back', '');
isnt($after, $undone, 'a generation of a transaction that was rolled back is not given again');
is_fenced($pg, 'rolled_back', $_, 'rolled back') for $before, $undone;

# ---- a failover that loses a change, to a clock that is behind
$clock{one}->set(3600);
my $replicated = taken($pg, 'failover');
ack($pg, 'failover', 4, $replicated);
my $standby = $pg->standby(env => { $clock{two}->environment });
$clock{two}->set(-3600);
$clock{one}->set(0);
my ($lost) = fetch($pg, 'failover', q{, lease => '1 hour'});
$pg->stop('immediate');
$standby->start->promote;
is($standby->safe_psql(q{select generation from ngx_pgq.subscriptions where name = 'failover'}), $replicated, 'the new primary lacks the last change');
my ($new, $ids) = fetch($standby, 'failover', '');
is($ids, '5 6 7 8 9', 'failover: a consumer has all posts that are not acknowledged, and no other, at once');
isnt($new, $lost, 'failover: a generation that was lost is not given again');
is_fenced($standby, 'failover', $_, 'failover') for $replicated, $lost;
$standby->stop;

# ---- consumers under load, while the server gets other clocks
$pg->start;
$pg->safe_psql(q{truncate posts, ngx_pgq.subscription, ngx_pgq.progress; select ngx_pgq.subscribe('all'), ngx_pgq.subscribe('parts', parts => 3)});
my $consumers = Pgq::Consumers->new($pg, all => 3, parts => 3)->start;
my $sent      = 0;

for my $seconds (-3600, 3600, -7200, 0) {
    $pg->safe_psql(q{insert into ngx_pgq.queue (data, topic) select to_json(n), 't/' || n % 20 from generate_series(1, 1000) as n});
    $sent += 1000;
    ok($pg->poll_query_until("select min(n) > $sent - 900 and count(*) = 2 from (select count(distinct id) as n from effect group by subscription) as s", 't', 60),
        "posts are processed before the clock is set to $seconds s");
    $clock{one}->set($seconds);
    $pg->restart('immediate');
}

ok($pg->poll_query_until("select min(n) = $sent and count(*) = 2 from (select count(distinct id) as n from effect group by subscription) as s", 't', 60),
    'all posts of each subscription have an effect');
$consumers->stop;
my @complaints = $consumers->complaints(all => 'true', parts => 'true');
is(scalar @complaints, 0, 'each post has one effect, and those of a topic are in order') or diag(join "\n", @complaints[ 0 .. ($#complaints < 9 ? $#complaints : 9) ]);

done_testing;
