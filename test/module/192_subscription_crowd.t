# Many consumers of a subscription that ask at the same time cost one query, and each post is given to one of them.

use Pgq;
use Pgq::Host qw(slurp);
use Time::HiRes qw(time);

my $sites = 'location /sub/ { pgq_subscription main; } location = /metrics { pgq_metrics; }';
my $pg    = Pgq::Postgres->new(conf => "log_statement = 'all'\n")->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', ring => '', locations => $sites)->start;

sub client { return Pgq::Client->new($nginx) }
sub put { my ($name, $body) = @_; return client()->method('PUT', "/sub/$name", $body)->status }
sub ids { return join ' ', map { $_->{id} } @{ $_[0]->json->{msg} } }
sub questions { return scalar(() = slurp($pg->log) =~ /execute <unnamed>: select [^\n]*fetch_json/g) }
sub insert { $pg->safe_psql(join '', map { qq{insert into ngx_pgq.queue (data, topic) values ('1', '$_');} } @_); return $pg->wait_until_moved }

sub backend { return $pg->safe_psql(q{select pid from pg_stat_activity where usename = 'ngx_pgq_web' and query ~ '_json'}) }

# Sends these GETs, and closes the first ones, while the only connection is in another one's query.
sub together {
    my ($leave, @paths) = @_;
    my $pid = backend();

    kill 'STOP', $pid;
    my $busy = client()->send_get('/sub/busy');
    $nginx->wait_until_received;
    my @clients = map { my $client = client()->send_get("/sub/$_"); $nginx->wait_until_received; $client } @paths;
    (shift @clients)->close for 1 .. $leave;
    $nginx->wait_until_received;

    my $before = questions();
    kill 'CONT', $pid;
    my @answers = map { $_->answer } $busy, @clients;
    shift @answers;

    return (questions() - $before - 1, @answers);
}

my %topic = map { split /\|/ } split /\n/, $pg->safe_psql(q{select distinct on (1) ngx_pgq.part(t, 3), t from (select 't' || n as t from generate_series(1, 30) as n) as x});
is(join(' ', sort keys %topic), '1 2 3', 'there are topics of three parts');

put('busy', '{"topics":["none"]}');
client()->get('/sub/busy');

# ---- nothing for any of them
put('idle', '{"topics":["none"]}');
my ($count, @answers) = together(0, ('idle') x 20);
is($count, 1, '20 consumers ask by one query');
is(join('', map { $_->body } @answers), '{"msg":[]}' x 20, '... and each is told that there is no post');

# ---- posts in three parts
put('parts', '{"parts":3}');
insert(values %topic);
($count, @answers) = together(2, ('parts') x 7);
is(join(' ', map { ids($_) || '-' } @answers), join(' ', (map { ids($_) } @answers[ 0 .. 2 ]), '-', '-'), 'the oldest requests get the posts; clients that have left get none');
is(join(' ', sort map { ids($_) } @answers[ 0 .. 2 ]), '1 2 3', '... each of them one part');
is($count, 4, '... by one query for each part, and one that finds no other');

# ---- what differs is not shared
put($_, qq({"topics":["$_"]})) for qw(x y);
put('halves', '{"parts":3,"start":0}');
insert('x', 'y');
($count, @answers) = together(0, 'x', 'y', 'x?limit=2', 'y?lease=2', map { "halves?part=$_" } 1 .. 3);
is(join(' ', map { ids($_) || '-' } @answers[ 0 .. 3 ]), '4 5 - -', 'requests with other names are different questions');
is(join(' ', map { $_->json->{part} } @answers[ 4 .. 6 ]), '1 2 3', '... and those of other parts');
is($count, 7, '... and those with another limit or lease');

# ---- one generation
my $generation = $answers[0]->json->{generation};
($count, @answers) = together(0, ("x?generation=$generation") x 2, 'x');
is(join(' ', map { ids($_) || '-' } @answers), '4 4 -', 'a consumer that asks twice gets its posts twice, and no other does');

# ---- many that ask again
put("many$_", '{"topics":["none"]}') for 1 .. 20;
my @waiting = map { client()->send_get("/sub/many$_?wait=60") } 1 .. 20;
my $reads   = sub { my ($n) = @_; return poll_until { $nginx->metric('pgq_waiting_reads{pool="main"}') == $n } };
ok($reads->(0), '20 consumers of different subscriptions wait');
my $pid = backend();
kill 'STOP', $pid;
insert('z');
ok($reads->(20), '... and ask again, as there is a post');
my $ack  = client()->send_post('/sub/x/ack', qq({"upto":4,"generation":$generation}));
my $size = -s $pg->log;
$reads->(21);
kill 'CONT', $pid;
is($ack->answer->status, 204, 'an acknowledgement that comes later');
my @sent = substr(slurp($pg->log), $size) =~ /execute <unnamed>: select [^\n]*(fetch_json|ack_json)/g;
my ($place) = grep { $sent[$_] eq 'ack_json' } 0 .. $#sent;
cmp_ok($place, '<=', 2, '... does not wait for all of them');
$_->close for @waiting;

# ---- a consumer that waits is told at once
my @names = map { "late$_" } 1 .. 8;
ok((poll_until {
    put($_, '{"topics":["late"]}') for @names;
    my $start   = time;
    my @clients = map { client()->send_get("/sub/$_?wait=1") } @names;
    poll_until { time - $start > 0.75 };
    insert('late');
    my $told = grep { ids($_->answer) ne '' } @clients;
    client()->method('DELETE', "/sub/$_") for @names;
    $told == @names;
}), 'consumers that wait for a second get a post that comes shortly before its end');

done_testing;
