# P10: each fault of a host raises the alerts that name it, and no other, as in 141_alerts.t.

use Pgq;
use Pgq::AlertTest;

my $test    = Pgq::AlertTest->new;
my $cluster = $test->cluster;
my ($web, $other_web) = map { $_->name } $cluster->webs;
my %ports   = (database => [ 2381, 8008, 9100 ], web => [ 8404, 9180, 9100 ]);

# What Prometheus says of hosts that are off.
sub down { return map { my $name = $_; map { "TargetDown $name:$_" } @{ $ports{ $cluster->host($name)->{role} } } } @_ }

sub off { my (@hosts) = @_; return map { my $do = $_; sub { $cluster->do_to($do => @hosts) } } qw(off up) }

my $leader = $cluster->leader;
my ($standby, $other) = $cluster->standbys;
my $bridge = $cluster->host($leader)->address =~ s/\d+$/1/r;    # Prometheus runs on this machine

$test->fault(30, [ 'a web host is off', [ down($web) ], off($web) ], [ 'a standby is off', [ down($standby) ], off($standby) ]);

$test->fault(30,
    [ 'nginx is stopped on every web host', ['ServiceDown ngx_pgq'], $test->systemctl(nginx => qw(stop start), $web, $other_web) ],
    [ 'the primary does not answer Prometheus', [ down($leader) ],
        sub { $cluster->must($leader, 'nft', "table ip pgq_partition { chain input { type filter hook input priority -10; ip saddr ${bridge} drop; }; }") },
        sub { $cluster->heal($leader) } ]);

$test->fault(120, [ 'PostgreSQL of both standbys is frozen', [ 'PatroniNoStandby', map { "TargetDown $_:8008" } $standby, $other ],
    $test->systemctl(patroni => qw(freeze thaw), $standby, $other) ]);

$test->fault(30, [ 'the primary is off', [ down($leader) ], off($leader) ]);

($standby, $other) = $cluster->standbys;
$test->fault(120, [ 'both standbys are off', [ 'EtcdNoQuorum etcd', down($standby, $other) ], off($standby, $other) ]);

$leader = $cluster->leader;
$test->fault(120, [ 'Patroni is paused, and the primary is lost', ['PatroniNoLeader'],
    sub { $cluster->patronictl($leader, qw(pause --wait ngx_pgq)); $cluster->kill_postmaster($leader) },
    sub { $cluster->patronictl($leader, qw(resume --wait ngx_pgq)) } ]);

$test->end;

done_testing;
