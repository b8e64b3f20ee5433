package Pgq::AlertTest;

# Causes faults of a cluster under load, and checks which alerts of monitoring/rules.yml fire.
#
#   my $test = Pgq::AlertTest->new;
#   $test->fault(30, [ 'nginx of a web host is stopped', ['TargetDown web1:9180'], sub { $cluster->must(...) }, sub { ... } ]);
#   my $slow = $test->lasting([ ... ]);     a fault that lasts during others
#   $slow->();                              waits for its alerts and ends it
#   $test->end;
#
# A fault is its name, its alerts, the code that causes it and the code that ends it.
#
# Prometheus has monitoring/prometheus.yml and rules.yml as they are shipped, except that it scrapes and evaluates every 5
# seconds. It runs on the test's machine, and in its /etc/hosts the cluster's hosts have their names.

use strict;
use warnings;

use Carp qw(croak);

use Pgq::Client;
use Pgq::Cluster;
use Pgq::ClusterTest;
use Pgq::Host qw(top free_port temp_dir spawn slurp spew has_program);
use Pgq::Wait qw(poll_until);

my $interval = 5;


sub new {
    my ($class) = @_;

    has_program('prometheus') or croak 'there is no prometheus: provision/install-packages stats';

    my $cluster = Pgq::Cluster->new;
    my $self    = bless { cluster => $cluster, port => free_port(), lasting => {}, named => {}, began => int time }, $class;

    Test::More::ok($cluster->settled(120), 'one member leads and the others are synchronous standbys')
        or Test::More::BAIL_OUT('the cluster is not whole');
    $self->_start_prometheus;
    $self->{load} = $cluster->load(pause => 0.5)->start;

    my @targets;
    my $up = poll_until { @targets = $self->_targets; @targets && !grep { $_->{health} ne 'up' } @targets } 60;
    Test::More::ok($up, 'Prometheus scrapes every target') or Test::More::diag(map { "$_->{labels}{instance}: $_->{lastError}\n" } @targets);

    return $self;
}


sub cluster { return $_[0]{cluster} }


sub _start_prometheus {
    my ($self) = @_;
    my $dir = temp_dir('prometheus');
    my $ca  = $self->{cluster}->ca;

    spew("$dir/hosts", slurp('/etc/hosts'), map { $_->address . ' ' . $_->name . "\n" } $self->{cluster}->databases, $self->{cluster}->webs);
    spew("$dir/rules.yml", slurp(top() . '/monitoring/rules.yml'));
    spew("$dir/prometheus.yml", slurp(top() . '/monitoring/prometheus.yml') =~ s{interval: 15s}{interval: ${interval}s}gr =~ s{ca_file: \S+(?=\})}{ca_file: $ca}r);
    spawn([ 'unshare', '--mount', 'sh', '-c', 'mount --bind "$1/hosts" /etc/hosts
        exec prometheus --config.file="$1/prometheus.yml" --storage.tsdb.path="$1/data" --web.listen-address="127.0.0.1:$2"',
        'sh', $dir, $self->{port} ], out => "$dir/log");

    return;
}


sub _api {
    my ($self, $path) = @_;

    return Pgq::Client->new($self->{port})->get("/api/v1/$path")->json->{data};
}


# At first it does not answer, then it has none.
sub _targets {
    my ($self) = @_;

    return @{ (eval { $self->_api('targets') } || {})->{activeTargets} || [] };
}


# The alerts that fire: "TargetDown web1:9180", "PatroniNoLeader".
sub firing {
    my ($self) = @_;

    return _names(map { $_->{labels} } grep { $_->{state} eq 'firing' } @{ $self->_api('alerts')->{alerts} });
}


# Those that fired at any moment since a time.
sub fired {
    my ($self, $from) = @_;
    my $query = 'query_range?query=ALERTS%7Balertstate%3D%22firing%22%7D&step=' . "$interval&start=$from&end=" . (1 + time);

    return _names(map { $_->{metric} } @{ $self->_api($query)->{result} });
}


# Alerts with the label that tells whose they are. DiskFills and ClockDiffers are left out: containers have the disk and the
# clock of this machine.
sub _names {
    my (@labels) = @_;
    my %name = map { join(' ', grep { defined } $_->{alertname}, $_->{instance} // $_->{state} // $_->{job}) => 1 } @labels;

    return sort grep { !/^(?:DiskFills|ClockDiffers)/ } keys %name;
}


sub _text { return join ', ', sort @_ }


# Waits until all of these have fired since a time; false at the deadline.
sub _wait {
    my ($self, $seconds, $from, @alerts) = @_;

    return poll_until { my %fired = map { $_ => 1 } $self->fired($from); !grep { !$fired{$_} } @alerts } $seconds;
}


# Without the alerts of faults that last.
sub _new {
    my ($self, @alerts) = @_;

    return _text(grep { !$self->{lasting}{$_} } @alerts);
}


# Causes a fault, or several independent ones at the same time. They end when their alerts have fired for these seconds: in
# that time alerts of their effects would fire.
sub fault {
    my ($self, $hold, @faults) = @_;
    my $name   = join ', and ', map { $_->[0] } @faults;
    my $from   = 1 + int time;
    my @alerts = map { @{ $_->[1] } } @faults;

    $self->{named}{$_} = 1 for @alerts;
    $_->[2]->() for @faults;
    $self->_wait(240, $from, @alerts);
    $self->hold($hold);
    Test::More::is($self->_new($self->firing), _text(@alerts), "$name: its alerts last");
    $_->[3]->() for @faults;
    Test::More::ok($self->{cluster}->settled(180), "$name: afterwards all members have their roles") if !%{ $self->{lasting} };
    Test::More::ok((poll_until { $self->_new($self->firing) eq '' } 120), "$name: afterwards nothing fires") or Test::More::diag(_text($self->firing));
    Test::More::is($self->_new($self->fired($from)), _text(@alerts), "$name: these alerts fired, and no other");
    Test::More::diag(sprintf '%s: %d s', $name, time - $from);

    return;
}


# Causes a fault that lasts during others. Returns code that waits until its alerts have fired, ends it, and waits until they
# no longer do, for this many seconds.
sub lasting {
    my ($self, $fault, $seconds) = @_;
    my ($name, $alerts, $cause, $end) = @$fault;
    my $from = 1 + int time;

    $self->{lasting}{$_} = $self->{named}{$_} = 1 for @$alerts;
    $cause->();

    return sub {
        Test::More::ok($self->_wait(720, $from, @$alerts), "$name: its alert fires") or Test::More::diag(_text($self->firing));
        $end->();
        Test::More::ok((poll_until { my %firing = map { $_ => 1 } $self->firing; !grep { $firing{$_} } @$alerts } $seconds // 120), "$name: afterwards it does not");
        delete @{ $self->{lasting} }{@$alerts};
        return;
    };
}


# Code that runs `systemctl stop` for a service of hosts, and code that runs `systemctl start`; or two other commands.
sub systemctl {
    my ($self, $unit, $stop, $start, @hosts) = @_;

    return map { my $do = $_; sub { $self->{cluster}->must($_, 'systemctl', $do, $unit) for @hosts } } $stop, $start;
}


sub hold { goto &Pgq::ClusterTest::hold }


# Asserts that at no time another alert than those of the faults has fired.
sub end {
    my ($self) = @_;

    $self->{load}->stop;
    Test::More::is(_text(grep { !$self->{named}{$_} } $self->fired($self->{began})), '', 'no other alert has fired');

    return;
}


1;
