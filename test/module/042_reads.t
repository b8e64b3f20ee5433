# P5: reads are bounded in bytes, in time and in lanes, and no POST waits for a GET.

use Pgq;
use Pgq::Wire;
use Socket qw(SOL_SOCKET SO_RCVBUF);

my $pg = Pgq::Postgres->new->start;

# Requests that wait for their answers.
sub send_get {
    my ($client, $path) = @_;

    $client->send($client->request('GET', $path));

    return $client;
}

sub backends { return $pg->safe_psql("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web'") }

sub locked {
    return $pg->poll_query_until("select count(*) > 0 from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'");
}

sub peak {
    my ($pid) = @_;

    return Pgq::Host::slurp("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m ? $1 / 1024 : 0;
}

sub posts {
    my ($count, $data) = @_;

    $pg->safe_psql("insert into posts (at, message_id, data) select now(), gen_random_uuid(), $data from generate_series(1, $count) i");

    return;
}

subtest 'reads that a lock holds up' => sub {
    my $nginx   = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 read_lanes=1 answer_timeout=1s')->start;
    my $writer  = Pgq::Client->new($nginx);
    my @readers = map { Pgq::Client->new($nginx) } 1 .. 20;
    my $lock    = $pg->session;

    $lock->query('begin; lock table posts in access exclusive mode');
    send_get($readers[$_], '/get?limit=' . (1 + $_ % 5)) for 0 .. $#readers;
    locked();
    is($writer->post('/post', '"meanwhile"')->status, 202, 'a POST is answered');
    locked();
    is(backends(), 2, 'while a read still waits in the server');

    my %seen;
    for my $round (1 .. 3) {
        for my $n (0 .. $#readers) {
            my $answer = $readers[$n]->answer;
            $seen{ $answer->status . ' ' . $answer->json->{code} }++;
            like($answer->header('Retry-After'), qr/^\d+$/, 'Retry-After') if $round == 1 && $n == 0;
            send_get($readers[$n], '/get?limit=' . (1 + $n % 5));
        }
        is($writer->post('/post', "\"round $round\"")->status, 202, "round $round: a POST is answered");
        cmp_ok(backends(), '<=', 2, "round $round: what was given up does not go on in the server");
    }

    is(join(', ', sort keys %seen), '503 read_timeout', 'each GET is told that it took too long');
    unlike($nginx->log_since(0), qr/pgq lane: (?:lost|could not connect)/, 'no lane is lost');
    like($nginx->log_since(0), qr/pgq fetch: could not read posts: canceling statement due to statement timeout \(57014\)/, 'the log says why');

    $lock->query('commit');
    $_->answer for @readers;
    is(join(' ', map { $_->get('/get')->status } @readers), join(' ', (200) x @readers), 'without the lock they are answered');
    is($pg->safe_psql("show statement_timeout"), '0', 'the server has no statement_timeout of its own');
    $nginx->stop;
};

subtest 'equal reads share a call' => sub {
    my $wire    = Pgq::Wire->new($pg)->start;
    my $nginx   = Pgq::Nginx->new(conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=1')->start;
    my @readers = map { Pgq::Client->new($nginx) } 1 .. 20;

    is(Pgq::Client->new($nginx)->get('/get')->status, 200, 'the lane is there');
    $wire->plan({ in => 'recent', before => 'BindComplete', do => 'hold' });
    send_get($readers[0], '/get');
    poll_until { $wire->happened };
    send_get($_, '/get') for @readers[ 1 .. 18 ];
    send_get($readers[19], '/get?limit=3');
    Pgq::Client->new($nginx)->get('/nowhere');
    undef $readers[7];

    $wire->plan;
    my %bodies = map { $_->answer->body => 1 } grep { $_ } @readers[ 0 .. 18 ];
    is(scalar keys %bodies, 1, 'all have the same answer');
    is($readers[19]->answer->status, 200, 'another is answered, too');
    is(scalar(my @sent = $wire->sent), 2, 'those that came while one was under way have one call, the other its own');
    $nginx->stop;
    $wire->stop;
};

subtest 'a read that the database refuses' => sub {
    my $nginx    = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1')->start;
    my $client   = Pgq::Client->new($nginx);
    my $position = $nginx->log_position;

    is($client->get('/get')->status, 200, 'is one that was taken before');
    my $backend = "select string_agg(pid::text, ' ' order by pid) from pg_stat_activity where usename = 'ngx_pgq_web'";
    my $before  = $pg->safe_psql($backend);

    $pg->safe_psql('revoke usage on schema public from public, ngx_pgq_web');
    my %seen = map { my $answer = $client->get('/get'); $answer->status . ' ' . $answer->json->{code} => 1 } 1 .. 20;
    is(join(', ', keys %seen), '503 read_failed', 'is answered at once, with a code of its own');
    is($client->post('/post', '"meanwhile"')->status, 202, 'POSTs go on');
    is($pg->safe_psql($backend), $before, 'and no connection is dropped');
    my $lines = () = $nginx->log_since($position) =~ /pgq fetch: could not read posts: permission denied for schema public \(42501\)/g;
    is($lines, 1, 'one line in the log');

    $pg->safe_psql('grant usage on schema public to public, ngx_pgq_web');
    is($client->get('/get')->status, 200, 'and afterwards it is taken again');
    $nginx->stop;
};

subtest 'a thousand posts of a mebibyte' => sub {
    posts(1000, q{to_json(repeat('x', 1048576))});
    my $nginx  = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 answer_size=4m')->start;
    my @pair   = map { Pgq::Client->new($nginx) } 1 .. 2;

    send_get($_, '/get?limit=1000') for @pair;
    my ($answer, $other) = map { $_->answer } @pair;
    is($other->status, 200, 'two at once');
    is($answer->status, 200, 'are answered');
    my $page = $answer->json;
    is(scalar @{ $page->{msg} }, 3, 'with as many as fit');
    is($page->{next}, $page->{msg}[2]{id}, 'and where it goes on');
    is($pair[0]->method('HEAD', '/get?limit=1000')->header('Content-Length'), length $answer->body, 'HEAD says its length');
    is($pair[0]->get('/get?limit=1000', 'If-None-Match' => $answer->header('ETag'))->status, 304, 'the ETag is known again');
    is($pair[0]->get("/get?limit=1000&before=$page->{next}")->json->{msg}[0]{id}, $page->{next} - 1, 'which it does');
    is($pair[0]->get('/get?limit=3')->json->{next}, undef, 'next is only where posts were left out');

    my $pid = $pg->safe_psql("select pid from pg_stat_activity where usename = 'ngx_pgq_web' and query ~ 'recent'");
    cmp_ok(peak($pid), '<', 150, 'a backend needs no more memory than for what it sends, shared buffers included');
    cmp_ok(peak($_), '<', 100, 'nor does a worker') for $nginx->worker_pids;
    $nginx->stop;
};

subtest 'answers that nobody reads' => sub {
    posts(60, q{to_json(repeat(chr(64 + i % 26), 1048576))});
    my $nginx   = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 unread_size=8m', timeout => '5s', listen => 'sndbuf=16k', http => 'send_timeout 10m;',
         locations => 'location = /metrics { pgq_metrics; }')->start;
    my $newest  = $pg->safe_psql('select max(id) from posts');
    my @readers = map { my $client = Pgq::Client->new($nginx); setsockopt $client->socket, SOL_SOCKET, SO_RCVBUF, 16384; $client } 1 .. 40;

    send_get($readers[$_], '/get?limit=1&before=' . ($newest - $_)) for 0 .. $#readers;
    ok((poll_until { Pgq::Client->new($nginx)->get('/get?limit=1')->status == 503 }), 'are a bound: more GETs are refused');
    my $answer = Pgq::Client->new($nginx)->get('/get?limit=1');
    is($answer->json->{code}, 'reads_full', 'as a problem');
    like($answer->header('Retry-After'), qr/^\d+$/, 'with Retry-After');
    is(Pgq::Client->new($nginx)->post('/post', '"meanwhile"')->status, 202, 'POSTs are not');
    cmp_ok(peak($_), '<', 64, 'the worker holds no more than that') for $nginx->worker_pids;
    my ($unread) = Pgq::Client->new($nginx)->get('/metrics')->body =~ /^pgq_unread_bytes\{pool="main"\} (\d+)/m;
    cmp_ok($unread, '>=', 8 * 1048576, 'the metrics say so');

    is($readers[0]->answer->status, 200, 'who reads has the answer');
    $_->close for splice @readers;
    ok((poll_until { Pgq::Client->new($nginx)->get('/metrics')->body =~ /^pgq_unread_bytes\{pool="main"\} 0$/m }), 'nothing is held then');
    is(Pgq::Client->new($nginx)->get('/get?limit=1')->status, 200, 'and GETs are taken again');

    my @alike = map { send_get(Pgq::Client->new($nginx), '/get?limit=1') } 1 .. 40;
    Pgq::Client->new($nginx)->get('/nowhere');
    is((grep { $_->answer->status == 200 } @alike), 40, 'answers to equal GETs of one moment are held once');
    $nginx->stop;
};

subtest 'a post larger than all of it' => sub {
    posts(1, q{to_json(repeat('y', 3 * 1048576))});
    my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 answer_size=64k unread_size=1m')->start;
    my $page  = Pgq::Client->new($nginx)->get('/get')->json;

    is(scalar @{ $page->{msg} }, 1, 'is answered alone');
    is(length $page->{msg}[0]{data}, 3 * 1048576, 'and whole');
    is($page->{next}, $page->{msg}[0]{id}, 'with where it goes on');
    $nginx->stop;
};

subtest 'times and bytes that JSON in UTF-8 does not have' => sub {
    my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1')->start;

    $pg->safe_psql("insert into posts (at, message_id, data) values ('infinity', gen_random_uuid(), '1'), ('-infinity', gen_random_uuid(), '2'),
        ('0044-03-15 BC', gen_random_uuid(), '3'), ('20000-01-01', gen_random_uuid(), '4')");
    my $answer = Pgq::Client->new($nginx)->get('/get?limit=4');
    is(join(' ', map { ($_->{data}, $_->{at} // 'null') } @{ $answer->json->{msg} }), '4 null 3 null 2 null 1 null', 'a time outside RFC 3339 is null');
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
        is($answer->status, 200, "$encoding: posts are read");
        is($answer->json->{msg}[0]{data}, 'c', "$encoding: one that is ASCII");
        is($answer->json->{msg}[1]{data}, $encoding eq 'LATIN1' ? "a\x{e9}b" : "a\x{fffd}b", "$encoding: and one that is not");
        $nginx->stop;
    }
    $other->stop;
};

done_testing;
