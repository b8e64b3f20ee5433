# A ring that new posts reach faster than the follower's answers can bring them all is not stale: its age is how far it is behind.

use Pgq;
use List::Util qw(max);
use Time::HiRes qw(time);

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'answer_size=1k',
    ring      => 'posts=65536 stale=6s',
    locations => 'location = /status { pgq_status; }',
)->start;

sub ring { return Pgq::Client->new($nginx)->get('/status')->json->{pools}[0]{ring} }

# Adds so many posts that the ring is behind by this many. Returns the ring before.
sub behind {
    my ($count) = @_;
    my $ring = ring();
    my $head = $pg->safe_psql('select coalesce(max(id), 0) from posts');
    my $most = $ring->{newest} + $count - $head;

    $pg->safe_psql("insert into posts (at, message_id, data) select now(), gen_random_uuid(), to_json(repeat('x', 200)) from generate_series(1, $most)") if $most > 0;

    return ($ring, $head);
}

$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('1')});
ok((poll_until { ring()->{newest} == 1 }), 'the ring has the first post');
behind(2000);
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('2')});
ok((poll_until { ring()->{newest} > 1 }), 'it reads the next ones in answers of a few posts');

my $end   = time + 15;
my ($stale, $age, $caught, $rounds, $first, $last) = (0, 0, 0, 0);
while (time < $end) {
    my ($ring, $head) = behind(2000);
    $caught++ if $ring->{newest} >= $head;
    $stale++ if $ring->{stale};
    $age   = max($age, $ring->{age});
    $first //= $ring->{newest};
    $last  = $ring->{newest};
    $rounds++;
}
diag(sprintf '%d posts in 15 s, %d rounds, in %d of them the ring was up to date; its age was up to %d s', $last - $first, $rounds, $caught, $age);
is($caught, 0, 'for 15 seconds the ring is never up to date');
is($stale, 0, '... and not stale');
is(Pgq::Client->new($nginx)->get('/get')->status, 200, '... and GET is answered');
ok((poll_until { ring()->{newest} == $pg->safe_psql('select max(id) from posts') } 60), 'it catches up when no more posts come');

done_testing;
