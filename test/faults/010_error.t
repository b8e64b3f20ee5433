# A process gets an error, or exits by FATAL, at each point of a batch, of housekeeping and of enqueue(): the server does
# not restart, and no message is lost or posted twice.

use Pgq;
use Pgq::FaultPoints;

# after a commit, where the server turns an error into a PANIC, see 020_crash.t
my @points = grep { $_ ne 'producer-committed' } Pgq::FaultPoints::points();
my $faults = Pgq::FaultPoints->new;

for my $point (@points) {
    for my $action ($point eq 'mover-wanted' ? 'error' : qw(error fatal)) {
        my $load = $faults->case($point => $action);
        cmp_ok($load->count('refused'), '>', 0, "$point: a producer has got the error") if "$point $action" =~ /^(?:batch-entered|queue-written) error/;
    }
}

unlike($faults->pg->log_since(0), qr/reinitializing/, 'the server has not restarted its processes');
$faults->end;

done_testing;
