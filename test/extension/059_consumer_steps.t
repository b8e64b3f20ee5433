# P2: a consumer of a subscription ends at each step from the fetch to the end of the commit: its session, its client or the
# server is killed. Another consumer with the same name has nothing until the part is free, then each post that is not
# acknowledged; the former one is fenced. Of consumers that fetch at the same time, each part has one.

use Pgq;

my @steps = (
    'the fetch is open', 'the part is taken', 'the effect is open', 'the acknowledgement is open', 'the commit is not written',
    'the commit is written', 'the commit has ended',
);
my $pg = Pgq::Postgres->new->start;

# A commit with an effect waits, before it is written, while a session holds the advisory lock 42.
$pg->safe_psql(<<'END');
insert into posts (at, message_id, data) select now(), gen_random_uuid(), to_json(n) from generate_series(1, 6) as n;
create table effect (n bigint generated always as identity, subscription text, id bigint);
create function hold() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(42); return null; end $$;
create constraint trigger hold after insert on effect deferrable initially deferred for each row execute function hold();
END

sub effect {
    my ($name, @ids) = @_;
    return "insert into effect (subscription, id) select '$name', id from unnest('{" . join(',', @ids) . "}'::bigint[]) as id order by id";
}

# Returns the generation and the ids of the posts, or ('', '').
sub fetch {
    my ($session, $arguments) = @_;
    return $session->query("select generation, string_agg(id::text, ' ' order by id) from ngx_pgq.fetch($arguments) group by 1") =~ /(\d+)\|(.*)/
        ? ($1, $2) : ('', '');
}

sub other { return fetch($pg->session, "'$_[0]', lease => '1 hour'") }

sub error { return ($pg->psql("\\set VERBOSITY sqlstate\nselect $_[0]"))[2] =~ /ERROR:  (\w+)/ ? $1 : '' }

sub end_lease { return $pg->safe_psql("update ngx_pgq.progress set until = clock_timestamp() where name = '$_[0]'") }

# Lets a consumer process the first three posts of a subscription until it is at a step. Returns its session and generation.
sub consumer {
    my ($name, $step) = @_;
    my $session = $pg->session;
    my $pid     = $session->query('select pg_backend_pid()');
    my $waits   = sub { ok($pg->poll_query_until("select wait_event from pg_stat_activity where pid = $pid", $_[0]), "$name: $_[0]") };

    $pg->safe_psql("select ngx_pgq.subscribe('$name', start => 0)");
    $session->query('begin');
    my ($generation, $ids) = fetch($session, "'$name', 3, '1 hour'");
    is($ids, '1 2 3', "$name: the consumer has three posts");
    $session->query('commit') if $step > 0;
    $session->query('begin; ' . effect($name, 1 .. 3)) if $step > 1;

    # The lease has ended when the row is locked: only the lock keeps others away.
    if ($step > 2) {
        end_lease($name);
        $session->query("select ngx_pgq.ack('$name', 3, $generation, first => 1)");
    }

    if ($step == 4) {
        $session->send('commit');
        $waits->('advisory');
    } elsif ($step == 5) {
        ok($pg->commits_wait_for('absent'), "$name: commits wait for a standby");
        $session->send('commit');
        $waits->('SyncRep');
    } elsif ($step == 6) {
        $session->query('commit');
    }

    return ($session, $pid, $generation);
}

my $holder = $pg->session;

for my $what (qw(session client server)) {
    for my $step (0 .. $#steps) {
        my $name = "$what-$step";
        diag("$what: $steps[$step]");
        $holder->query('select pg_advisory_lock(42)') if $step == 4;
        my ($session, $pid, $generation) = consumer($name, $step);

        is((other($name))[1], '', "$name: another consumer has no posts, and does not wait");

        if ($what eq 'session') {
            $pg->safe_psql("select pg_terminate_backend($pid)", env => { PGOPTIONS => '-c synchronous_commit=local' });
        } elsif ($what eq 'client') {
            kill 'KILL', $session->{pid};
        } else {
            $pg->stop('immediate')->start;
            $holder->quit;
            $holder = $pg->session;
        }

        my $committed = $step > 4 || $step == 4 && $what eq 'client';

        if ($step == 4) {
            is((other($name))[1], '', "$name: another consumer has no posts while the commit waits") if $committed;
            $holder->query('select pg_advisory_unlock(42)');
        } elsif ($step == 5) {
            ok($pg->commits_wait_for(''), "$name: commits do not wait any more");
        }

        ok($pg->poll_query_until("select count(*) from pg_stat_activity where pid = $pid and backend_type = 'client backend'", 0), "$name: the session ends");
        $session->quit;
        is(error("ngx_pgq.ack('$name', 3, $generation, first => 1)"), 'PQ412', "$name: what was committed is not processed again by the first consumer")
            if $committed;

        if ($committed || $step == 1 || $step == 2) {
            is((other($name))[1], '', "$name: another consumer has no posts during the lease");
            end_lease($name);
        }

        my ($taken, $ids) = other($name);
        is($ids, $committed ? '4 5 6' : '1 2 3 4 5 6', "$name: another consumer has the posts that are not acknowledged");
        is(error("ngx_pgq.ack('$name', 3, $generation)"), 'PQ410', "$name: the first consumer cannot acknowledge any more");
        is(error("ngx_pgq.fetch('$name', part => 1, generation => $generation)"), 'PQ410', "$name: it cannot fetch any more");
        $pg->safe_psql('begin; ' . effect($name, split ' ', $ids) . "; select ngx_pgq.ack('$name', 6, $taken, release => true); commit");
        is($pg->safe_psql("select string_agg(id::text, ' ' order by n) from effect where subscription = '$name'"), '1 2 3 4 5 6', "$name: each post has one effect, in order");
    }
}

# ---- consumers that fetch at the same time
for my $parts (1, 3) {
    $pg->safe_psql("select ngx_pgq.subscribe('same-$parts', parts => $parts); insert into posts (at, message_id, data, topic)
                    select now(), gen_random_uuid(), to_json(n), 't/' || n from generate_series(1, 20) as n");

    my @sessions = map { $pg->session } 1 .. 6;
    $_->query('select') for @sessions;

    for my $round (1 .. 20) {
        $_->send("select distinct part from ngx_pgq.fetch('same-$parts', lease => '1 hour')") for @sessions;
        my @parts = sort grep { $_ ne '' } map { $_->result } @sessions;
        is("@parts", join(' ', 1 .. $parts), "$parts parts, round $round: each part has one of six consumers");
        end_lease("same-$parts");
    }

    $_->quit for @sessions;
}

# ---- a lease that ends by itself
$pg->safe_psql(q{select ngx_pgq.subscribe('ends', start => 0)});
my ($first) = fetch($pg->session, q{'ends', lease => '1 s'});
my $until   = $pg->safe_psql(q{select until from ngx_pgq.progress where name = 'ends'});
ok($pg->poll_query_until(q{select count(*) > 0 from ngx_pgq.fetch('ends', lease => '1 hour')}), 'another consumer has posts when the lease has ended');
is($pg->safe_psql("select until - interval '1 hour' >= '$until' from ngx_pgq.progress where name = 'ends'"), 't', 'and not before');
is(error("ngx_pgq.ack('ends', 1, $first)"), 'PQ410', 'the consumer whose lease has ended cannot acknowledge any more');
$holder->quit;

done_testing;
