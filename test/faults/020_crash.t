# A process that is killed, or has the server panic, at any point of a batch, of the housekeeping or of an enqueue: the
# server starts over by itself, and nothing is lost or doubled.

use Pgq;
use Pgq::FaultPoints;

my $faults = Pgq::FaultPoints->new;

for my $point (Pgq::FaultPoints::points()) {
    $faults->case($point => $_) for qw(kill panic);
}

# an error where there can be none
$faults->case('producer-committed' => 'error');

$faults->end;

done_testing;
