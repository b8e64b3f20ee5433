# P5: reads are limited in bytes, time and lanes, and no POST waits for a GET.

use Pgq;
use Pgq::Wire;
use Socket qw(SOL_SOCKET SO_RCVBUF);

my $pg = Pgq::Postgres->new->start;

sub peak {
    my ($pid) = @_;

    return Pgq::Host::slurp("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m ? $1 / 1024 : 0;
}

sub posts {
    my ($count, $data) = @_;

    $pg->safe_psql("insert into posts (at, message_id, data) select now(), gen_random_uuid(), $data from generate_series(1, $count) i");

    return;
}

subtest 'reads that wait for a lock are limited in time' => sub {
    my $nginx   = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 read_lanes=1 answer_timeout=1s')->start;
    my $writer  = Pgq::Client->new($nginx);
    my @readers = map { Pgq::Client->new($nginx) } 1 .. 20;
    my $lock    = $pg->lock_table('posts in access exclusive mode');
    $readers[$_]->send_get('/get?limit=' . (1 + $_ % 5)) for 0 .. $#readers;
    $pg->wait_for_lock;
    is($writer->post('/post', '"meanwhile"')->status, 202, 'a POST is answered while reads wait for a lock');
    $pg->wait_for_lock;
    is(scalar($pg->web_sessions), 2, 'a read that waits for a lock keeps its lane');

    my %seen;
    for my $round (1 .. 3) {
        for my $n (0 .. $#readers) {
            my $answer = $readers[$n]->answer;
            $seen{ $answer->status . ' ' . $answer->json->{code} }++;
            like($answer->header('Retry-After'), qr/^\d+$/, 'a read that took too long is answered with Retry-After') if $round == 1 && $n == 0;
            $readers[$n]->send_get('/get?limit=' . (1 + $n % 5));
        }
        is($writer->post('/post', "\"round $round\"")->status, 202, "round $round: a POST is answered while reads wait for a lock");
        cmp_ok(scalar($pg->web_sessions), '<=', 2, "round $round: a read that took too long does not continue in the server");
    }

    is(join(', ', sort keys %seen), '503 read_timeout', 'each read that took too long has the code read_timeout');
    unlike($nginx->log_since(0), qr/pgq lane: (?:lost|could not connect)/, 'a read that took too long does not close the lane');
    like($nginx->log_since(0), qr/pgq fetch: could not read posts: canceling statement due to statement timeout \(57014\)/, 'the log has the error of a read that took too long');

    $lock->release;
    $_->answer for @readers;
    is(join(' ', map { $_->get('/get')->status } @readers), join(' ', (200) x @readers), 'reads are answered after the lock is released');
    is($pg->safe_psql("show statement_timeout"), '0', 'the default statement_timeout of the role is not changed');
    $nginx->stop;
};

subtest 'equal reads share a call' => sub {
    my $wire    = Pgq::Wire->new($pg)->start;
    my $nginx   = Pgq::Nginx->new(conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=1')->start;
    my @readers = map { Pgq::Client->new($nginx) } 1 .. 20;

    is(Pgq::Client->new($nginx)->get('/get')->status, 200, 'the lane of reads is connected');
    $wire->plan({ in => 'recent', before => 'BindComplete', do => 'hold' });
    $readers[0]->send_get('/get');
    poll_until { $wire->happened };
    $_->send_get('/get') for @readers[ 1 .. 18 ];
    $readers[19]->send_get('/get?limit=3');
    $nginx->wait_until_received;
    undef $readers[7];

    $wire->plan;
    my %bodies = map { $_->answer->body => 1 } grep { $_ } @readers[ 0 .. 18 ];
    is(scalar keys %bodies, 1, 'equal reads get the same answer');
    is($readers[19]->answer->status, 200, 'a different read is answered');
    is(scalar(my @sent = $wire->sent), 2, 'equal reads that wait together share one call, a different read has its own');
    $nginx->stop;
    $wire->stop;
};

subtest 'reads that the database refuses are answered with 503' => sub {
    my $nginx    = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1')->start;
    my $client   = Pgq::Client->new($nginx);
    my $position = $nginx->log_position;

    is($client->get('/get')->status, 200, 'a read is answered before its privilege is revoked');
    my @before = $pg->web_sessions;

    $pg->safe_psql('revoke usage on schema public from public, ngx_pgq_web');
    my %seen = map { my $answer = $client->get('/get'); $answer->status . ' ' . $answer->json->{code} => 1 } 1 .. 20;
    is(join(', ', keys %seen), '503 read_failed', 'a read that the database refuses has the code read_failed');
    is($client->post('/post', '"meanwhile"')->status, 202, 'a POST is accepted while reads are refused');
    is_deeply([ $pg->web_sessions ], \@before, 'a refused read does not close the lane');
    my $lines = () = $nginx->log_since($position) =~ /pgq fetch: could not read posts: permission denied for schema public \(42501\)/g;
    is($lines, 1, 'refused reads are logged once');

    $pg->safe_psql('grant usage on schema public to public, ngx_pgq_web');
    is($client->get('/get')->status, 200, 'a read is answered after its privilege is granted again');
    $nginx->stop;
};

subtest 'an answer with large posts is limited by answer_size' => sub {
    posts(1000, q{to_json(repeat('x', 1048576))});
    my $nginx  = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 answer_size=4m')->start;
    my @pair   = map { Pgq::Client->new($nginx) } 1 .. 2;

    $_->send_get('/get?limit=1000') for @pair;
    my ($answer, $other) = map { $_->answer } @pair;
    is($other->status, 200, 'the second of two reads of large posts is answered');
    is($answer->status, 200, 'the first of two reads of large posts is answered');
    my $page = $answer->json;
    is(scalar @{ $page->{msg} }, 3, 'an answer has only the posts that fit into answer_size');
    is($page->{next}, $page->{msg}[2]{id}, 'next is the id of the last post of the answer');
    is($pair[0]->method('HEAD', '/get?limit=1000')->header('Content-Length'), length $answer->body, 'HEAD has the Content-Length of a limited answer');
    is($pair[0]->get('/get?limit=1000', 'If-None-Match' => $answer->header('ETag'))->status, 304, 'the ETag of a limited answer is recognized');
    is($pair[0]->get("/get?limit=1000&before=$page->{next}")->json->{msg}[0]{id}, $page->{next} - 1, 'before=<next> returns the following posts');
    is($pair[0]->get('/get?limit=3')->json->{next}, undef, 'an answer with all requested posts has no next');

    my $pid = $pg->safe_psql("select pid from pg_stat_activity where usename = 'ngx_pgq_web' and query ~ 'recent'");
    cmp_ok(peak($pid), '<', 150, "a backend's memory is limited by answer_size");
    cmp_ok(peak($_), '<', 100, "a worker's memory is limited by answer_size") for $nginx->worker_pids;
    $nginx->stop;
};

subtest 'answers that clients do not read are limited by unread_size' => sub {
    posts(60, q{to_json(repeat(chr(64 + i % 26), 1048576))});
    my $nginx   = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 unread_size=8m', timeout => '5s', listen => 'sndbuf=16k', http => 'send_timeout 10m;',
         locations => 'location = /metrics { pgq_metrics; }')->start;
    my $newest  = $pg->safe_psql('select max(id) from posts');
    my @readers = map { my $client = Pgq::Client->new($nginx); setsockopt $client->socket, SOL_SOCKET, SO_RCVBUF, 16384; $client } 1 .. 40;

    $readers[$_]->send_get('/get?limit=1&before=' . ($newest - $_)) for 0 .. $#readers;
    ok((poll_until { Pgq::Client->new($nginx)->get('/get?limit=1')->status == 503 }), 'more GETs are refused while unread answers reach the limit');
    my $answer = Pgq::Client->new($nginx)->get('/get?limit=1');
    is($answer->json->{code}, 'reads_full', 'a GET above the limit of unread answers has the code reads_full');
    like($answer->header('Retry-After'), qr/^\d+$/, 'a GET above the limit of unread answers is answered with Retry-After');
    is(Pgq::Client->new($nginx)->post('/post', '"meanwhile"')->status, 202, 'a POST is accepted while unread answers reach the limit');
    cmp_ok(peak($_), '<', 64, "the worker's memory is limited by unread_size") for $nginx->worker_pids;
    cmp_ok($nginx->metric('pgq_unread_bytes{pool="main"}'), '>=', 8 * 1048576, 'the metrics show the bytes of unread answers');

    is($readers[0]->answer->status, 200, 'a client that reads late gets its answer');
    $_->close for splice @readers;
    ok((poll_until { $nginx->metric('pgq_unread_bytes{pool="main"}') == 0 }), 'the metrics show no unread bytes after the clients have left');
    is(Pgq::Client->new($nginx)->get('/get?limit=1')->status, 200, 'GETs are accepted again after the clients have left');

    my @alike = map { Pgq::Client->new($nginx)->send_get('/get?limit=1') } 1 .. 40;
    $nginx->wait_until_received;
    is((grep { $_->answer->status == 200 } @alike), 40, 'equal answers are counted once against unread_size');
    $nginx->stop;
};

subtest 'a post larger than answer_size and unread_size is answered' => sub {
    posts(1, q{to_json(repeat('y', 3 * 1048576))});
    my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 answer_size=64k unread_size=1m')->start;
    my $page  = Pgq::Client->new($nginx)->get('/get')->json;

    is(scalar @{ $page->{msg} }, 1, 'a post larger than answer_size is answered alone');
    is(length $page->{msg}[0]{data}, 3 * 1048576, 'a post larger than answer_size is complete');
    is($page->{next}, $page->{msg}[0]{id}, 'an answer with a large post has next');
    $nginx->stop;
};

subtest 'times and bytes that have no JSON representation are replaced' => sub {
    my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1')->start;

    $pg->safe_psql("insert into posts (at, message_id, data) values ('infinity', gen_random_uuid(), '1'), ('-infinity', gen_random_uuid(), '2'),
        ('0044-03-15 BC', gen_random_uuid(), '3'), ('20000-01-01', gen_random_uuid(), '4')");
    my $answer = Pgq::Client->new($nginx)->get('/get?limit=4');
    is(join(' ', map { ($_->{data}, $_->{at} // 'null') } @{ $answer->json->{msg} }), '4 null 3 null 2 null 1 null', 'a time that RFC 3339 cannot express is null');
    $nginx->stop;

    my $other = Pgq::Postgres->new(name => 'ascii', bare => 1, database => 'ascii', preload => '')->start;
    my %character = (SQL_ASCII => 233, WIN1252 => 129, LATIN1 => 233);

    for my $encoding (sort keys %character) {
        my $name = lc $encoding;
        $other->safe_psql("create database $name template template0 encoding '$encoding' locale 'C'", database => 'postgres');
    }
    $other->append_conf("shared_preload_libraries = 'ngx_pgq'\nngx_pgq.databases = ''");
    $other->restart;

    for my $encoding (sort keys %character) {
        my $name = lc $encoding;
        $other->install($name);
        $other->safe_psql("insert into posts (at, message_id, data) select now(), gen_random_uuid(), ('\"a' || chr($character{$encoding}) || 'b\"')::json;
            insert into posts (at, message_id, data) select now(), gen_random_uuid(), '\"c\"'", database => $name);
        $nginx = Pgq::Nginx->new(name => $name, conninfo => $other->conninfo(user => 'ngx_pgq_web', database => $name), pool => 'lanes=1')->start;
        $answer = Pgq::Client->new($nginx)->get('/get');
        is($answer->status, 200, "$encoding: posts can be read");
        is($answer->json->{msg}[0]{data}, 'c', "$encoding: a post of ASCII is unchanged");
        is($answer->json->{msg}[1]{data}, $encoding eq 'LATIN1' ? "a\x{e9}b" : "a\x{fffd}b", "$encoding: a post with another character is valid UTF-8");
        $nginx->stop;
    }
    $other->stop;
};

done_testing;
