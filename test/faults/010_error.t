# A process that fails at any point of a batch, of the housekeeping or of an enqueue, by an error or by its own end:
# the server lives, and nothing is lost or doubled.

use Pgq;
use Pgq::FaultPoints;

# not where an error cannot be: after a commit, where the server makes a PANIC of it
my @points = grep { $_ ne 'producer-committed' } Pgq::FaultPoints::points();
my $faults = Pgq::FaultPoints->new;

for my $point (@points) {
    for my $action ($point eq 'mover-wanted' ? 'error' : qw(error fatal)) {
        my $load = $faults->case($point => $action);
        cmp_ok($load->count('refused'), '>', 0, "$point: a producer was told") if "$point $action" =~ /^(?:batch-entered|queue-written) error/;
    }
}

unlike($faults->pg->log_since(0), qr/reinitializing/, 'the server has never started over');
$faults->end;

done_testing;
