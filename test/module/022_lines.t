# Many messages in one request, one a line: all of them are queued, in order, or none is.

use Pgq;
use Pgq::Wire;

use List::Util qw(max);
use Time::HiRes qw(sleep);

my $pg = Pgq::Postgres->new->start;
# deep nesting is refused by the database, not by nginx
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
    $pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
    return $pg->safe_psql("select string_agg(data::text, ' ' order by id) from posts" . ($where ? " where $where" : ''));
}

sub forget { $pg->poll_query_until('select count(*) from ngx_pgq.queue', 0); $pg->safe_psql('truncate posts'); return }

# ---- what is taken
my $answer = $client->post('/post', qq(1\n"two"\n{"three": [3]}\n), @ndjson);
is($answer->{status}, 202, 'three lines');
is($answer->json->{status}, 'queued', 'are queued');
my @ids = @{ $answer->json->{ids} };
is(scalar @ids, 3, 'three ids');
is(scalar(grep { /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/ } @ids), 3, 'UUIDs of version 7');
is("@ids", join(' ', sort @ids), 'in order');
is(data(), '1 "two" {"three": [3]}', 'they are posts, in order');
is($pg->safe_psql("select string_agg(message_id::text, ' ' order by id) from posts"), "@ids", 'with these ids');
is($pg->safe_psql('select count(distinct at) from posts'), 1, 'that came in at one time');

for my $case (
    [ 'no line feed at the end',   "1\n2",               '1 2' ],
    [ 'carriage returns',          "1\r\n2\r\n",         '1 2' ],
    [ 'empty lines',               "\n\n1\n \t\n\r\n2\n\n", '1 2' ],
    [ 'white space around',        "  1  \n\t2\t\n",     '1 2' ],
    [ 'one line',                  "1\n",                '1' ],
    [ 'a line feed that is escaped', qq("a\\nb"\n2\n),   '"a\nb" 2' ],
) {
    my ($name, $body, $expected) = @$case;
    for my $path ('/post', '/disk', '/small') {
        forget();
        is($client->post($path, $body, @ndjson)->{status}, 202, "$name: taken by $path");
        is(data(), $expected, "$name: as they are");
    }
}

forget();
is($client->post_chunked('/post', [ split //, qq(1\n"two"\n3) ], @ndjson)->{status}, 202, 'in chunks of a byte each');
is(data(), '1 "two" 3', 'the same');

is($client->post('/post', "1\n2\n", 'Content-Type' => 'Application/X-NDJSON; charset=utf-8')->{status}, 202, 'the type in other letters');

# ---- many, and long ones: in memory, from disk, lines that lie across the pieces it is read in
for my $case (
    [ '10,000 lines',            join('', map { "{\"n\":$_}\n" } 1 .. 10_000), 10_000 ],
    [ 'a line of a megabyte',    join("\n", 1, '"' . 'x' x 1_000_000 . '"', 3), 3 ],
    [ 'lines of every length',   join("\n", map { '"' . 'y' x $_ . '"' } 1 .. 1_500), 1_500 ],
) {
    my ($name, $body, $n) = @$case;
    my $sum = $pg->safe_psql("select md5(string_agg(line, ' ' order by o)) from unnest(string_to_array(\$\$$body\$\$, E'\\n')) with ordinality as l (line, o) where line <> ''");
    for my $path ('/post', '/disk', '/small') {
        forget();
        $answer = $client->post($path, $body, @ndjson);
        is($answer->{status}, 202, "$name by $path") or diag($answer->{body});
        is(scalar @{ $answer->json->{ids} }, $n, 'an id each');
        $pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
        is($pg->safe_psql("select md5(string_agg(data::text, ' ' order by id)) from posts"), $sum, 'and all is there');
    }
}

# ---- what is not, and then nothing is
forget();

for my $case (
    [ 'no JSON',               qq(1\n{"a":}\n3\n),     400, 'not_json',  2, qr/^line 2: .*at byte 5; no message was queued$/ ],
    [ 'no JSON behind white space', qq(1\n\n  nope\n), 400, 'not_json',  3, qr/^line 3: .*at byte 3;/ ],
    [ 'no UTF-8',              qq(1\n2\n"\xff"\n),     400, 'not_json',  3, qr/^line 3: / ],
    [ 'two on a line',         qq(1\n2 3\n),           400, 'not_json',  2, qr/^line 2: / ],
    [ 'one on two lines',      qq({"a":\n1}\n),        400, 'not_json',  1, qr/^line 1: / ],
    [ 'what PostgreSQL refuses', qq(1\n\n2\n"\\u0000"\n), 400, 'not_json', 4, qr/^line 4: / ],
    [ 'nothing',               '',                     400, 'empty',     undef, qr/no message/ ],
    [ 'nothing but white space', "\n \n\r\n",          400, 'empty',     undef, qr/no message/ ],
) {
    my ($name, $body, $status, $code, $line, $detail) = @$case;
    for my $path ('/post', '/disk') {
        $answer = $client->post($path, $body, @ndjson);
        is($answer->{status}, $status, "$name: $status by $path");
        is($answer->{headers}{'content-type'}, 'application/problem+json', "$name: as a problem");
        is($answer->json->{code}, $code, "$name: $code");
        is($answer->json->{line}, $line, "$name: the line");
        like($answer->json->{detail}, $detail, "$name: in words");
    }
}

is($client->post('/few', "1\n\n2\n3\n", @ndjson)->{status}, 202, 'as many as pgq_lines');
forget();
$answer = $client->post('/few', "1\n2\n3\n4\n", @ndjson);
is($answer->{status}, 413, 'one more is too many');
is($answer->json->{code}, 'too_many_lines', 'and said so');
is($client->post('/post', "1\n" x 10_001, @ndjson)->{status}, 413, 'of any number that is set');
is($client->post('/post', '"' . 'x' x 5_000_000 . '"', @ndjson)->{status}, 413, 'nor more than nginx takes');
$client = Pgq::Client->new($nginx);

# the database refuses one of them
my $deep = '[' x 400 . ']' x 400;
$answer = $client->post('/post', "1\n\n2\n$deep\n3\n", @ndjson);
is($answer->{status}, 400, 'what the database refuses');
is($answer->json->{code}, 'refused', 'is refused');
is($answer->json->{line}, 4, 'with its line') or diag($answer->{body});
is($answer->json->{detail}, 'line 4: no message was queued. The message exceeds a limit of the database. (SQLSTATE 54001)', 'in words');

$pg->safe_psql(q{create function no() returns trigger language plpgsql as
    $$ begin if new.data::text = '"unwanted"' then raise exception 'unwanted %', repeat('ü', 300); end if; return new; end $$;
    create trigger no before insert on ngx_pgq.queue_0 for each row execute function no();
    create trigger no before insert on ngx_pgq.queue_1 for each row execute function no();
    create trigger no before insert on ngx_pgq.queue_2 for each row execute function no();
    create trigger no before insert on ngx_pgq.queue_3 for each row execute function no()});
$answer = $client->post('/details', qq(1\n"unwanted"\n3\n), @ndjson);
is($answer->{status}, 400, 'what a trigger refuses');
like($answer->json->{detail}, qr/unwanted \x{fc}+$/, 'with its words, which are cut, but no letter of them');
is(data(), '', 'of all these nothing is a post');

# ---- its batch-mates are others' business
my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
my @mates = map { Pgq::Client->new($nginx) } 1 .. 6;
my @sent  = ([ '"a"' ], [ "1\n2\n", @ndjson ], [ '"b"' ], [ qq("unwanted"\n), @ndjson ], [ '"c"' ], [ "3\n", @ndjson ]);
for my $i (0 .. $#mates) {
    my ($body, %headers) = @{ $sent[$i] };
    $mates[$i]->send($mates[$i]->request('POST', '/post', body => $body, headers => { 'Content-Type' => 'application/json', %headers }));
}
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
Pgq::Client->new($nginx)->get('/nowhere');
$lock->query('commit');
is(join(' ', map { $_->answer->{status} } @mates), '202 202 202 400 202 202', 'each request by itself');
is(join(' ', sort split / /, data()), '"a" "b" "c" 1 2 3', 'and all of it is there');

# ---- a client that leaves before it was sent
forget();
$lock->query('begin; lock table ngx_pgq.batch');
my $first = Pgq::Client->new($nginx);
$first->send($first->request('POST', '/post', body => '"first"', headers => { 'Content-Type' => 'application/json' }));
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
my @leavers = map { Pgq::Client->new($nginx) } 1 .. 3;
$_->send($_->request('POST', '/disk', body => "1\n2\n", headers => {@ndjson})) for @leavers;
Pgq::Client->new($nginx)->get('/nowhere');
$_->close for @leavers;
poll_until { $nginx->log_contains(qr/client .*closed/) } 5;
Pgq::Client->new($nginx)->get('/nowhere');
$lock->query('commit');
is($first->answer->{status}, 202, 'who stays is accepted');
is(data(), '"first"', 'who left before it was sent has sent nothing');

# ---- memory: a body on disk is not in memory while it waits
my @big = map { Pgq::Client->new($nginx) } 1 .. 8;
my $big = join '', map { '"' . 'z' x 998 . "\"\n" } 1 .. 1_000;
my ($worker) = $nginx->worker_pids;
sub resident { my ($kb) = Pgq::Host::slurp("/proc/$worker/smaps_rollup") =~ /^Anonymous:\s+(\d+)/m; return $kb }
$client->post('/disk', $big, @ndjson);
$lock->query('begin; lock table ngx_pgq.batch');
my $before = resident();
$_->send($_->request('POST', '/disk', body => $big, headers => {@ndjson})) for @big;
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
Pgq::Client->new($nginx)->get('/nowhere');
my $after = resident();
diag("eight requests of a megabyte, one of them sent: $before kB, then $after kB");
cmp_ok($after - $before, '<', 3_500, 'those that wait are on disk');
$lock->query('commit');
is((grep { $_->answer->{status} == 202 } @big), 8, 'and are accepted');
$nginx->stop;

# ---- unknown outcomes are sent again as they were
my $wire  = Pgq::Wire->new($pg)->start;
my $other = Pgq::Nginx->new(name => 'other', pg => $pg, conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=2')->start;
poll_until { $wire->clients == 2 } 10;
for my $place ([ in => 'enqueue_all', before => 'Bind' ], [ in => 'enqueue_all', after => 'Sync' ], [ in => 'enqueue_all', before => 'CommandComplete' ],
    [ in => 'enqueue_all', before => 'ReadyForQuery' ]) {
    forget();
    $wire->plan({ @$place, do => 'cut' });
    $answer = Pgq::Client->new($other)->post('/post', "1\n2\n3\n", @ndjson);
    is($answer->{status}, 202, "cut @$place[2, 3]: accepted");
    ok($wire->happened, 'although it was cut');
    is(data(), '1 2 3', 'and there once');
    $wire->plan;
}

# ---- by default
forget();
my $default = Pgq::Client->new($other);
is($default->post('/post', "1\n" x 1000, @ndjson)->{status}, 202, 'without pgq_lines 1,000 messages are accepted');
$answer = $default->post('/post', "1\n" x 1001, @ndjson);
is($answer->{status}, 413, '1,001 are refused');
is($answer->json->{code}, 'too_many_lines', 'for that reason');
is($pg->poll_query_until('select count(*) from posts', 1000), 1, 'and none of them is a post');

done_testing;
