# Prefer: wait on POST (read your writes): 201 with the number of the post as soon as this host shows it.

use Pgq;
use Pgq::Host qw(slurp);

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    conninfo  => $pg->conninfo(user => 'ngx_pgq_web'),
    ring      => 'posts=200 size=1m poll=200ms',
    workers   => 2,
    locations => 'location ^~ /post/ { pgq_post main; }',
    http      => 'log_format w "$status $pgq_outcome"; access_log %%PREFIX%%/wait.log w;',
)->start;

sub client { return Pgq::Client->new($nginx) }

# Sends a message without waiting for the answer. Returns the client.
sub start {
    my ($body, %headers) = @_;
    my $client = client();
    $client->send_post('/post', $body, 'Content-Type' => 'application/json', Prefer => 'wait=10', %headers);
    return $client;
}

sub post_of { return $pg->safe_psql("select id from posts where message_id = '$_[0]'") }

# Whether the answer says in which post the message is, and GET at the same host has it.
sub is_posted {
    my ($answer, $name, $from) = @_;
    my $json = $answer->json;
    is($answer->status, 201, $name);
    is($json->{status}, 'posted', '... with the status');
    is($json->{post}, post_of($json->{id}), '... and the id of the post');
    my $shown = client()->get('/get');
    is($shown->header('Cache-Status'), 'pgq; ' . ($from // 'hit'), '... which GET has at once');
    ok((grep { $_->{id} == $json->{post} } @{ $shown->json->{msg} }), '... which is among the newest posts');
    return $json;
}

sub is_queued {
    my ($answer, $name) = @_;
    is($answer->status, 202, $name);
    is($answer->header('Preference-Applied'), undef, '... without Preference-Applied');
    is($answer->json->{status}, 'queued', '... as if it had not asked');
    return $answer->json->{id};
}


# ---- posted

ok(poll_until { (client()->get('/get')->header('Cache-Status') // '') eq 'pgq; hit' }, 'the ring is in use');
my $answer = client()->post('/post', '{"price": 2.50}', 'Content-Type' => 'application/json', Prefer => 'wait=10');
my $json   = is_posted($answer, 'a client that waits gets 201');
is($answer->header('Preference-Applied'), 'wait=10', '... and Preference-Applied');
like($answer->body, qr/^\{"status":"posted","id":"[0-9a-f-]{36}","msg":\{"price": 2\.50\},"post":\d+\}$/, '... with its message, byte for byte');

$answer = client()->post('/post', '2', Prefer => 'return=minimal, wait=120');
is_posted($answer, 'a longer time than a minute');
is($answer->header('Preference-Applied'), 'return=minimal, wait=60', '... is a minute; another preference counts, too');
like($answer->body, qr/^\{"status":"posted","id":"[0-9a-f-]{36}","post":\d+\}$/, '... and leaves the message out');

$answer = client()->post('/post/a/b', '3', Prefer => 'wait=10');
is($pg->safe_psql("select topic from posts where id = " . $answer->json->{post}), 'a/b', 'a message with a topic');

is_posted(client()->post('/post', '"' . 'x' x 300_000 . '"', 'Content-Type' => 'application/json', Prefer => 'wait=10'), 'a message that is too large for the ring', 'fwd=miss');
$pg->safe_psql('delete from posts where octet_length(data::text) > 300000');
$pg->safe_psql('select ngx_pgq.refresh()');
ok(poll_until { (client()->get('/get')->header('Cache-Status') // '') eq 'pgq; hit' }, 'without this post the ring answers again');

my @clients = map { start($_) } 1 .. 300;
my @answers = map { $_->answer } @clients;
is(scalar(grep { $_->status == 201 } @answers), 300, '300 clients that wait at once get 201');
my %number = map { $_->json->{id} => $_->json->{post} } @answers;
is(scalar(grep { ($number{$_} // '') eq '' || post_of($_) ne $number{$_} } (sort keys %number)[0 .. 30]), 0, '... each with its own post');


# ---- keys

my %key = ('Idempotency-Key' => '"k1"', Prefer => 'wait=10');
my $first = client()->post('/post', '"keyed"', %key);
is_posted($first, 'a message with a key');
my $again = client()->post('/post', '"keyed"', %key);
is_posted($again, 'the same message again finds its post');
is($again->json->{post}, $first->json->{post}, '... the same one');
is($again->header('Idempotency-Replayed'), 'true', '... as a replay');


# ---- not posted

$pg->safe_psql('select ngx_pgq.pause()');
my $begun = Time::HiRes::time();
my $id    = is_queued(client()->post('/post', '"paused"', Prefer => 'wait=1'), 'while no mover works, the client gets 202 after its time');
cmp_ok(Time::HiRes::time() - $begun, '>=', 0.9, '... and not before');
is_queued(client()->post('/post', '1', Prefer => $_), "a preference that is ignored: $_") for 'wait', 'wait=abc', 'wait=-1', 'wait=0', 'wait=99999999999999999999', 'wait="', 'wait=1;x=1, wait=5';

my @twice = start('"twice"', 'Idempotency-Key' => '"k2"');
ok($pg->poll_query_until(q{select count(*) from ngx_pgq.queue where data::text = '"twice"'}, 1), 'a message with a key is queued');
push @twice, start('"twice"', 'Idempotency-Key' => '"k2"');
my $later = start('"later"');
my $gone  = start('"gone"');
ok($pg->poll_query_until(q{select count(*) from ngx_pgq.queue where data::text in ('"later"', '"gone"', '"twice"')}, 3), 'messages of clients that wait are queued');
$gone->close;
my $head = client();
$head->send_post('/post', '"pipelined"', Prefer => 'wait=10');
$head->send_get('/get');

$pg->safe_psql('select ngx_pgq.resume()');
is_posted($later->answer, 'when the movers work again, a client that waits gets 201');
my @same = map { $_->answer } @twice;
is(join(' ', map { $_->status } @same), '201 201', 'clients with the same key wait for the same post');
is(scalar(keys %{ { map { $_->json->{post} => 1 } @same } }), 1, '... and get its id');
is($head->answer->status, 201, 'a request that waits holds up the next one of its connection');
is($head->answer->status, 200, '... which is answered then');
ok($pg->poll_query_until(q{select count(*) from posts where data::text in ('"gone"', '"paused"')}, 2), 'messages of clients that have left, or got 202, become posts');
ok(post_of($id), '... under the id that the client has');

$pg->safe_psql(q{create function refuse() returns trigger language plpgsql as $$ begin if new.data::text = '"bad"' then raise 'bad'; end if; return new; end $$});
$pg->safe_psql('create trigger refuse before insert on posts for each row execute function refuse()');
$id = is_queued(client()->post('/post', '"bad"', Prefer => 'wait=2'), 'a message that becomes a dead letter');
is($pg->safe_psql("select count(*) from ngx_pgq.dead_letter where message_id = '$id'"), 1, '... is one');

$answer = client()->post('/post', "1\n2", 'Content-Type' => 'application/x-ndjson', Prefer => 'wait=5');
is($answer->status, 202, 'many messages in one request are not waited for');


# ---- restarts

$pg->safe_psql('select ngx_pgq.pause()');
my @waiting = map { start(qq("reload $_")) } 1 .. 10;
ok($pg->poll_query_until(q{select count(*) from ngx_pgq.queue where data::text like '"reload%'}, 10), 'messages are queued');
$begun = Time::HiRes::time();
$nginx->reload;
is(scalar(grep { $_->answer->status == 202 } @waiting), 10, 'a reload answers the clients that wait');
cmp_ok(Time::HiRes::time() - $begun, '<', 8, '... at once');

$later = start('"restart"');
ok($pg->poll_query_until(q{select count(*) from ngx_pgq.queue where data::text = '"restart"'}, 1), 'a message is queued');
$pg->safe_psql('select ngx_pgq.resume()');
$pg->restart;
is_posted($later->answer, 'a client waits over a restart of the database');


# ---- without a ring, and resources

my $plain = Pgq::Nginx->new(name => 'plain', conninfo => $pg->conninfo(user => 'ngx_pgq_web'))->start;
is_queued(Pgq::Client->new($plain)->post('/post', '1', Prefer => 'wait=5'), 'a pool without a ring does not wait');

# A client that waits counts as an answer that is not read, with its message and 4 kB.
my $small = Pgq::Nginx->new(name => 'small', conninfo => $pg->conninfo(user => 'ngx_pgq_web'), ring => 'poll=200ms', pool => 'unread_size=18k')->start;
my $text  = '"' . 'y' x 4000 . '"';
ok(poll_until { (Pgq::Client->new($small)->get('/get?limit=1')->header('Cache-Status') // '') eq 'pgq; hit' }, 'a host with a small limit is ready');
for (1 .. 2) {
    $pg->safe_psql('select ngx_pgq.pause()');
    my @held = map { my $c = Pgq::Client->new($small); $c->send_post('/post', $text, Prefer => 'wait=20'); $c } 1 .. 2;
    ok($pg->poll_query_until(q{select count(*) from ngx_pgq.queue where octet_length(data::text) = 4002}, 2), 'two messages within the limit are queued');
    $begun = Time::HiRes::time();
    is_queued(Pgq::Client->new($small)->post('/post', $text, Prefer => 'wait=20'), 'one more is not waited for');
    cmp_ok(Time::HiRes::time() - $begun, '<', 10, '... at all');
    $pg->safe_psql('select ngx_pgq.resume()');
    is(join(' ', map { $_->answer->status } @held), '201 201', 'the others are answered when they are posts');
    $pg->wait_until_moved;
}

my $log = slurp($nginx->dir . '/wait.log');
like($log, qr/^201 queued$/m, '$pgq_outcome of 201 is queued');
like($log, qr/^201 replayed$/m, '... or replayed');

done_testing;
