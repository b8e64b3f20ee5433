# When a client closes its connection, its message is queued if it was sent to the database, and dropped otherwise. Other
# clients are answered.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1')->start;

# Waits until nginx has logged that this many clients have closed their connections.
sub gone {
    my ($count) = @_;
    return poll_until { $count == (() = $nginx->log_since(0) =~ /client prematurely closed connection/g) };
}

my $lock = $pg->lock_table;
my $sent = Pgq::Client->new($nginx)->send_post('/post', '"sent"');
$pg->wait_for_lock;

my @waiting = map { Pgq::Client->new($nginx)->send_post('/post', "\"waiting $_\"") } 1 .. 20;
$nginx->wait_until_received;

$sent->close;
$waiting[$_]->close for grep { $_ % 2 } 0 .. 19;
gone(11);
$lock->release;

is((grep { $_->answer->{status} == 202 } @waiting[ grep { $_ % 2 == 0 } 0 .. 19 ]), 10, 'clients that stay are answered');
is($pg->count_posts('"waiting%'), 10, 'messages of clients that left before they were sent are not queued');
is($pg->count_posts('"sent"'), 1, 'a message whose client left after it was sent is a post');

# Clients close their connections while their GETs wait or are in flight.
$lock = $pg->lock_table('posts');
my @readers = map { Pgq::Client->new($nginx)->send_get('/get') } 1 .. 10;
$pg->wait_for_lock;
$readers[$_]->close for 0 .. 4;
gone(16);
$lock->release;
is((grep { $_->answer->{status} == 200 } @readers[ 5 .. 9 ]), 5, 'readers that stay are answered');

done_testing;
