# P1, P10: an operator promotes a standby by hand, or sets synchronous_standby_names. No acknowledged message is lost,
# `make cluster-status` reports the problem, and the two commands of the runbook repair it and refuse to lose
# messages.

use Pgq;
use Pgq::ClusterTest;

my $cluster = Pgq::Cluster->new;

sub promote {
    my ($host) = @_;
    $cluster->must($host, qw(runuser -u postgres -- /usr/lib/postgresql/17/bin/pg_ctl -D /var/lib/postgresql/17/ngx_pgq -W promote));
    return;
}

# Waits until the status matches twice in a row: a standby that is being restarted does not stream for a moment.
sub status_says {
    my ($pattern, $seconds) = @_;
    my ($matches, $text) = (0, '');

    poll_until { $text = ($cluster->provision('status'))[1]; $matches = $text =~ $pattern ? $matches + 1 : 0; return $matches == 2 } timeout($seconds) or diag($text);

    return $matches == 2;
}

# ---- a standby is promoted while another member leads

{
    my $test  = Pgq::ClusterTest->new('a standby promoted by hand', target => 5);
    my ($host) = $cluster->standbys;
    my $leader = $cluster->leader;

    $test->round(sub {
        promote($host);
        ok(status_says(qr/^! \Q$host\E does not replicate/m, 60), 'the status says that the promoted standby does not replicate');
        ok(status_says(qr/^! \Q$host\E has timeline \d+, which the primary does not have/m, 60), 'the status says that the promoted standby has another timeline');
        is((grep { $_->{Member} eq $host } $cluster->members)[0]{State}, 'running', 'Patroni reports the promoted standby as running');

        my ($status, $output) = $cluster->provision(failover => $host);
        isnt($status, 0, 'make cluster-failover refuses the promoted standby');
        like($output, qr/\Q$host\E may lack acknowledged messages:\n(?:  pg\d is at .*\n){2}/, 'make cluster-failover names the two members that are ahead');
        is($cluster->leader, $leader, 'the primary keeps leading');
    }, repair => sub {
        is(($cluster->provision(reinit => $host))[0], 0, 'make cluster-reinit makes it a standby again');
    });
    $test->end;
}

# ---- a standby is promoted a second before the primary loses power: two members use the same timeline number

{
    my $test  = Pgq::ClusterTest->new('a standby promoted by hand, and the primary off', target => 30, allow => 'unreachable|closed|truncated|reader .*');
    my ($host) = $cluster->standbys;

    $test->takeover(sub {
        my ($leader) = @_;
        promote($host);
        $test->hold(1);
        $cluster->do_to(off => $leader);
        ok((poll_until { ($cluster->leader // $leader) ne $leader } timeout(60)), 'another member takes over');
    }, stops_load => 1, repair => sub {
        $cluster->do_to(up => @_);
        ok($test->load_runs, 'when the old primary is back messages are accepted');
        ok(status_says(qr/^! \Q$host\E does not replicate/m, 120), 'the status says that the standby promoted before the takeover does not replicate');
        is(($cluster->provision(reinit => $host))[0], 0, 'make cluster-reinit makes it a standby again');
    });
    $test->end;
}

# ---- both commands in a healthy cluster

{
    my ($host) = $cluster->standbys;
    my ($status, $output) = $cluster->provision(failover => $host);

    isnt($status, 0, 'make cluster-failover refuses in a healthy cluster');
    like($output, qr/streams from it: use make cluster-switchover/, 'make cluster-failover recommends a switchover');
    ($status, $output) = $cluster->provision(reinit => $cluster->leader);
    isnt($status, 0, 'make cluster-reinit refuses the leader');
}

# ---- a forced failover

{
    my $test   = Pgq::ClusterTest->new('a forced failover', target => 10, allow => 'refused|unknown|read_failed');
    my $seen   = $cluster->safe_psql('select max(id) from posts');
    my ($host) = $cluster->standbys;

    $test->takeover(sub {
        $cluster->must($host, '/usr/local/lib/ngx_pgq/force_failover');
        is($cluster->leader, $host, 'the member on which force_failover ran leads');
        ok($cluster->poll_query_until("select max(id) > $seen + 1000000000 from posts", 't'), 'after a forced failover new posts have much higher ids');
    });
    isnt(($cluster->on($host, '/usr/local/lib/ngx_pgq/force_failover'))[0], 0, 'force_failover refuses the primary');
    unlike(($cluster->provision('status'))[1], qr/^! the movers/m, 'the status does not say that movers are stopped');
    $test->end;

    # A member that was copied while the movers were stopped has this line.
    my ($standby) = $cluster->standbys;
    my $settings  = '/var/lib/postgresql/17/ngx_pgq/postgresql.auto.conf';

    $cluster->must($standby, 'sh', '-c', "echo 'ngx_pgq.movers = 0    # ids are not raised' >> $settings");
    ok(status_says(qr/^! the movers of \Q$standby\E are stopped/m, 30), 'the status says that the movers of a standby are stopped');
    $cluster->must($standby, 'sed', '-i', '/ids are not raised$/d', $settings);
}

# ---- the setting on which P1 depends

{
    my $test = Pgq::ClusterTest->new('synchronous_standby_names set by hand', allow => 'refused|unknown|read_failed');

    $test->round(sub {
        $cluster->safe_psql(q(alter system set synchronous_standby_names = ''));
        $cluster->safe_psql('select pg_reload_conf()');
        $test->accepts_nothing(5);
        ok(status_says(qr/\| by hand: see/, 30), 'the status says that synchronous_standby_names is set by hand');
    }, stops_load => 1, repair => sub {
        $cluster->safe_psql('alter system reset synchronous_standby_names');
        $cluster->safe_psql('select pg_reload_conf()');
    });
    $test->end;
}

done_testing;
