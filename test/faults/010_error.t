# A process gets an ERROR or a FATAL error at each point of a batch, of housekeeping and of enqueue(). The server does not
# restart its processes, and no message is lost or posted twice.

use Pgq;
use Pgq::FaultPoints;

# After a commit the server turns an error into a PANIC: 020_crash.t tests that.
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
