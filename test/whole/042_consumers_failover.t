# P2: consumers by HTTP during a failover to a synchronous standby. Leases are valid on the new primary, or end meanwhile; an
# acknowledgement that was answered is kept. Each post is given at least once, in the order of its topic, and none after its
# acknowledgement.

use Pgq;
use Pgq::HttpConsumers;

my $old      = Pgq::Postgres->new->start;
my $new      = Pgq::Postgres->new(name => 'standby', backup_of => $old)->start;
my $password = $old->set_password('ngx_pgq_web');
my %expected = (all => 'true', parts => 'true', topics => q{topic in ('t/1', 't/2', 't/3')});

$new->poll_query_until(q{select rolpassword is not null from pg_authid where rolname = 'ngx_pgq_web'});
$old->set(synchronous_standby_names => '*');
$old->poll_query_until(q{select count(*) from pg_stat_replication where sync_state = 'sync'}, 1);

my %nginx = (
    conninfo  => 'host=127.0.0.1,127.0.0.1 port=' . $old->port . ',' . $new->port . " dbname=posts user=ngx_pgq_web password=$password",
    locations => 'location /sub/ { pgq_subscription main; }',
);
my @nginx = map { Pgq::Nginx->new(%nginx, name => "nginx$_", $_ ? (ring => '') : ())->start } 0, 1;

sub client { return Pgq::Client->new($nginx[ rand 2 ]) }
sub put { my ($name, $body) = @_; return client()->method('PUT', "/sub/$name", $body)->status }
sub ids { return join ' ', map { $_->{id} } @{ $_[0]->json->{msg} } }
sub ack { my ($name, $upto, $from) = @_; return client()->post("/sub/$name/ack", sprintf '{"upto":%d,"generation":%d}', $upto, $from->json->{generation}) }

sub insert {
    my ($server) = @_;
    return $server->safe_psql(q{insert into ngx_pgq.queue (data, topic) select to_json(n), coalesce('t/' || nullif(n % 20, 0), '') from generate_series(1, 1000) as n});
}

put('parts', '{"start":0,"parts":4}');
put('topics', '{"start":0,"topics":["t/1","t/2","t/3"]}');
put($_, '{"start":0}') for qw(all ends lasts);
insert($old);

my $consumers = Pgq::HttpConsumers->new(\@nginx, all => 2, parts => 4, topics => 2)->start;
ok((poll_until { $consumers->tend->effects('all') > 200 && $consumers->effects('parts') > 200 }), 'consumers have posts before the failover');

my $ends  = client()->get('/sub/ends?limit=5&lease=1');
my $lasts = client()->get('/sub/lasts?limit=5&lease=3600');
is(ack('lasts', 3, $lasts)->status, 204, 'three posts are acknowledged');
my $waiting = client()->send_get('/sub/ends?limit=5&wait=60');
$old->kill9;
$new->poll_query_until(q{select until < clock_timestamp() from ngx_pgq.progress where name = 'ends'});
$new->promote;

my $other = $waiting->answer;
is(ids($other), ids($ends), 'a consumer that waits during the failover has the posts of one whose lease has ended meanwhile');
is_problem(ack('ends', 5, $ends), 409, 'fenced', 'the acknowledgement of that one');
is(ids(client()->get('/sub/lasts')), '', 'a lease that has not ended is valid on the new primary');
is(ids(client()->get('/sub/lasts?limit=2&part=1&generation=' . $lasts->json->{generation})), '4 5', 'its consumer continues after the last acknowledgement');
is(ack('lasts', 5, $lasts)->status, 204, 'it acknowledges on the new primary');

insert($new);
ok($new->wait_until_moved, 'all messages become posts');
my %end = map { $_ => $new->safe_psql("select count(*) from posts where $expected{$_}") } keys %expected;
ok((poll_until { $consumers->tend; !grep { $consumers->effects($_) != $end{$_} } keys %end } 60), 'each post is given for each subscription')
    or diag(join ', ', map { "$_: " . $consumers->effects($_) . " of $end{$_}" } sort keys %end);
$consumers->stop;
my @complaints = $consumers->complaints($new, %expected);
is(scalar @complaints, 0, 'none is passed over, the first effects are in order, and no acknowledged post is given again')
    or diag(join "\n", @complaints[ 0 .. ($#complaints < 9 ? $#complaints : 9) ]);
is($consumers->count('failed'), 0, 'no request of a consumer fails during the failover');
diag(join ', ', map { "$_ " . $consumers->count($_) } qw(got acked fenced failed));

done_testing;
