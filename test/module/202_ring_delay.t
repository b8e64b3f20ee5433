# The histogram of the time from a message to its post in the ring.

use Pgq;
use Pgq::Wait qw(poll_until);

my $pg = Pgq::Postgres->new->start;
$pg->safe_psql(q{insert into posts (at, message_id, data) values (now() - interval '1 hour', gen_random_uuid(), '1')});

my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    workers   => 2,
    ring      => 'poll=200ms',
    locations => 'location = /metrics { pgq_metrics; }',
)->start;

# Returns the number of answers that were counted: all, those up to a bound, and the sum of their seconds.
sub delays {
    my ($bound) = @_;
    my $page = Pgq::Client->new($nginx)->get('/metrics')->body;

    return map { $page =~ /^pgq_ring_delay_seconds_\Q$_\E (\S+)$/m } 'count', qq{bucket{le="$bound"}}, 'sum';
}

# The same when this number of answers was counted.
sub counted {
    my ($count, $bound) = @_;
    poll_until { (delays($bound))[0] >= $count } 20;

    return delays($bound);
}

# Waits until GET shows this number of posts.
sub shown {
    my ($count) = @_;
    return poll_until { @{ Pgq::Client->new($nginx)->get('/get')->json->{msg} // [] } == $count } 20;
}

# Adds posts with these times, in one transaction.
sub add_posts {
    return $pg->safe_psql('insert into posts (at, message_id, data) values ' . join ', ', map { "($_, gen_random_uuid(), '1')" } @_);
}

ok(shown(1), 'the ring has the posts that were there when it began');
is((delays('60.000'))[0], 0, '... and does not count them');

Pgq::Client->new($nginx)->post('/post', '"new"');
ok(shown(2), 'a new post is in the ring');
my ($count, $fast, $sum) = counted(1, '10.000');
is("$count $fast", '1 1', '... and its delay is counted');
cmp_ok($sum, '<', 10, '... as a short one');

add_posts("now() - interval '20 s'");
ok(shown(3), 'a post that is 20 seconds old is in the ring');
my @late = counted(2, '10.000');
is("$late[0] $late[1]", '2 1', '... and its delay is counted as longer than 10 seconds');
cmp_ok($late[2] - $sum, '>=', 20, '... with all of its 20 seconds');
cmp_ok($late[2] - $sum, '<', 60, '... and not with those of other posts');

add_posts("now() - interval '1 s'", "now() - interval '40 s'");
ok(shown(5), 'two posts of one transaction are in the ring');
my @both = counted(3, '60.000');
is("$both[0] $both[1]", '3 3', '... and the first of them is counted');
cmp_ok($both[2] - $late[2], '<', 20, '... with its own age');

add_posts("'infinity'");
ok(shown(6), 'a post with an infinite time is in the ring');
is((delays('60.000'))[0], 3, '... and is not counted');

$pg->safe_psql('select ngx_pgq.refresh()');
ok((poll_until { $nginx->log_since(0) =~ /pgq ring: reset/ }), 'the ring reads its posts again');
add_posts('now()');
ok(shown(7), '... and has the next one');
cmp_ok((delays('60.000'))[2] - $both[2], '<', 20, '... and does not count the old ones again');

done_testing();
