# P10: each host of the cluster is shut down and started, one after the other: the standbys, the primary after a
# switchover, the web hosts. A client that knows both doors sees nothing of it.

use Pgq;
use Pgq::Trial;

my $trial   = Pgq::Trial->new('rolling restart of the database hosts', bar => 5);
my $cluster = $trial->cluster;
my $restart = sub { my ($host) = @_; $cluster->do_to(down => $host); $cluster->do_to(up => $host) };

for my $standby ($cluster->standbys) {
    $trial->round(sub { $restart->($standby) });
}

my $leader = $cluster->leader;
$trial->round(sub { ok($cluster->switchover, 'a switchover'); $restart->($leader) });
$trial->end;

# ---- the doors

$trial = Pgq::Trial->new('rolling restart of the web hosts', allow => 'cut|away|reader .*', gap => { kind => qr/roaming/ });

for my $web ($cluster->webs) {
    $trial->round(sub { $restart->($web->name) });
}

$trial->end;

done_testing;
