# A process is killed, or panics, at each point of a batch, of housekeeping and of enqueue(): the server restarts its
# processes, and no message is lost or posted twice.

use Pgq;
use Pgq::FaultPoints;

my $faults = Pgq::FaultPoints->new;

for my $point (Pgq::FaultPoints::points()) {
    $faults->case($point => $_) for qw(kill panic);
}

# an error after the commit, which the server turns into a PANIC
$faults->case('producer-committed' => 'error');

$faults->end;

done_testing;
