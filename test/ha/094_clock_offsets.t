# P2: batches are recognised when the clocks of the hosts differ. A web host's clock is ten minutes ahead, or those of
# the standbys are ten minutes behind. The primary's answers are lost for half a second, so that the outcome of
# batches that it committed is unknown; then its host loses power. The web hosts send these batches again to a primary
# whose mover has just started and removes all that is old: each message has to be in posts once.
#
# All clocks are set so that the fault is in the first half of a period of ten minutes. Offsets that are not multiples
# of any period of the extension are tried as well.

use Pgq;
use Pgq::ClusterTest;

my $cluster = Pgq::Cluster->new;
my @webs    = map { $_->name } $cluster->webs;
my @hosts   = ((map { $_->name } $cluster->databases), @webs);

# Hosts, and the difference of their clocks from the others.
my @cases = (
    [ "a web host's clock 600 s ahead",        sub { $webs[0] },           600 ],
    [ "the standbys' clocks 600 s behind",     sub { $cluster->standbys }, -600 ],
    [ "a web host's clock 7,654 s ahead",      sub { $webs[1] },           7654 ],
    [ "the standbys' clocks 201,234 s behind", sub { $cluster->standbys }, -201_234 ],
);

for my $case (@cases) {
    my ($name, $who, $apart) = @$case;
    my %apart = map { $_ => $apart } $who->();
    my $base  = 600 - time % 600 + 5;

    $cluster->clock($_, $base + ($apart{$_} // 0)) for @hosts;
    ok($cluster->settled(120), 'each member is the primary or a synchronous standby');
    $base = 600 - time % 600 + 5;
    $cluster->clock($_, $base + ($apart{$_} // 0)) for @hosts;

    for my $host (@hosts) {
        ok((poll_until { abs(($cluster->clock_of($host) // 1e9) - $base - ($apart{$host} // 0)) < 60 } timeout(20)), "$name: the clock of $host has its offset");
    }

    my $test = Pgq::ClusterTest->new($name, allow => 'unreachable|closed|truncated|reader .*');

    $test->takeover(sub {
        my ($leader) = @_;

        $cluster->partition($_, in => $leader, 'tcp sport 5432 ip length > 52') for @webs;
        $test->hold(0.5);
        $cluster->do_to(off => $leader);
        $cluster->heal(@webs);
        cmp_ok((time + $base) % 600, '<', 300, "$name: the fault is in the first half of a period");
    }, repair => sub { $cluster->do_to(up => @_) });

    $test->end;
}

$cluster->true_clock(@hosts);
ok($cluster->settled(120), 'each member is the primary or a synchronous standby again');

done_testing;
