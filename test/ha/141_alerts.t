# P10: each fault of a program raises the alerts that name it, and no other. The rules are those that are shipped; clients
# post to both web hosts all the time. 142_alerts_of_hosts.t has the faults of hosts.
#
# These alerts have no fault in the two files, only cases of monitoring/rules.test.yml: DiskFills and ClockDiffers, as
# containers have the disk and the clock of this machine; PatroniPaused, which takes an hour; PgqSubscriptionBehind, which
# takes 15 minutes; PgqTransactionIds, which takes 500 million transactions; PatroniTwoPrimaries and PatroniOtherTimeline,
# after which a member has to be copied; PgqRefusesMessages, which does not fire beside the alert that names the cause, as
# both files show.

use Pgq;
use Pgq::AlertTest;

my $test    = Pgq::AlertTest->new;
my $cluster = $test->cluster;
my $leader  = $cluster->leader;
my ($standby, $other) = $cluster->standbys;
my @webs    = map { $_->name } $cluster->webs;
my @pg      = map { $_->name } $cluster->databases;

sub must { my ($host, @command) = @_; return sub { $cluster->must($host, @command) } }
sub stop { my ($unit, @hosts) = @_; return $test->systemctl($unit, qw(stop start), @hosts) }
sub sql  { return map { my $sql = $_; sub { $cluster->safe_psql($sql) } } @_ }
sub cut  { my ($host, @from) = @_; return (sub { $cluster->partition($host, both => @from) }, sub { $cluster->heal($host) }) }

# Makes posts refuse rows, by a trigger with this condition and this SQLSTATE.
sub refuse {
    my ($when, $sqlstate) = @_;
    return sql("create function refuse() returns trigger language plpgsql as \$\$ begin raise sqlstate '$sqlstate'; end \$\$;
        create trigger refuse before insert on posts for each row when ($when) execute function refuse()", 'drop trigger refuse on posts; drop function refuse()');
}

# ---- faults whose alerts take minutes: the next ones happen at the same time

my $settings = '/var/lib/postgresql/17/ngx_pgq/postgresql.auto.conf';

my $dead = $test->lasting([ 'posts refuses a message', ['PgqDeadLetters ngx_pgq'], sub {
    my ($begin, $end) = refuse(q(new.data->>'refused' = 'yes'), '23514');
    $begin->();
    is(Pgq::Client->new(($cluster->webs)[0])->post('/post', '{"refused": "yes"}')->status, 202, 'a message is accepted that posts refuses');
    ok($cluster->poll_query_until('select count(*) > 0 from ngx_pgq.dead_letter', 't'), 'it becomes a dead letter');
    $end->();
}, sql('select ngx_pgq.retry_all()') ], 1000);

my $archive = $test->lasting([ 'WAL cannot be archived', ['PgqArchiveFails ngx_pgq'],
    sql('alter system set archive_command = false; select pg_reload_conf()', 'alter system reset archive_command; select pg_reload_conf()') ]);

my $broken = $test->lasting([ 'PostgreSQL of a standby cannot start', ["PatroniPostgresDown $other:8008"],
    sub { $cluster->must($other, 'sh', '-c', "echo nonsense = on >> $settings"); $cluster->kill_postmaster($other) },
    must($other, 'sed', '-i', '/^nonsense/d', $settings) ]);

$test->fault(75,
    [ 'there is no mover', ['PgqNoMovers ngx_pgq'],
        sql('alter system set ngx_pgq.movers = 0; select pg_reload_conf()', 'alter system reset ngx_pgq.movers; select pg_reload_conf()') ],
    [ 'nginx of a web host is stopped', ["TargetDown $webs[0]:9180"], stop(nginx => $webs[0]) ],
    [ 'HAProxy of the other one does not reach the database hosts', ["HaproxyNoPrimary $webs[1]:8404"], cut($webs[1], @pg) ],
    [ 'etcd of a standby is stopped', ["TargetDown $standby:2381"], stop(etcd => $standby) ],
);

$test->fault(30,
    [ 'a session locks posts', [ 'PgqQueueStalls ngx_pgq', map { "PgqRingStale $_:9180" } @webs ],
        must($leader, qw(systemd-run -q --collect runuser -u postgres -- psql -d posts -c), 'begin; lock table posts; select pg_sleep(3600)'),
        sql(q(select pg_terminate_backend(pid) from pg_stat_activity where query like 'begin; lock%')) ],
    [ 'HAProxy of a web host is stopped', ["TargetDown $webs[0]:8404"], stop(haproxy => $webs[0]) ],
    [ 'etcd of a standby does not reach the others', ["EtcdMemberAlone $standby:2381"], cut($standby, 'tcp dport 2380', grep { $_ ne $standby } @pg) ],
);

$test->fault(75, [ 'a mover backs off', ['PgqMoversFail backing off'], refuse('true', '53200') ]);

$broken->();
ok($cluster->settled(180), 'all members have their roles again');

$test->fault(100, [ 'nginx may not log in', [ map { "PgqNoDatabase $_:9180" } @webs ],
    sql(q(alter role ngx_pgq_web nologin; select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ngx_pgq_web'),
        'alter role ngx_pgq_web login') ]);

$archive->();

my $limit = $test->lasting([ 'nginx has reached a limit of connections', ["PgqConnectionsDown $webs[0]:9180"], sql(
    q(do $$ begin execute format('alter role ngx_pgq_web connection limit %s',
          (select count(*) - 2 from pg_stat_activity where usename = 'ngx_pgq_web')); end $$;
      select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'WEB' and query ~ 'enqueue' order by pid limit 2) =~ s/WEB/$webs[0]/r,
    'alter role ngx_pgq_web connection limit -1') ]);

my $behind = $test->lasting([ 'a standby does not stream', ["PatroniStandbyBehind $standby:8008"], sub {
    $cluster->partition($standby, out => 'tcp dport 5432', grep { $_ ne $standby } @pg);
}, sub { $cluster->heal($standby) } ]);

my $blind = $test->lasting([ 'nginx may not read the metrics of the database', [ map { "PgqNoMetrics $_:9180" } @webs ],
    sql(map { "$_ ngx_pgq_web" } 'revoke execute on function ngx_pgq.metrics() from public, ', 'grant execute on function ngx_pgq.metrics() to ') ]);

$test->fault(60, [ 'etcd has no quorum', [ 'EtcdNoQuorum etcd', map { "TargetDown $_:2381" } $standby, $other ], stop(etcd => $standby, $other) ]);
$_->() for $limit, $behind, $blind, $dead;
$test->end;

done_testing;
