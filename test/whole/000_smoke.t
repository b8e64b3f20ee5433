# A message's whole way: POST, queue, mover, posts, GET. It shows as well that the harness works.

use Pgq;

my $pg     = Pgq::Postgres->new->start;
my $nginx  = Pgq::Nginx->new(pg => $pg)->start;
my $client = Pgq::Client->new($nginx);

my $message = '{"city": "Łódź", "price": 2.50, "lines": [1, null, "two"]}';
my $answer  = $client->post('/post', $message);

is($answer->status, 202, 'POST is accepted');
is($answer->header('Content-Type'), 'application/json', 'with JSON');

my $said = $answer->json;

is($said->{status}, 'queued', 'which says that it is queued');
like($said->{id}, qr/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'and its id');
is_deeply($said->{msg}{lines}, [1, undef, 'two'], 'and the message');

ok($pg->poll_query_until("select count(*) from posts where message_id = '$said->{id}'", 1), 'the mover makes it a post');
is($pg->safe_psql('select data from posts'), $message, 'to the byte');
is($pg->safe_psql('select count(*) from ngx_pgq.queue'), 0, 'the queue is empty');

$answer = $client->get('/get');

is($answer->status, 200, 'GET on the same connection is answered');
is($answer->json->{msg}[0]{id}, $pg->safe_psql('select id from posts'), 'with the post');
like($answer->body, qr/"data":\Q$message\E/, 'to the byte');

is(Pgq::Client->new($nginx)->post('/post', '{"city": ')->status, 400, 'what is not JSON is refused');
is($pg->safe_psql('select count(*) from posts'), 1, 'and appears nowhere');

done_testing;
