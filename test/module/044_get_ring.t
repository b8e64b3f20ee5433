# GET from the ring: the same bytes and the same ETag as from PostgreSQL, its age, and what happens without a database.

use Pgq;
use Pgq::Random;

my $pg    = Pgq::Postgres->new->start;
my %more  = (pg => $pg, http => 'gzip on; gzip_types application/json; gzip_min_length 1;', pool => 'lanes=1', locations => 'location ^~ /get/ { pgq_get main; }');
my $ring  = Pgq::Nginx->new(%more, name => 'ring', workers => 2, ring => 'posts=500 poll=200ms stale=1500ms', timeout => '2s')->start;
$pg->safe_psql('create role plain login in role ngx_pgq_web');
my $plain = Pgq::Nginx->new(%more, name => 'plain', user => 'plain')->start;

sub hit { return ($_[0]->header('Cache-Status') // '') eq 'pgq; hit' }

# A request that the ring answers, once it has all posts of the table.
sub from_ring {
    my ($path, %headers) = @_;
    my ($answer, $table);
    poll_until {
        $answer = Pgq::Client->new($ring)->get($path, %headers);
        $table  = Pgq::Client->new($plain)->get($path, %headers);
        hit($answer) && ($answer->header('ETag') // '') eq ($table->header('ETag') // '-');
    };
    return ($answer, $table);
}

my ($answer, $table) = from_ring('/get');
is($answer->body, '{"msg":[]}', 'a ring without posts answers with an empty list');

$pg->safe_psql(q{insert into ngx_pgq.queue (data, topic) select to_json(repeat('x', n % 300)), case n % 4 when 0 then '' else 'a/' || n % 7 end
    from generate_series(1, 1500) n});
$pg->wait_until_moved;
$pg->safe_psql(q{insert into posts (at, message_id, data, topic) values ('infinity', gen_random_uuid(), '1', 'b')});
$pg->safe_psql('select ngx_pgq.refresh()');

($answer, $table) = from_ring('/get');
is($answer->body, $table->body, 'the newest posts from the ring are those of PostgreSQL, byte for byte');
like($answer->header('Age'), qr/^[01]$/, 'an answer from the ring has its age in seconds');

my $newest = $pg->safe_psql('select max(id) from posts');
my (%hits, @different);
srand 7;
for my $n (1 .. 400) {
    my $id   = $newest - int rand 700;
    my $path = (qw(/get /get/a/1 /get/a/* /get/** /get/none))[ rand 5 ] . '?limit=' . (1 + int rand 300)
        . ('', "&after=$id", "&before=$id")[ rand 3 ];
    my ($one, $two) = map { Pgq::Client->new($_)->get($path) } $ring, $plain;
    push @different, $path if $one->body ne $two->body || $one->header('ETag') ne $two->header('ETag') || $one->status != 200;
    $hits{ $one->header('Cache-Status') }++;
}
is("@different", '', 'random queries get the answer of PostgreSQL with its ETag');
is(join(', ', sort keys %hits), 'pgq; fwd=miss, pgq; hit', 'some are answered from the ring, others by PostgreSQL');
diag join ', ', map { "$_ $hits{$_}" } sort keys %hits;

is(Pgq::Client->new($ring)->get('/get', 'If-None-Match' => $answer->header('ETag'))->status, 304, 'an answer from the ring is not sent again');
is(Pgq::Client->new($ring)->method('HEAD', '/get')->header('Content-Length'), length $answer->body, 'HEAD from the ring has the Content-Length of GET');

# ---- while posts come in, ids of each answer are in order and complete
my ($seen, $missing, $behind) = ($newest, 0, 0);
for my $n (1 .. 100) {
    $pg->safe_psql("insert into ngx_pgq.queue (data) select to_json(x) from generate_series(1, 7) x");
    my $page = Pgq::Client->new($ring)->get("/get?after=$seen&limit=1000")->json;
    my @ids  = map { $_->{id} } @{ $page->{msg} };
    $missing++ if "@ids" ne join ' ', $seen + 1 .. $seen + @ids;
    $behind++ if $page->{next} != $seen + @ids;
    $seen = $page->{next};
}
is("$missing $behind", '0 0', 'a client that continues with next misses nothing while posts come in');
$pg->wait_until_moved;
ok((poll_until { @{ Pgq::Client->new($ring)->get("/get?after=$seen&limit=1000")->json->{msg} } + $seen == $newest + 700 }),
    '... and gets every post in the end');

my $zipped = from_ring('/get', 'Accept-Encoding' => 'gzip');
is($zipped->header('Content-Encoding'), 'gzip', 'an answer from the ring is compressed by gzip');

$newest = $pg->safe_psql('select max(id) from posts');
$pg->safe_psql("delete from posts where id > $newest - 10");
$pg->safe_psql('select ngx_pgq.refresh()');
($answer, $table) = from_ring('/get');
is($answer->body, $table->body, 'after refresh() the ring has the posts that are left');

# ---- the database is stopped
$_->allow(qr/pgq lane: /) for $ring, $plain;
$pg->stop;
my $served = Pgq::Client->new($ring)->get('/get');
is($served->status, 200, 'the ring answers without a database');
is($served->body, $answer->body, 'its posts are the same');
ok((poll_until { Pgq::Client->new($ring)->get('/get')->status == 503 }), 'a ring that is too old is not shown');
my $stale = Pgq::Client->new($ring)->get('/get');
is_problem($stale, 503, 'ring_stale', 'a ring that is too old');
like($stale->header('Retry-After'), qr/^\d+$/, 'its answer has Retry-After');
is_problem(Pgq::Client->new($ring)->get('/get?after=0'), 503, 'no_database', 'what only PostgreSQL has');
$pg->start;
ok((poll_until { hit(Pgq::Client->new($ring)->get('/get')) }), 'the ring answers again when the database is back');

done_testing;
