# P1: no standby is left. What only one machine has is not acknowledged: no 202, and when a standby is back, all of them.

use Pgq;
use Pgq::Trial;

my $trial    = Pgq::Trial->new('PostgreSQL of both standbys frozen for ten seconds');
my $cluster  = $trial->cluster;
my @standbys = $cluster->standbys;

$trial->round(sub {
    $cluster->must($_, qw(systemctl freeze patroni)) for @standbys;
    $trial->stands(10);
}, stops => 1, mend => sub { $cluster->must($_, qw(systemctl thaw patroni)) for @standbys });

$trial->end;

# ---- with their hosts, and so with etcd's quorum, for longer than a client waits

$trial    = Pgq::Trial->new('hosts of both standbys off', allow => 'refused|unknown|unread');
@standbys = $cluster->standbys;

$trial->round(sub {
    $cluster->do_to(off => @standbys);
    $trial->stands(40);
}, stops => 1, mend => sub { $cluster->do_to(up => @standbys) });

$trial->end;

done_testing;
