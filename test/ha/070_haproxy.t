# P3: what happens to one host's HAProxy is not seen: its nginx goes by the other's. The gaps are that door's own.

use Pgq;
use Pgq::Trial;

my @haproxy = qw(systemctl kill --kill-whom=all haproxy);

my $trial   = Pgq::Trial->new('HAProxy killed', bar => 2, gap => { door => 0 });
my $cluster = $trial->cluster;

$trial->round(sub { $cluster->own_haproxy; $cluster->must('web1', @haproxy, '--signal=KILL') }) for 1 .. 5;
$trial->end;

$trial = Pgq::Trial->new('HAProxy off for ten seconds', bar => 2, gap => { door => 0 });
$trial->round(sub { $cluster->own_haproxy; $cluster->must('web1', qw(systemctl stop haproxy)); $trial->lasts(10) },
    mend => sub { $cluster->must('web1', qw(systemctl start haproxy)) });
$trial->end;

$trial = Pgq::Trial->new('HAProxy frozen', gap => { door => 0 });
$trial->round(sub { $cluster->own_haproxy; $cluster->must('web1', @haproxy, '--signal=STOP') },
    mend => sub { $cluster->must('web1', @haproxy, '--signal=CONT') }) for 1 .. 2;
$trial->end;

$trial = Pgq::Trial->new('HAProxy reloaded', bar => 2, gap => { door => 0 });
$trial->round(sub { $cluster->own_haproxy; $cluster->must('web1', qw(systemctl reload haproxy)) }) for 1 .. 5;
$trial->end;

done_testing;
