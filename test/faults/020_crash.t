# A process is killed or gets a PANIC at each point of a batch, of housekeeping and of enqueue(). The server restarts its
# processes, and no message is lost or posted twice.

use Pgq;
use Pgq::FaultPoints;

my $faults = Pgq::FaultPoints->new;

for my $point (Pgq::FaultPoints::points()) {
    $faults->case($point => $_) for qw(kill panic);
}

# The server turns an error after a commit into a PANIC.
$faults->case('producer-committed' => 'error');

$faults->end;

done_testing;
