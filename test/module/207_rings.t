# Rings of two pools in one nginx: each has the posts of its own database, and does not stop when the other database is away.

use Pgq;
use Pgq::Stream;

my @pg    = map { Pgq::Postgres->new(name => $_)->start } qw(north south);
my $pools = join ' ', map { "pgq_pool $_->{name} \"" . $_->conninfo(user => 'ngx_pgq_web') . "\" lanes=1; pgq_ring $_->{name} posts=100 poll=300ms;" } @pg;
my $nginx = Pgq::Nginx->new(
    pools     => $pools,
    workers   => 2,
    locations => join("", map { "location = /get/$_->{name} { pgq_get $_->{name}; } location = /stream/$_->{name} { pgq_stream $_->{name}; }" } @pg),
    endpoints => 'location = /status { pgq_status; } location / { return 404; }',
)->start;

sub ring {
    my ($pg) = @_;
    my $status = eval { Pgq::Client->new($nginx)->get('/status')->json } or return {};

    return (map { $_->{ring} } grep { $_->{name} eq $pg->{name} } @{ $status->{pools} })[0];
}

sub insert {
    my ($pg, $data) = @_;
    $pg->safe_psql("insert into ngx_pgq.queue (data) values ('\"$data\"')");
    return $pg->wait_until_moved;
}

sub has_newest {
    my ($pg) = @_;
    my $newest = $pg->safe_psql('select max(id) from posts');

    return poll_until { (ring($pg)->{newest} // 0) == $newest } 20;
}

my @reader = map { Pgq::Stream->new($nginx, path => "/stream/$_->{name}", form => 'ndjson') } @pg;
ok(Pgq::Stream->pump(sub { !grep { !defined $_->status } @reader }, 10, @reader), 'each database has a reader');

for my $pg (@pg) {
    insert($pg, "$pg->{name} $_") for 1 .. ($pg->{name} eq 'north' ? 2 : 3);
    ok(has_newest($pg), "$pg->{name}: its ring has the posts");
}

for my $pg (@pg) {
    my $body = Pgq::Client->new($nginx)->get("/get/$pg->{name}")->body;
    my ($other) = grep { $_ != $pg } @pg;
    like($body, qr/$pg->{name} 1/, "$pg->{name}: GET has its posts");
    unlike($body, qr/$other->{name}/, '... and not those of the other database');
}

$pg[0]->stop('immediate');
$nginx->allow(qr/pgq lane: (?:lost|could not connect)/);
insert($pg[1], 'south alone');
ok(has_newest($pg[1]), 'a ring goes on while the other database is away');
ok($reader[1]->wait_for(4), '... and so does its stream');
like(Pgq::Client->new($nginx)->get('/get/north')->body, qr/north 2/, 'the ring of the database that is away is served');
$pg[0]->start;
insert($pg[0], 'north again');
ok(has_newest($pg[0]), '... and goes on when its database is back');
ok($reader[0]->wait_for(3), '... and so does its stream');
is(scalar @{ $reader[1]->ids }, 4, 'no stream has posts of the other database');
isnt(ring($pg[0])->{newest}, ring($pg[1])->{newest}, 'each ring has its own newest id');

done_testing;
