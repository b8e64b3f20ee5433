# A ticket outlives its client: a message that was sent is kept, one that was not sent is dropped, other clients are answered.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1')->start;

sub waiting {
    my ($message) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', '/post', body => "\"$message\"", headers => { 'Content-Type' => 'application/json' }));
    return $client;
}

# Waits until nginx has noticed that so many clients have closed their connections.
sub gone {
    my ($count) = @_;
    return poll_until { $count == (() = $nginx->log_since(0) =~ /client prematurely closed connection/g) };
}

my $lock = $pg->session;
$lock->query('begin; lock table ngx_pgq.batch');
my $sent = waiting('sent');
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);

my @waiting = map { waiting("waiting $_") } 1 .. 20;
Pgq::Client->new($nginx)->get('/nowhere');

$sent->close;
$waiting[$_]->close for grep { $_ % 2 } 0 .. 19;
gone(11);
$lock->query('commit');
$lock->quit;

is((grep { $_->answer->{status} == 202 } @waiting[ grep { $_ % 2 == 0 } 0 .. 19 ]), 10, 'clients that stay are answered');
$pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
is($pg->safe_psql(q{select count(*) from posts where data::text like '"waiting%'}), 10, 'messages of clients that left before they were sent are not queued');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"sent"'}), 1, 'a message whose client left after it was sent is a post');

# clients of GETs, waiting or in flight
$lock = $pg->session;
$lock->query('begin; lock table posts');
my @readers = map { my $client = Pgq::Client->new($nginx); $client->send($client->request('GET', '/get')); $client } 1 .. 10;
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
$readers[$_]->close for 0 .. 4;
gone(16);
$lock->query('commit');
$lock->quit;
is((grep { $_->answer->{status} == 200 } @readers[ 5 .. 9 ]), 5, 'readers that stay are answered');

done_testing;
