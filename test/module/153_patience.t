# How long a lane waits: for a server that takes a connection and says nothing, for the answer to a statement, and
# before it tries again, which is soon after a connection that was good and later and later otherwise.

use Pgq;
use Pgq::Wire;
use Time::HiRes qw(time);

my $pg = Pgq::Postgres->new->start;

sub nginx {
    my ($pool, @wires) = @_;

    return Pgq::Nginx->new(
        conninfo => 'host=' . join(',', ('127.0.0.1') x @wires) . ' port=' . join(',', map { $_->port } @wires)
            . ' dbname=posts user=postgres',
        pool     => "$pool", timeout => '20s', locations => 'location = /metrics { pgq_metrics; }',
    )->start;
}

subtest 'the answer to a statement' => sub {
    my $wire   = Pgq::Wire->new($pg)->start;
    my $nginx  = nginx('lanes=2 answer_timeout=1s', $wire);
    my $client = Pgq::Client->new($nginx);

    is($client->post('/post', '"first"')->status, 202, 'comes in time');

    $wire->plan({ in => 'enqueue', before => 'ReadyForQuery', do => 'hold', for => 0.3 });
    is($client->post('/post', '"slow"')->status, 202, 'or nearly');
    unlike($nginx->log_since(0), qr/pgq lane: (?:lost|could not connect)/, 'and the lane stays');

    $wire->plan({ in => 'enqueue', before => 'ReadyForQuery', do => 'hold' });
    my $start = time;
    is($client->post('/post', '"lost"')->status, 202, 'or not: it is sent again');
    cmp_ok(time - $start, '>', 0.9, 'after its time');
    cmp_ok(time - $start, '<', timeout(5), 'and not long after');
    is(scalar($wire->sent), 2, 'on another lane');
    like($nginx->log_since(0), qr/pgq lane: lost \S+, retry in \d+ ms: no answer in time \(timeout, 1 requests wait\)/, 'the log says why');
    ok($pg->poll_query_until(q{select count(*) from posts}, 3), 'nothing is lost');
    is($pg->safe_psql(q{select count(*) from posts where data::text = '"lost"'}), 1, 'and nothing there twice');

    # silences that are each shorter, together longer
    my $position = $nginx->log_position;
    $wire->plan(map { { in => 'recent', before => $_, do => 'hold', for => 0.7 } } qw(DataRow CommandComplete ReadyForQuery));
    $start = time;
    is($client->get('/get')->status, 200, 'an answer comes bit by bit');
    is($wire->happened, 3, 'with pauses');
    cmp_ok(time - $start, '>', 1.9, 'for longer than a silence may last');
    unlike($nginx->log_since($position), qr/pgq lane: (?:lost|could not connect)/, 'and the lane stays');

    undef $client;
    $nginx->stop;
    $wire->stop;
};

subtest 'the answer to an attempt' => sub {
    my @wires = map { Pgq::Wire->new($pg)->start } 1 .. 2;
    $wires[0]->plan({ in => 'connect', before => 'Authentication', do => 'hold', times => 0 });
    my $nginx = nginx('lanes=2 connect_timeout=400ms', @wires);
    my $start = time;

    is(Pgq::Client->new($nginx)->post('/post', '"other"')->status, 202, 'does not come: another host is taken');
    cmp_ok(time - $start, '<', timeout(1.5), 'when the time of one attempt is over');
    is($wires[0]->happened, 1, 'by all lanes');
    $nginx->stop;
    $_->stop for reverse @wires;
};

subtest 'a server that drops each attempt' => sub {
    my $wire = Pgq::Wire->new($pg)->start;
    $wire->plan({ in => 'connect', after => 'Startup', do => 'cut', times => 0 });
    my $nginx = nginx('lanes=1', $wire);
    my $start = time;

    # pauses of 25, 50, 100, 200 and twice 250 ms at least
    ok((poll_until { $wire->happened == 7 }), 'is tried again');
    cmp_ok(time - $start, '>', 0.87, 'later and later');
    $nginx->stop('TERM');
    $wire->stop;
};

subtest 'a server that drops each connection' => sub {
    my $wire  = Pgq::Wire->new($pg)->start;
    my $nginx = nginx('lanes=1', $wire);
    my $start = time;
    my $made  = sub { return (Pgq::Client->new($nginx)->get('/metrics')->body =~ /^pgq_connects_total\S* (\d+)$/m)[0] };

    for my $count (1 .. 7) {
        ok((poll_until { $made->() == $count }), "connection $count is good, and dropped");
        $wire->cut;
    }

    cmp_ok(time - $start, '>', 0.87, 'the next comes later and later');
    my @lines = $nginx->log_since(0) =~ /pgq lane: (connected|lost|could not connect)/g;
    cmp_ok(scalar @lines, '<=', 3 + 2 * int((time - $start) / 10), 'the log has one loss and its end in ten seconds') or diag("@lines");

    # one that has lasted, without a statement, has made it good
    ok((poll_until { $made->() == 8 }), 'until one is not');
    Time::HiRes::sleep(10.5);
    my $soon = sub {
        my $position = $nginx->log_position;
        $wire->cut;
        $nginx->wait_for_log(qr/pgq lane: connected/, $position);
        my ($pause) = $nginx->log_since($position) =~ /pgq lane: lost \S+, retry in (\d+) ms/;
        cmp_ok($pause, '<=', 50, "@_ the next comes soon");
    };
    $soon->('after one that lasted');

    # so has a statement
    for (1 .. 5) {
        $wire->cut;
        is(Pgq::Client->new($nginx)->post('/post', '"good"')->status, 202, 'a statement');
    }
    $soon->('after one that had a statement');
    $nginx->stop;
    $wire->stop;
};

# As near wraparound, where PostgreSQL says so with each transaction: each time costs one of those that are left.
subtest 'a batch of unknown outcome' => sub {
    my $wire     = Pgq::Wire->new($pg)->start;
    my $nginx    = nginx('lanes=2', $wire);
    my $client   = Pgq::Client->new($nginx);
    my $position = $nginx->log_position;

    is($client->post('/post', '"before"')->status, 202, 'a lane is there');
    $wire->plan({ in => 'enqueue', after => 'CommandComplete', do => 'insert', bytes => Pgq::Wire->warning('01000', 'again'), times => 0 });
    my $start = time;
    my $sent  = Pgq::Client->new($nginx);
    $sent->send($sent->request('POST', '/post', body => '"doubtful"', headers => { 'Content-Type' => 'application/json' }));
    poll_until { time - $start > 3 };

    # at once, and after pauses of 10, 20, … ms, up to a second, each at least half as long: 11 at most
    my $count = () = $wire->sent;
    cmp_ok($count, '>', 3, 'is sent again');
    cmp_ok($count, '<=', 12, 'after pauses that grow') or diag("$count times in 3 s");
    unlike($nginx->log_since($position), qr/pgq lane: (?:lost|could not connect)/, 'on lanes that stay');
    $wire->plan;
    is($sent->answer->status, 202, 'when the WARNINGs end it is taken');
    ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"doubtful"'}, 1), 'once');
    $nginx->stop;
    $wire->stop;
};

done_testing;
