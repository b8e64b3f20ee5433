# P1, P2, P3: consumers by HTTP, at both web hosts, and by SQL, through HAProxy, work while the primary is switched over, the
# primary's host loses power, and a web host loses power. Each accepted message is given for each subscription, in the order of
# its topic, and none after its acknowledgement; each has one effect in the database. A consumer whose lease has ended
# meanwhile is fenced.

use Pgq;
use Pgq::Cluster;
use Pgq::Consumers;
use Pgq::HttpConsumers;

use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime time);

my $cluster = Pgq::Cluster->new;
my @webs    = $cluster->webs;

sub now      { return clock_gettime(CLOCK_MONOTONIC) }
sub client   { return Pgq::Client->new($webs[ $_[0] ]) }
sub ids      { return join ' ', map { $_->{id} } @{ $_[0]->json->{msg} } }
sub sql_rows { my ($session, $sql) = @_; return map { [ split /\|/ ] } split /\n/, $session->query($sql) }

sub ack {
    my ($web, $name, $upto, $from) = @_;
    return client($web)->post("/sub/$name/ack", sprintf '{"upto":%d,"generation":%d}', $upto, $from->json->{generation})->status;
}

# The posts after the last acknowledgement, for the consumer that got this answer.
sub continue_at {
    my ($web, $name, $from) = @_;
    return client($web)->get("/sub/$name?limit=2&wait=20&part=1&generation=" . $from->json->{generation});
}

ok($cluster->settled(120), 'each member is the primary or a synchronous standby') or BAIL_OUT('the cluster is not whole');

my $since  = $cluster->safe_psql('select coalesce(max(id), 0) from posts');
my $began  = time;
my $alerts = alerts();
my @names  = qw(one four ends lasts moves);

$cluster->safe_psql('drop table if exists effect; select ngx_pgq.unsubscribe(name) from ngx_pgq.subscription');
is(client(0)->method('PUT', "/sub/$_", sprintf '{"start":%d,"parts":%d}', $since, $_ eq 'four' ? 4 : 1)->status, 201, "the subscription $_ is created")
    for @names;
$cluster->safe_psql("select ngx_pgq.subscribe('$_', start => $since, parts => " . ($_ eq 'sql' ? 2 : 1) . ')') for qw(sql sql_ends);

my $load = $cluster->load(new => 0, kept => 0, failover => 6, topics => 7, pause => 0.1, since => $since, order => 0)->start;
my $http = Pgq::HttpConsumers->new(\@webs, one => 2, four => 4)->start(lives => 'inf');
my $sql  = Pgq::Consumers->new($cluster, sql => 3);
$cluster->safe_psql('grant select, insert on effect to ngx_pgq_web');
$sql->start;

# How many alerts the web hosts have logged.
sub alerts {
    return join ' ', map { ($cluster->on($_, qw(grep -acE), '\[(alert|emerg)\]', '/var/log/nginx/error.log'))[1] =~ /(\d+)/ } @webs;
}

# Whether the load continues, and each subscription gets these posts.
sub goes_on {
    my %before = map { $_ => $http->effects($_) } qw(one four);
    my $effects = $cluster->safe_psql('select count(*) from effect');

    return $load->wait_for(5, 60)
        && (poll_until { !grep { $http->effects($_) < $before{$_} + 30 } keys %before } 60)
        && $cluster->poll_query_until("select count(*) >= $effects + 30 from effect", 't', 60);
}

# Times without a delivery since a time: of each subscription, and of messages accepted.
sub gaps {
    my ($fault, $from) = @_;
    my $at  = time - (now() - $from);
    my $sql = $cluster->safe_psql("select round(max(extract(epoch from at - before)), 2)
        from (select at, lag(at, 1, to_timestamp($at)) over (order by at) as before from effect where at > to_timestamp($at)) as effects");

    diag(sprintf '%s: longest time without a delivery: one %.2f s, four %.2f s, by SQL %s s; requests of consumers that failed: %d', $fault,
        (map { $http->gap($_, $from) } qw(one four)), $sql, $http->count('failed'));

    return;
}

ok(goes_on(), 'before the faults all consumers work');

# ---- the primary changes

my $lasts = client(0)->get('/sub/lasts?limit=3&lease=3600');

for my $fault ('switchover', "primary's host off") {
    my $leader = $cluster->leader;
    my $first  = $cluster->session;

    # These consumers have leases of two seconds, and others wait for the posts.
    my $held    = client(0)->get('/sub/ends?limit=3&lease=2');
    my ($sql_held) = sql_rows($first, q{select generation, min(id), max(id) from ngx_pgq.fetch('sql_ends', 3, '2 s') group by generation});
    my $waiting = client(1)->send_get('/sub/ends?limit=3&lease=60&wait=60');
    is(ack(1, 'lasts', $lasts->json->{msg}[0]{id}, $lasts), 204, "$fault: one of three posts is acknowledged before it");

    my $from = now();
    $fault eq 'switchover' ? ok($cluster->switchover, "$fault succeeds") : $cluster->do_to(off => $leader);

    my $taken = $waiting->answer(timeout => 90);
    is(ids($taken), ids($held), "$fault: a consumer that waits gets the posts of one whose lease has ended");
    is_problem(client(0)->post('/sub/ends/ack', sprintf '{"upto":%d,"generation":%d}', $held->json->{next}, $held->json->{generation}),
        409, 'fenced', "$fault: the acknowledgement of that one");
    is(ack(0, 'ends', $taken->json->{next}, $taken), 204, "$fault: the acknowledgement of the one that waited");

    # The first session is lost.
    my ($second, @sql_taken);
    poll_until {
        $second //= $cluster->session;
        @sql_taken = eval { sql_rows($second, q{select generation, min(id), max(id) from ngx_pgq.fetch('sql_ends', 3, '60 s') group by generation}) };
        $second = undef if $@;
        return @sql_taken && @{ $sql_taken[0] } == 3;
    } 60;
    is("@{ $sql_taken[0] }[1, 2]", "@$sql_held[1, 2]", "$fault: another session gets the posts of one whose lease has ended");
    like($second->query("\\set VERBOSITY sqlstate\nselect ngx_pgq.ack('sql_ends', $sql_held->[2], $sql_held->[0])"), qr/PQ410/,
        "$fault: the generation of that one is fenced");
    is($second->query("select ngx_pgq.ack('sql_ends', $sql_taken[0][2], $sql_taken[0][0], release => true)"), '', "$fault: the other one acknowledges");
    $second->quit;
    eval { $first->quit };

    is(ids(client(1)->get('/sub/lasts')), '', "$fault: a lease of an hour keeps others away from the new primary");
    my $next = continue_at(0, 'lasts', $lasts);
    is((split / /, ids($next))[0], $lasts->json->{msg}[1]{id}, "$fault: its consumer continues after what was acknowledged before");
    $lasts = $next;

    ok(goes_on(), "$fault: all consumers go on");
    gaps($fault, $from);
    isnt($cluster->leader, $leader, "$fault: another member leads");
    $cluster->do_to(up => $leader) if $fault ne 'switchover';
    ok($cluster->settled(120), "$fault: all members have their roles again");
    is(ack(0, 'ends', $taken->json->{next}, $taken), 204, "$fault: a repeated acknowledgement");
    client(0)->post('/sub/ends/ack', sprintf '{"upto":%d,"generation":%d,"release":true}', $taken->json->{next}, $taken->json->{generation});
}

is($http->count('failed'), 0, 'no request of a consumer fails while the primary changes');

# ---- a web host

my $moves = client(0)->get('/sub/moves?limit=4&lease=3600');
is(ack(0, 'moves', $moves->json->{msg}[1]{id}, $moves), 204, 'two of four posts are acknowledged at web1');

my $from = now();
$cluster->do_to(off => 'web1');
my $next = continue_at(1, 'moves', $moves);
is(ids($next), join(' ', map { $_->{id} } @{ $moves->json->{msg} }[ 2, 3 ]), 'web1 is off: its consumer gets the other two at web2');
is($next->json->{generation}, $moves->json->{generation}, 'web1 is off: the consumer keeps its generation');
is(ack(1, 'moves', $moves->json->{next}, $moves), 204, 'web1 is off: it acknowledges at web2');
ok(goes_on(), 'web1 is off: all consumers go on');
gaps('web host off', $from);
$cluster->do_to(up => 'web1');
ok((poll_until { my $answer = eval { client(0)->get('/get?limit=1') }; $answer && $answer->status == 200 } 60), 'web1 is back');
ok(goes_on(), 'web1 is back: all consumers go on');

# ---- what was given

$load->stop;
my $posts = "id > $since";
my @wrong = $load->complaints(60);
is(join("\n", @wrong), '', 'each accepted message is in posts once');
is($load->failures, '', 'no message is refused');
is(alerts(), $alerts, 'nginx logs no alert');
like($cluster->timelines, qr/^\d+$/, 'all members are on one timeline');

my $count = $cluster->safe_psql("select count(*) from posts where $posts");
ok((poll_until { !grep { $http->effects($_) != $count } qw(one four) } 60), 'each post is given for each subscription');
ok($cluster->poll_query_until("select count(*) from effect where subscription = 'sql'", $count, 60), 'each post has an effect in the database');
ok($cluster->poll_query_until("select lag from ngx_pgq.subscriptions where name = 'one'", 0), 'each post is acknowledged');
$_->stop for $http, $sql;

@wrong = ($http->complaints($cluster, one => $posts, four => $posts), $sql->complaints(sql => $posts));
is(join("\n", splice @wrong, 0, 10), '', 'by HTTP each first effect is in order, and nothing acknowledged is given again; by SQL each post has one effect');
cmp_ok($_->[1], '>', 0, "$_->[0], $_->[1] times") for [ 'leases end, and consumers by HTTP are fenced', $http->count('fenced') ],
    [ 'consumers by SQL lose their connections', $sql->count('lost') ];
diag(sprintf '%d posts in %d s; by HTTP: %s; by SQL: %s', $count, time - $began,
    (join ', ', map { $_ . ' ' . $http->count($_) } qw(got acked fenced failed)), (join ', ', map { $_ . ' ' . $sql->count($_) } qw(accepted lost PQ410 PQ412)));

is(client(1)->method('DELETE', "/sub/$_")->status, 204, "the subscription $_ is deleted") for @names, qw(sql sql_ends);
$cluster->safe_psql('drop table effect');

done_testing;
