# P11: a reader that begins far behind the ring gets each post once and in order, also if PostgreSQL's answers end with their
# maximum number of posts, with their maximum size, or with a post of another topic.

use Pgq;
use Pgq::Stream;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pools     => 'pgq_pool main "' . $pg->conninfo(user => 'ngx_pgq_web') . '"; pgq_ring main posts=100;',
    locations => 'location /stream { pgq_stream main; }',
)->start;

# Small posts, then larger ones; each third has a topic.
$pg->safe_psql("insert into posts (at, message_id, data, topic)
    select now(), gen_random_uuid(), to_json(case when n > 4000 then repeat('x', 500) else 'x' end), case n % 3 when 0 then 'third' else '' end
      from generate_series(1, 4500) as n");
$pg->safe_psql('select ngx_pgq.refresh()');

my @ids = 1 .. 4500;

for my $case (map { my $after = $_; map { [ $after, $_ ] } qw(sse ndjson websocket) } 0, 1, 2500, 3399) {
    my ($after, $form) = @$case;
    my $reader = Pgq::Stream->new($nginx, query => "after=$after", form => $form, objects => undef);

    ok($reader->wait_until_id(4500), "a reader of $form after $after reaches the newest post");
    is($reader->complaint([ grep { $_ > $after } @ids ]), '', "a reader of $form after $after gets each post");
}

my $reader = Pgq::Stream->new($nginx, path => '/stream/third', query => 'after=0', objects => undef);
ok($reader->wait_until_id(4500), 'a reader of a topic reaches its newest post');
is($reader->complaint([ grep { $_ % 3 == 0 } @ids ]), '', 'a reader of a topic gets each post of it');

my $client = Pgq::Client->new($nginx);
my ($next, @polled) = (0);
while ($next < 4500) {
    my $page = $client->get("/stream?wait=5&after=$next&limit=1000")->json;
    last if !@{ $page->{msg} };
    push @polled, map { $_->{id} } @{ $page->{msg} };
    $next = $page->{next};
}
is("@polled", "@ids", 'long polls get each post once and in order');

done_testing;
