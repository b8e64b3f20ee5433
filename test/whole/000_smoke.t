# One message on its whole path: POST, queue, mover, posts, GET.

use Pgq;

my $pg     = Pgq::Postgres->new->start;
my $nginx  = Pgq::Nginx->new(pg => $pg)->start;
my $client = Pgq::Client->new($nginx);

my $message = '{"city": "Łódź", "price": 2.50, "lines": [1, null, "two"]}';
my $answer  = $client->post('/post', $message);

is($answer->status, 202, 'a POST is accepted');
is($answer->header('Content-Type'), 'application/json', 'the answer to a POST is JSON');

my $queued = $answer->json;

is($queued->{status}, 'queued', 'the answer says that the message is queued');
like($queued->{id}, qr/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'the answer has the id of the message');
is_deeply($queued->{msg}{lines}, [1, undef, 'two'], 'the answer has the message');

ok($pg->poll_query_until("select count(*) from posts where message_id = '$queued->{id}'", 1), 'the mover makes it a post');
is($pg->safe_psql('select data from posts'), $message, 'the post has the bytes of the message');
is($pg->safe_psql('select count(*) from ngx_pgq.queue'), 0, 'the queue is empty');

$answer = $client->get('/get');

is($answer->status, 200, 'GET on the same connection succeeds');
is($answer->json->{msg}[0]{id}, $pg->safe_psql('select id from posts'), 'GET returns the id of the post');
like($answer->body, qr/"data":\Q$message\E/, 'GET returns the bytes of the message');

is(Pgq::Client->new($nginx)->post('/post', '{"city": ')->status, 400, 'invalid JSON is refused with 400');
is($pg->safe_psql('select count(*) from posts'), 1, 'a message that is refused does not become a post');

done_testing;
