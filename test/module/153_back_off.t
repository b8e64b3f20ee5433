# Connection attempts and answers have timeouts. The back-off before the next attempt is short after a good connection, and
# grows otherwise.

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

subtest 'a statement without an answer is sent again' => sub {
    my $wire   = Pgq::Wire->new($pg)->start;
    my $nginx  = nginx('lanes=2 answer_timeout=1s', $wire);
    my $client = Pgq::Client->new($nginx);

    is($client->post('/post', '"first"')->status, 202, 'a message is accepted in time');

    $wire->plan({ in => 'enqueue', before => 'ReadyForQuery', do => 'hold', for => 0.3 });
    is($client->post('/post', '"slow"')->status, 202, 'a message whose answer is slow is accepted');
    unlike($nginx->log_since(0), qr/pgq lane: (?:lost|could not connect)/, 'a slow answer does not close the lane');

    $wire->plan({ in => 'enqueue', before => 'ReadyForQuery', do => 'hold' });
    my $start = time;
    is($client->post('/post', '"lost"')->status, 202, 'a message without an answer is sent again and accepted');
    cmp_ok(time - $start, '>', 0.9, 'the statement is sent again after answer_timeout');
    cmp_ok(time - $start, '<', timeout(5), 'the statement is sent again soon after answer_timeout');
    is(scalar($wire->sent), 2, 'the statement is sent again on another lane');
    like($nginx->log_since(0), qr/pgq lane: lost \S+, retry in \d+ ms: no answer in time \(timeout, 1 requests wait\)/, 'the timeout is logged');
    ok($pg->poll_query_until(q{select count(*) from posts}, 3), 'each message is a post');
    is($pg->safe_psql(q{select count(*) from posts where data::text = '"lost"'}), 1, 'the message that was sent twice is a post once');

    # Each pause is shorter than answer_timeout, all three together are longer.
    my $position = $nginx->log_position;
    $wire->plan(map { { in => 'recent', before => $_, do => 'hold', for => 0.7 } } qw(DataRow CommandComplete ReadyForQuery));
    $start = time;
    is($client->get('/get')->status, 200, 'a GET is answered in several parts');
    is($wire->happened, 3, 'each part was delayed');
    cmp_ok(time - $start, '>', 1.9, 'the answer took longer than answer_timeout');
    unlike($nginx->log_since($position), qr/pgq lane: (?:lost|could not connect)/, 'pauses shorter than answer_timeout do not close the lane');

    $nginx->stop;
    $wire->stop;
};

subtest 'another host is used when the first one does not answer' => sub {
    my @wires = map { Pgq::Wire->new($pg)->start } 1 .. 2;
    $wires[0]->plan({ in => 'connect', before => 'Authentication', do => 'hold', times => 0 });
    my $nginx = nginx('lanes=2 connect_timeout=400ms', @wires);
    my $start = time;

    is(Pgq::Client->new($nginx)->post('/post', '"other"')->status, 202, 'a message is accepted by the other host');
    cmp_ok(time - $start, '<', timeout(1.5), 'the other host is used after one connect_timeout');
    is($wires[0]->happened, 1, 'all lanes skip the host that does not answer');
    $nginx->stop;
    $_->stop for reverse @wires;
};

subtest 'the back-off grows while attempts fail' => sub {
    my $wire = Pgq::Wire->new($pg)->start;
    $wire->plan({ in => 'connect', after => 'Startup', do => 'cut', times => 0 });
    my $nginx = nginx('lanes=1', $wire);
    my $start = time;

    # The pauses are at least 25, 50, 100, 200, 250 and 250 ms.
    ok((poll_until { $wire->happened == 7 }), 'seven connection attempts are made');
    cmp_ok(time - $start, '>', 0.87, 'the back-off grows with each failed attempt');
    $nginx->stop('TERM');
    $wire->stop;
};

subtest 'the back-off grows while good connections are lost' => sub {
    my $wire  = Pgq::Wire->new($pg)->start;
    my $nginx = nginx('lanes=1', $wire);
    my $start = time;

    for my $count (1 .. 7) {
        ok((poll_until { $nginx->metric('pgq_connects_total{pool="main"}') == $count }), "connection $count is established");
        $wire->cut;
    }

    cmp_ok(time - $start, '>', 0.87, 'the back-off grows with each lost connection');
    my @lines = $nginx->log_since(0) =~ /pgq lane: (connected|lost|could not connect)/g;
    cmp_ok(scalar @lines, '<=', 3 + 2 * int((time - $start) / 10), 'at most one loss and one connect are logged in ten seconds') or diag("@lines");

    # A connection that has lasted ten seconds ends the back-off, even without a statement.
    ok((poll_until { $nginx->metric('pgq_connects_total{pool="main"}') == 8 }), 'the last connection is established');
    Time::HiRes::sleep(10.5);
    my $soon = sub {
        my $position = $nginx->log_position;
        $wire->cut;
        $nginx->wait_for_log(qr/pgq lane: connected/, $position);
        my ($pause) = $nginx->log_since($position) =~ /pgq lane: lost \S+, retry in (\d+) ms/;
        cmp_ok($pause, '<=', 50, "the back-off is short @_");
    };
    $soon->('after a connection that lasted ten seconds');

    # A statement ends the back-off as well.
    for (1 .. 5) {
        $wire->cut;
        is(Pgq::Client->new($nginx)->post('/post', '"good"')->status, 202, 'a statement is executed');
    }
    $soon->('after a connection with a statement');
    $nginx->stop;
    $wire->stop;
};

# Near wraparound PostgreSQL warns in each transaction, and each attempt uses one of the remaining transaction IDs.
subtest 'a batch of unknown outcome is sent again with a back-off' => sub {
    my $wire     = Pgq::Wire->new($pg)->start;
    my $nginx    = nginx('lanes=2', $wire);
    my $client   = Pgq::Client->new($nginx);
    my $position = $nginx->log_position;

    is($client->post('/post', '"before"')->status, 202, 'a message is accepted before the WARNINGs');
    $wire->plan({ in => 'enqueue', after => 'CommandComplete', do => 'insert', bytes => Pgq::Wire->warning('01000', 'again'), times => 0 });
    my $start = time;
    my $sent  = Pgq::Client->new($nginx)->send_post('/post', '"unknown"');
    poll_until { time - $start > 3 };

    # The batch is sent again at once, then after 10, 20, … ms, up to a second. Each pause may be reduced by half: so at most
    # 11 times in 3 s.
    my $count = () = $wire->sent;
    cmp_ok($count, '>', 3, 'the batch is sent again');
    cmp_ok($count, '<=', 12, 'the back-off between the attempts grows') or diag("$count times in 3 s");
    unlike($nginx->log_since($position), qr/pgq lane: (?:lost|could not connect)/, 'the WARNINGs do not close the lanes');
    $wire->plan;
    is($sent->answer->status, 202, 'the message is accepted when the WARNINGs end');
    ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"unknown"'}, 1), 'the message is a post once');
    $nginx->stop;
    $wire->stop;
};

done_testing;
