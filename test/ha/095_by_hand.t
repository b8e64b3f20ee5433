# P1, P10: an operator promotes a standby by hand, or sets synchronous_standby_names. Nothing acknowledged is lost,
# `make cluster-status` says what is wrong, the two commands of the runbook heal it, and refuse what would lose messages.

use Pgq;
use Pgq::Host qw(run top);
use Pgq::ClusterTest;

my $cluster = Pgq::Cluster->new;

# Its status, and what it says.
sub provision { my ($status, $out, $err) = run([ top() . '/provision/cluster/cluster', @_ ]); return ($status, "$out$err") }

sub promote {
    my ($host) = @_;
    $cluster->must($host, qw(runuser -u postgres -- /usr/lib/postgresql/17/bin/pg_ctl -D /var/lib/postgresql/17/ngx_pgq -W promote));
    return;
}

# The status says that, twice: a standby that is being restarted does not stream for a moment.
sub says {
    my ($pattern, $seconds) = @_;
    my ($said, $text) = (0, '');

    poll_until { $text = (provision('status'))[1]; $said = $text =~ $pattern ? $said + 1 : 0; return $said == 2 } timeout($seconds) or diag($text);

    return $said == 2;
}

# ---- promoted while another leads

{
    my $test  = Pgq::ClusterTest->new('a standby promoted by hand', target => 5);
    my ($host) = $cluster->standbys;
    my $leader = $cluster->leader;

    $test->round(sub {
        promote($host);
        ok(says(qr/^! \Q$host\E does not replicate/m, 60), 'the status says that it does not replicate');
        ok(says(qr/^! \Q$host\E has timeline \d+, which the primary does not have/m, 60), 'and why');
        is((grep { $_->{Member} eq $host } $cluster->members)[0]{State}, 'running', 'which Patroni does not say');

        my ($status, $said) = provision(failover => $host);
        isnt($status, 0, 'it does not become the primary by make cluster-failover');
        like($said, qr/\Q$host\E may lack acknowledged messages:\n(?:  pg\d is at .*\n){2}/, 'because two members are ahead of it');
        is($cluster->leader, $leader, 'the same member leads');
    }, repair => sub {
        is((provision(reinit => $host))[0], 0, 'make cluster-reinit heals it');
    });
    $test->end;
}

# ---- promoted a second before the primary is gone: two members give the same number to a timeline

{
    my $test  = Pgq::ClusterTest->new('a standby promoted by hand, and the primary off', target => 30, allow => 'unreachable|closed|truncated|reader .*');
    my ($host) = $cluster->standbys;

    $test->takeover(sub {
        my ($leader) = @_;
        promote($host);
        $test->hold(1);
        $cluster->do_to(off => $leader);
        ok((poll_until { ($cluster->leader // $leader) ne $leader } timeout(60)), 'another member becomes the primary');
    }, stops_load => 1, repair => sub {
        $cluster->do_to(up => @_);
        ok($test->load_runs, 'when the old primary is back messages are accepted');
        ok(says(qr/^! \Q$host\E does not replicate/m, 120), 'the status says that the one that was promoted does not replicate');
        is((provision(reinit => $host))[0], 0, 'make cluster-reinit heals it');
    });
    $test->end;
}

# ---- both commands in a cluster that is well

{
    my ($host) = $cluster->standbys;
    my ($status, $said) = provision(failover => $host);

    isnt($status, 0, 'there is no failover in a cluster that is well');
    like($said, qr/make cluster-switchover loses nothing/, 'but a switchover');
    ($status, $said) = provision(reinit => $cluster->leader);
    isnt($status, 0, 'and the leader is not copied over');
}

# ---- the setting that P1 rests on

{
    my $test = Pgq::ClusterTest->new('synchronous_standby_names set by hand', allow => 'refused|unknown|read_failed');

    $test->round(sub {
        $cluster->safe_psql(q(alter system set synchronous_standby_names = ''));
        $cluster->safe_psql('select pg_reload_conf()');
        $test->accepts_nothing(5);
        ok(says(qr/\| by hand: see/, 30), 'the status says that it is set by hand');
    }, stops_load => 1, repair => sub {
        $cluster->safe_psql('alter system reset synchronous_standby_names');
        $cluster->safe_psql('select pg_reload_conf()');
    });
    $test->end;
}

done_testing;
