# GET /stream with 10,000 topics, with ids and topics of any bytes, and with crowds of readers that come and go.

use Pgq;
use Pgq::Stream;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg          => $pg,
    workers     => 2,
    connections => 4096,
    ring        => 'posts=12000 size=8m poll=200ms',
    locations   => 'location /stream { pgq_stream main; } location ^~ /get/ { pgq_get main; } location = /metrics { pgq_metrics; }',
)->start;
my $client = Pgq::Client->new($nginx);

sub readers { return eval { $nginx->metric('pgq_open_readers{pool="main",transport="sse"}') } // -1 }

# ---- 10,000 topics
$pg->safe_psql(q{insert into ngx_pgq.queue (data, topic) select to_json(n), 'shop/' || n % 100 || '/' || n from generate_series(1, 10000) n});
$pg->wait_until_moved;

my %expected = (
    'shop/7/**'                                    => sub { $_[0] % 100 == 7 },
    'shop/*/4711'                                  => sub { $_[0] == 4711 },
    '*/*/9999,shop/3/103,shop/none/1'              => sub { $_[0] == 9999 || $_[0] == 103 },
    'shop/*'                                       => sub { 0 },
    '**'                                           => sub { 1 },
    join(',', map { "shop/*/$_" } 101 .. 163, 9000) => sub { $_[0] >= 101 && $_[0] <= 163 || $_[0] == 9000 },
    join(',', map { "shop/$_/**" } 0 .. 63)        => sub { $_[0] % 100 < 64 },
);
my @numbers = $pg->safe_psql(q{select string_agg(data::text, ' ' order by id) from posts}) =~ /\d+/g;
for my $filter (sort keys %expected) {
    my $name   = length $filter > 40 ? (split /,/, $filter)[0] . ' and 63 more' : $filter;
    my @wanted = grep { $expected{$filter}->($_) } @numbers;
    my $reader = Pgq::Stream->new($nginx, query => "after=0&topic=$filter", form => 'ndjson');
    Pgq::Stream->pump(sub { @{ $reader->ids } >= @wanted && defined $reader->status }, 30, $reader);
    is(join(' ', map { $_->{data} } @{ $reader->objects }), "@wanted", "$name of 10,000 topics gets its posts");
    $reader->cut;
}
is_problem($client->get('/stream?topic=' . join(',', ('a') x 65)), 400, 'bad_topic', '65 patterns');

# ---- ids of any form
for my $id ('1x', '0x1', '1.5', '-0', '+1', '1 2', '1,2', '%31', '9223372036854775808', '1' x 20, '1' x 4000, "\x7f", "\xff\xfe", '"1"', '') {
    my $name   = length $id > 30 ? length($id) . ' digits' : $id =~ s/[^ -~]/?/gr;
    my $answer = Pgq::Client->new($nginx)->get('/stream?wait=0', 'Last-Event-ID' => $id);
    is($answer->status, 200, "Last-Event-ID '$name' is answered");
    is($answer->json->{reset} ? $answer->json->{reset}{reason} : 'none', $id eq '' ? 'none' : 'unknown', '... as what it is');
}

# ---- topics of any byte
my @wrong;
for my $byte (0 .. 255) {
    my $hex  = sprintf '%%%02x', $byte;
    my $good = chr($byte) =~ /\A[A-Za-z0-9._~, -]\z/;    # a comma or a space ends a topic of a list
    for my $path ("/stream/a$hex?wait=0", "/stream?wait=0&topic=a$hex", "/get/a$hex", "/get/?topic=a$hex") {
        my $status   = Pgq::Client->new($nginx)->get($path)->status;
        my $expected = $good ? 200 : 400;
        push @wrong, "$path $status" if $status != $expected;
    }
}
is("@wrong", '', 'a topic with a byte that is not permitted is answered 400, any other 200');

# ---- crowds
# One worker has all readers of each crowd; two would share them in another way each time.
$nginx->configure(workers => 1);
$nginx->reload;

sub memory { my $sum = 0; for my $pid ($nginx->worker_pids) { $sum += Pgq::Host::slurp("/proc/$pid/status") =~ /^VmRSS:\s+(\d+)/m ? $1 : 0 } return $sum }
sub descriptors { return scalar(map { glob "/proc/$_/fd/*" } $nginx->worker_pids) }

my @rounds;
for my $round (1 .. 4) {
    my @crowd = map { Pgq::Stream->new($nginx, form => 'sse') } 1 .. 1000;
    ok((poll_until { readers() == 1000 } 60), "1,000 readers that do not read are open, round $round");
    $pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('1')});
    $pg->wait_until_moved;
    $_->cut for @crowd;
    ok((poll_until { readers() == 0 } 60), '... and none is counted when they have left');
    push @rounds, [ memory(), descriptors() ];
}
diag join ', ', map { "$_->[0] kB $_->[1] descriptors" } @rounds;
ok((poll_until { descriptors() <= $rounds[0][1] + 2 }), 'the descriptors of the workers do not grow with each crowd');
cmp_ok($rounds[3][0], '<', $rounds[1][0] + 512, 'the memory of the workers does not grow with each crowd');

done_testing;
