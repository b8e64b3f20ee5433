package Pgq::Cluster;

# The five hosts of `make cluster`, as a test sees them.
#
#   my $cluster = Pgq::Cluster->new;                    the running cluster; without one, starts one until the end of the test
#   $cluster->settled;                                  a leader, and every other member a synchronous standby of it
#   my $load = $cluster->load->start;                   Pgq::HttpLoad at both web hosts
#   $cluster->switchover;   $cluster->on('pg1', 'systemctl', 'stop', 'etcd');   $cluster->do_to(freeze => 'pg2')
#   $cluster->partition('pg1', in => 'pg2', 'pg3');   $cluster->heal('pg1')
#
# safe_psql and poll_query_until are those of Pgq::Postgres, and use the primary. Faults of hosts are caused by
# provision/cluster/cluster.

use strict;
use warnings;

use Carp qw(croak);
use JSON::PP ();
use MIME::Base64 qw(encode_base64);

use Pgq::HttpLoad;
use Pgq::Host qw(top build_dir run slurp temp_dir);
use Pgq::Postgres;
use Pgq::Session;
use Pgq::Wait qw(poll_until);

my $command = top() . '/provision/cluster/cluster';
my %services = (web => [qw(haproxy nginx)], database => [qw(etcd patroni ngx_pgq_etcd_aside.timer)], backup => ['pgbackrest'], monitor => ['prometheus']);
my ($started, $repaired, $log);


# Fails with the reason where no cluster can run.
sub new {
    my ($class) = @_;
    my $peers = top() . '/run/cluster/peers';

    # Processes that run() starts end with the test; the cluster does not. The load uses plain HTTP.
    if (!-e $peers) {
        $started = $$;
        local $ENV{NGX_PGQ_HTTP} = 'on';
        system("$command start > /dev/null") == 0 or croak 'there is no cluster';
    }

    my $http = top() . '/run/cluster/http';
    croak 'this cluster has no plain HTTP: NGX_PGQ_HTTP=on make cluster' if !-e $http || slurp($http) ne "on\n";

    open my $in, '<', $peers or croak "$peers: $!";
    my @hosts = map { /^(\w+):(\w+):(\S+)$/ ? { role => $1, name => $2, address => $3, port => 80 } : () } <$in>;

    my $self = bless { hosts => [ map { bless $_, 'Pgq::Cluster::Host' } @hosts ] }, $class;
    $self->repair if !$repaired++ && !$started;

    return $self;
}


END {
    if ($started && $started == $$) {
        my $status = $?;
        system("$command stop") if !$ENV{PGQ_KEEP};
        $? = $status;
    }
}


# The certificate of the installation's CA.
sub ca { return top() . '/run/cluster/secrets/ca.crt' }

sub webs      { return grep { $_->{role} eq 'web' } @{ $_[0]{hosts} } }
sub databases { return grep { $_->{role} eq 'database' } @{ $_[0]{hosts} } }


# Runs a command on a host as root. Returns status, output and errors.
sub on {
    my ($self, $host, @command) = @_;

    return _reach([ $command, 'on', ref $host ? $host->name : $host, @command ]);
}


# On a busy machine lxc-attach itself may fail: then it is tried again.
sub _reach {
    my (@run) = @_;
    my @result;

    poll_until {
        @result = run(@run);
        return $result[2] !~ /^lxc-attach: .*[\s\S]*Failed to get (?:init pid|attach context)/;
    } 5;

    return @result;
}


# The members as patronictl lists them in JSON; empty when no host answers.
sub members {
    my ($self) = @_;

    for my $host ($self->databases) {
        my ($status, $out) = $self->on($host, qw(timeout 30 patronictl -c /etc/patroni/config.yml list -f json));
        my $list = $status ? undef : eval { JSON::PP::decode_json($out) };
        return @$list if $list;
    }

    return;
}


# The member that leads; undef if there is none for half a minute.
sub leader {
    my ($self) = @_;
    my $leader;

    poll_until { ($leader) = map { $_->{Member} } grep { $_->{Role} eq 'Leader' } $self->members } 30;

    return $leader;
}


# Waits until one member leads and every other one streams from it as a quorum standby; false at the deadline.
sub settled {
    my ($self, $seconds) = @_;

    return poll_until {
        my @members = $self->members;
        my %count;

        $count{"$_->{Role} $_->{State}"}++ for @members;

        return ($count{'Leader running'} // 0) == 1 && ($count{'Quorum Standby streaming'} // 0) == $self->databases - 1;
    } $seconds // 60;
}


# Makes another member the primary; false on failure.
sub switchover {
    my ($self) = @_;
    my ($status, $out, $err) = run([ $command, 'switchover' ]);

    Test::More::diag($out . $err) if $status;

    return !$status;
}


sub psql {
    my ($self, $sql) = @_;
    my ($status, $out, $err) = _reach([ $command, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', '-' ], in => $sql);

    $out =~ s/\n\z//;

    return ($status, $out, $err);
}


sub safe_psql        { goto &Pgq::Postgres::safe_psql }
sub poll_query_until { goto &Pgq::Postgres::poll_query_until }


# An open psql session on a web host, with nginx's role, through both HAProxies: see Pgq::Session.
sub session {
    my ($self) = @_;
    my @webs = map { $_->name } $self->webs;

    return Pgq::Session->new([ $command, 'on', $webs[ rand @webs ], 'psql' ], 'host=' . join(',', @webs) . ' port=5000 dbname=posts'
        . ' user=ngx_pgq_web passfile=/etc/ngx_pgq/pgpass sslmode=verify-full sslrootcert=/etc/ngx_pgq/ca.crt'
        . ' target_session_attrs=read-write connect_timeout=2');
}


# A load at every web host. Takes the options of Pgq::HttpLoad.
sub load {
    my ($self, %option) = @_;

    return Pgq::HttpLoad->new([ $self->webs ], $self, new => 2, kept => 2, watch => 0, number => 'load-' . int time, %option);
}


# ---- faults of hosts

sub host {
    my ($self, $name) = @_;
    my ($host) = grep { $_->{name} eq $name } @{ $self->{hosts} };

    return $host // croak "no host is called $name";
}


# All members except the leader.
sub standbys {
    my ($self) = @_;
    my $leader = $self->leader // '';

    return grep { $_ ne $leader } map { $_->{name} } $self->databases;
}


# Runs a command of provision/cluster/cluster for each host: down, off, up, freeze, thaw, cut or join.
sub do_to {
    my ($self, $what, @hosts) = @_;

    for my $host (@hosts) {
        my ($status, $out, $err) = run([ $command, $what, $host ]);
        croak "$what $host: $out$err" if $status;
    }

    return;
}


# Runs a command that must succeed on a host and returns its output.
sub must {
    my ($self, $host, @command) = @_;
    my ($status, $out, $err) = $self->on($host, @command);

    croak "$host: @command: status $status\n$out$err" if $status;
    chomp $out;

    return $out;
}


# Drops packets from other hosts to this one ('in'), from it to them ('out'), or 'both', until heal(). An argument with a space
# is a condition of nftables that restricts this to some packets: 'tcp dport 5432'.
sub partition {
    my ($self, $host, $way, @others) = @_;
    my @rules = grep { / / } @others;
    my $them  = join ', ', map { $self->host($_)->{address} } grep { !/ / } @others;
    my $chain = sub {
        my ($hook, $field) = @_;
        return " chain $hook { type filter hook $hook priority -10;"
            . join('', map { " ip $field { $them } $_ drop;" } @rules ? @rules : '') . ' };';
    };

    $self->must($host, 'nft', 'add table ip pgq_partition; delete table ip pgq_partition; table ip pgq_partition {'
        . ($way ne 'out' ? $chain->(input => 'saddr') : '') . ($way ne 'in' ? $chain->(output => 'daddr') : '') . ' }');

    return;
}


sub heal {
    my ($self, @hosts) = @_;

    $self->must($_, 'nft', 'delete table ip pgq_partition') for @hosts;

    return;
}


# Ends faults that an earlier test left behind. Each test file begins with it.
sub repair {
    my ($self) = @_;

    for my $host (@{ $self->{hosts} }) {
        run([ $command, $_, $host->name ]) for qw(thaw up join);
        $self->on($host, qw(nft delete table ip pgq_partition));
        $self->on($host, 'sh', '-c', 'systemctl thaw patroni; systemctl kill --kill-whom=all --signal=CONT haproxy patroni');
        $self->true_clock($host);
        $self->on($host, qw(systemctl start --no-block prometheus-node-exporter), @{ $services{ $host->{role} } });
    }

    return;
}


# ---- clocks

# Sets the clock of PostgreSQL and Patroni, or of nginx, on a host to this many seconds from the true time. Containers share the
# machine's clock, so this uses libfaketime. The first call restarts the service; later ones let its clock jump.
# plain_select.so brings the clock to background workers.
sub clock {
    my ($self, $name, $offset) = @_;
    my $unit = $self->host($name)->{role} eq 'web' ? 'nginx' : 'patroni';
    my $file = "/etc/systemd/system/$unit.service.d/pgq_clock.conf";
    my %fake = (FAKETIME_TIMESTAMP_FILE => '/etc/pgq_clock', FAKETIME_NO_CACHE => 1, FAKETIME_DONT_FAKE_MONOTONIC => 1);

    # nginx keeps only the environment variables that its configuration names.
    my $start = $unit eq 'nginx' ? '\\nExecStart=\\nExecStart=/usr/sbin/nginx -g "daemon on; master_process on; env LD_PRELOAD; '
        . join(' ', map { "env $_;" } sort keys %fake) . '"' : '';
    my $select = $unit eq 'nginx' ? '' : '/usr/local/lib/pgq_plain_select.so';
    my $copy   = $select && 'echo ' . encode_base64(slurp(build_dir() . '/plain_select.so'), '') . " | base64 -d > $select";

    $self->must($name, 'sh', '-c', sprintf 'echo "%+d" > /etc/pgq_clock.new; mv /etc/pgq_clock.new /etc/pgq_clock', $offset);
    $self->must($name, 'sh', '-c', "test -e $file || { $copy
            printf '[Service]\\nEnvironment=LD_PRELOAD=" . ($select && "$select:") . '%s '
        . join(' ', map { "$_=$fake{$_}" } sort keys %fake) . "$start\\n' /usr/lib/*/faketime/libfaketimeMT.so.1 > $file
            systemctl daemon-reload; systemctl restart $unit; }");

    return;
}


# The difference of a host's clock from this machine's in seconds; undef without an answer.
sub clock_of {
    my ($self, $name) = @_;
    my ($status, $out) = $self->host($name)->{role} eq 'web'
        ? $self->on($name, 'sh', '-c', q(date -d "$(curl -s -o /dev/null -w '%header{date}' http://127.0.0.1:9180/status)" +%s))
        : $self->on($name, qw(runuser -u postgres -- psql -d posts -XAtqc), 'select round(extract(epoch from clock_timestamp()))');

    return $status || $out !~ /^\d+$/ ? undef : $out - time;
}


# Gives hosts the machine's clock again.
sub true_clock {
    my ($self, @hosts) = @_;

    $self->on($_, 'sh', '-c', 'for unit in patroni nginx; do
        rm /etc/systemd/system/$unit.service.d/pgq_clock.conf 2> /dev/null && systemctl daemon-reload && systemctl restart $unit; done') for @hosts;

    return;
}


# The host whose HAProxy most lanes of a web host use.
sub haproxy_of {
    my ($self, $web) = @_;
    my $address = $self->safe_psql("select client_addr from pg_stat_activity
         where application_name = '$web' group by 1 order by count(*) desc limit 1");
    my ($host) = grep { $_->{address} eq $address } $self->webs;

    return $host->name;
}


# Run patronictl or etcdctl on a host and return the output.
sub patronictl { my ($self, $host, @arguments) = @_; return $self->must($host, qw(patronictl -c /etc/patroni/config.yml), @arguments) }
sub etcdctl    { my ($self, $host, @arguments) = @_; return $self->must($host, '/usr/local/lib/ngx_pgq/etcdctl', @arguments) }


# What PostgreSQL and Patroni have logged on a host since a time.
sub log_since { my ($self, $host, $time) = @_; return $self->must($host, qw(journalctl -q -o cat -u patroni), "--since=\@$time") }


# The hosts that are voting members of etcd, as text. Others are marked with "not:".
sub etcd_members {
    my ($self) = @_;

    return join ' ', sort map { /^\w+, started, (\w+), .*, false$/ ? $1 : "not: $_" } split /\n/, $self->etcdctl($self->leader, qw(member list));
}


# Runs a command of provision/cluster/cluster. Returns its exit status and output.
sub provision {
    my ($self, @arguments) = @_;
    my ($status, $out, $err) = run([ $command, @arguments ]);

    return ($status, "$out$err");
}


# Runs a command of provision/cluster/cluster that must succeed, with its arguments as text for the shell. It may start
# processes that do not end with the test, which run() cannot.
sub must_provision {
    my ($self, $arguments) = @_;
    $log //= temp_dir('cluster') . '/log';
    system("$command $arguments > $log 2>&1") == 0 or croak "cluster $arguments: ", slurp($log);

    return 1;
}


# Kills the postmaster of a host.
sub kill_postmaster {
    my ($self, $host) = @_;

    $self->must($host, 'sh', '-c', 'kill -9 $(head -n 1 /var/lib/postgresql/17/ngx_pgq/postmaster.pid)');

    return;
}


# The host whose etcd leads.
sub etcd_leader {
    my ($self) = @_;

    # The leader may change while the hosts are asked: then they are asked again.
    my $leader = poll_until {
        for my $host (map { $_->name } $self->databases) {
            my ($status, $out) = $self->on($host, qw(/usr/local/lib/ngx_pgq/etcdctl endpoint status));
            return $host if !$status && (split /, /, $out)[4] eq 'true';
        }
        return '';
    } 20;

    return $leader || croak "no host's etcd leads";
}


# The timelines of the members, as text: one number if all are on the same.
sub timelines {
    my ($self) = @_;
    my %there;

    poll_until { %there = map { ($_->{TL} // 'none') => 1 } $self->members } 30;

    return join ' ', sort keys %there;
}


package Pgq::Cluster::Host;

sub name    { return $_[0]{name} }
sub address { return $_[0]{address} }
sub port    { return $_[0]{port} }


1;
