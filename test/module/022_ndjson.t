# NDJSON: each line of a request is a message, and either all of its messages are queued, in order, or none.

use Pgq;
use Pgq::Wire;

use List::Util qw(max);
use Time::HiRes qw(sleep);

my $pg = Pgq::Postgres->new->start;
# With this limit the database refuses nesting that nginx accepts.
$pg->safe_psql("alter role ngx_pgq_web set max_stack_depth = '200kB'");
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    pool      => 'lanes=1 tickets=20000 size=16m',
    server    => 'client_max_body_size 4m; pgq_lines 10000;',
    locations => 'location = /few { pgq_post main; pgq_lines 3; } location = /details { pgq_post main; pgq_details on; } location = /disk { pgq_post main; client_body_in_file_only clean; }'
        . ' location = /small { pgq_post main; client_body_buffer_size 1k; }',
)->start;
my $client = Pgq::Client->new($nginx);
my @ndjson = ('Content-Type' => 'application/x-ndjson');

sub data {
    my ($where) = @_;
    $pg->wait_until_moved;
    return $pg->safe_psql("select string_agg(data::text, ' ' order by id) from posts" . ($where ? " where $where" : ''));
}

sub clear { $pg->wait_until_moved; $pg->safe_psql('truncate posts'); return }

# ---- valid requests
my $answer = $client->post('/post', qq(1\n"two"\n{"three": [3]}\n), @ndjson);
is($answer->{status}, 202, 'three lines are accepted');
is($answer->json->{status}, 'queued', 'the answer to NDJSON has the status queued');
my @ids = @{ $answer->json->{ids} };
is(scalar @ids, 3, 'the answer has one id for each line');
is(scalar(grep { /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/ } @ids), 3, 'the ids are UUIDs of version 7');
is("@ids", join(' ', sort @ids), 'the ids are in ascending order');
is(data(), '1 "two" {"three": [3]}', 'the messages are posts in the order of the lines');
is($pg->safe_psql("select string_agg(message_id::text, ' ' order by id) from posts"), "@ids", 'the posts have the ids of the answer');
is($pg->safe_psql('select count(distinct at) from posts'), 1, 'all messages of a request have the same time');

for my $case (
    [ 'no line feed at the end',   "1\n2",               '1 2' ],
    [ 'carriage returns',          "1\r\n2\r\n",         '1 2' ],
    [ 'empty lines',               "\n\n1\n \t\n\r\n2\n\n", '1 2' ],
    [ 'white space around messages', "  1  \n\t2\t\n",     '1 2' ],
    [ 'one line',                  "1\n",                '1' ],
    [ 'a line feed that is escaped', qq("a\\nb"\n2\n),   '"a\nb" 2' ],
) {
    my ($name, $body, $expected) = @$case;
    for my $path ('/post', '/disk', '/small') {
        clear();
        is($client->post($path, $body, @ndjson)->{status}, 202, "$name: the body is accepted by $path");
        is(data(), $expected, "$name: each line sent to $path is a post");
    }
}

clear();
is($client->post_chunked('/post', [ split //, qq(1\n"two"\n3) ], @ndjson)->{status}, 202, 'NDJSON in chunks of one byte is accepted');
is(data(), '1 "two" 3', 'the messages of a chunked NDJSON body are posts in order');

is($client->post('/post', "1\n2\n", 'Content-Type' => 'Application/X-NDJSON; charset=utf-8')->{status}, 202, 'the case of a content type does not matter');

# ---- many lines and long lines, in memory and on disk, across the borders of buffers
for my $case (
    [ '10,000 lines',            join('', map { "{\"n\":$_}\n" } 1 .. 10_000), 10_000 ],
    [ 'a line of a megabyte',    join("\n", 1, '"' . 'x' x 1_000_000 . '"', 3), 3 ],
    [ 'lines of every length',   join("\n", map { '"' . 'y' x $_ . '"' } 1 .. 1_500), 1_500 ],
) {
    my ($name, $body, $n) = @$case;
    my $sum = $pg->safe_psql("select md5(string_agg(line, ' ' order by o)) from unnest(string_to_array(\$\$$body\$\$, E'\\n')) with ordinality as l (line, o) where line <> ''");
    for my $path ('/post', '/disk', '/small') {
        clear();
        $answer = $client->post($path, $body, @ndjson);
        is($answer->{status}, 202, "$name: the body is accepted by $path") or diag($answer->{body});
        is(scalar @{ $answer->json->{ids} }, $n, "$name: $path answers with an id for each line");
        $pg->wait_until_moved;
        is($pg->safe_psql("select md5(string_agg(data::text, ' ' order by id)) from posts"), $sum, "$name: all messages sent to $path are posts in order");
    }
}

# ---- invalid requests: no message of them is queued
clear();

for my $case (
    [ 'a line that is not JSON', qq(1\n{"a":}\n3\n),     400, 'not_json',  2, qr/^line 2: .*at byte 5; no message was queued$/ ],
    [ 'invalid JSON after white space', qq(1\n\n  nope\n), 400, 'not_json',  3, qr/^line 3: .*at byte 3;/ ],
    [ 'a line that is not UTF-8', qq(1\n2\n"\xff"\n),     400, 'not_json',  3, qr/^line 3: / ],
    [ 'two messages on one line', qq(1\n2 3\n),           400, 'not_json',  2, qr/^line 2: / ],
    [ 'one message on two lines', qq({"a":\n1}\n),        400, 'not_json',  1, qr/^line 1: / ],
    [ 'a character that PostgreSQL cannot store', qq(1\n\n2\n"\\u0000"\n), 400, 'not_json', 4, qr/^line 4: / ],
    [ 'an empty body',         '',                     400, 'empty',     undef, qr/no message/ ],
    [ 'a body of white space', "\n \n\r\n",          400, 'empty',     undef, qr/no message/ ],
) {
    my ($name, $body, $status, $code, $line, $detail) = @$case;
    for my $path ('/post', '/disk') {
        $answer = $client->post($path, $body, @ndjson);
        is_problem($answer, $status, $code, "$name, sent to $path,");
        is($answer->json->{line}, $line, "$name: the problem of $path has the number of the line");
        like($answer->json->{detail}, $detail, "$name: the detail of $path describes the error");
    }
}

is($client->post('/few', "1\n\n2\n3\n", @ndjson)->{status}, 202, 'as many messages as pgq_lines allows are accepted');
clear();
$answer = $client->post('/few', "1\n2\n3\n4\n", @ndjson);
is_problem($answer, 413, 'too_many_lines', 'a request with one message more than pgq_lines allows');
is($client->post('/post', "1\n" x 10_001, @ndjson)->{status}, 413, 'a large value of pgq_lines is enforced');
is($client->post('/post', '"' . 'x' x 5_000_000 . '"', @ndjson)->{status}, 413, 'a body of more than client_max_body_size is refused with 413');
$client = Pgq::Client->new($nginx);

# ---- a message that the database refuses
my $deep = '[' x 400 . ']' x 400;
$answer = $client->post('/post', "1\n\n2\n$deep\n3\n", @ndjson);
is_problem($answer, 400, 'refused', 'a request with a message that the database refuses');
is($answer->json->{line}, 4, 'the problem has the number of the line that the database refuses') or diag($answer->{body});
is($answer->json->{detail}, 'line 4: no message was queued. The message exceeds a limit of the database. (SQLSTATE 54001)', 'the detail describes the refusal of a line by the database');

$pg->safe_psql(q{create function no() returns trigger language plpgsql as
    $$ begin if new.data::text = '"unwanted"' then raise exception 'unwanted %', repeat('ü', 300); end if; return new; end $$});
$pg->safe_psql("create trigger no before insert on ngx_pgq.queue_$_ for each row execute function no()") for 0 .. 3;
$answer = $client->post('/details', qq(1\n"unwanted"\n3\n), @ndjson);
is($answer->{status}, 400, 'a request with a message that a trigger refuses is answered with 400');
like($answer->json->{detail}, qr/unwanted \x{fc}+$/, "the text of a trigger's error is cut between two characters");
is(data(), '', 'no message of a refused request is a post');

# ---- a refused request in a batch with others
my ($first, @batched) = $nginx->post_in_one_batch(
    '"a"', [ "1\n2\n", @ndjson ], '"b"', [ qq("unwanted"\n), @ndjson ], '"c"', [ "3\n", @ndjson ],
);
is($first->answer->{status}, 202, 'the request before the batch is accepted');
is(join(' ', map { $_->answer->{status} } @batched), '202 202 202 400 202 202', 'a request of NDJSON that is refused does not affect the other requests of its batch');
is(join(' ', sort split / /, data()), '"a" "b" "c" "first" 1 2 3', 'all messages of the accepted requests of the batch are posts');

# ---- clients that close their connections before their messages are sent
clear();
my $lock = $pg->lock_table;
$first = Pgq::Client->new($nginx)->send_post('/post', '"first"');
$pg->wait_for_lock;
my @closed = map { Pgq::Client->new($nginx)->send_post('/disk', "1\n2\n", @ndjson) } 1 .. 3;
$nginx->wait_until_received;
$_->close for @closed;
poll_until { $nginx->log_contains(qr/client .*closed/) } 5;
$nginx->wait_until_received;
$lock->release;
is($first->answer->{status}, 202, 'the request whose client stays is accepted');
is(data(), '"first"', 'the messages of clients that left before they were sent are not queued');

# ---- a body on disk is not read into memory while it waits
my $big = join '', map { '"' . 'z' x 998 . "\"\n" } 1 .. 1_000;
my ($worker) = $nginx->worker_pids;
sub resident { my ($kb) = Pgq::Host::slurp("/proc/$worker/smaps_rollup") =~ /^Anonymous:\s+(\d+)/m; return $kb }
$client->post('/disk', $big, @ndjson);
$lock = $pg->lock_table;
my $before = resident();
my @big = map { Pgq::Client->new($nginx)->send_post('/disk', $big, @ndjson) } 1 .. 8;
$pg->wait_for_lock;
$nginx->wait_until_received;
my $after = resident();
diag("anonymous memory of the worker with eight requests of 1 MB, one of them sent: $before kB, then $after kB");
cmp_ok($after - $before, '<', 3_500, "waiting bodies on disk are not in the worker's memory");
$lock->release;
is((grep { $_->answer->{status} == 202 } @big), 8, 'requests whose bodies waited on disk are accepted');
$nginx->stop;

# ---- an unknown outcome
my $wire  = Pgq::Wire->new($pg)->start;
my $other = Pgq::Nginx->new(name => 'other', pg => $pg, conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=2')->start;
poll_until { $wire->clients == 2 } 10;
for my $place ([ in => 'enqueue_all', before => 'Bind' ], [ in => 'enqueue_all', after => 'Sync' ], [ in => 'enqueue_all', before => 'CommandComplete' ],
    [ in => 'enqueue_all', before => 'ReadyForQuery' ]) {
    clear();
    $wire->plan({ @$place, do => 'cut' });
    $answer = Pgq::Client->new($other)->post('/post', "1\n2\n3\n", @ndjson);
    is($answer->{status}, 202, "NDJSON is accepted although the connection is cut @$place[2, 3]");
    ok($wire->happened, "the connection was cut @$place[2, 3]");
    is(data(), '1 2 3', "NDJSON is queued once although the connection is cut @$place[2, 3]");
    $wire->plan;
}

# ---- the default of pgq_lines
clear();
my $default = Pgq::Client->new($other);
is($default->post('/post', "1\n" x 1000, @ndjson)->{status}, 202, '1,000 messages in a request are accepted by default');
$answer = $default->post('/post', "1\n" x 1001, @ndjson);
is_problem($answer, 413, 'too_many_lines', 'a request with 1,001 messages, one more than the default,');
is($pg->poll_query_until('select count(*) from posts', 1000), 1, 'no message of a request with too many lines is a post');

done_testing;
