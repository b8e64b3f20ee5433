# P1 and P2 at the commit: a message is answered with 202 only when the synchronous standby has it, even if the wait for the
# standby is interrupted; a batch of unknown outcome is sent again under its own id until the outcome is known.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', timeout => '30s')->start;
my $waits = "select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'SyncRep'";

sub waiting {
    my ($message) = @_;
    my $client = Pgq::Client->new($nginx)->send_post('/post', "\"$message\"");
    $pg->poll_query_until($waits, 1);
    return $client;
}

$pg->commits_wait_for('missing');

for my $case (
    [ 'a cancelled wait for the standby', 'select pg_cancel_backend(pid)' ],
    [ 'a terminated connection',      'select pg_terminate_backend(pid)' ],
) {
    my ($name, $action) = @$case;
    my $client   = waiting($name);
    my $position = $nginx->log_position;

    $pg->safe_psql("$action from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'SyncRep'");
    $nginx->wait_for_log(qr/pgq lane: (?:.* warns|lost)/, $position);
    $pg->poll_query_until($waits, 1);
    ok(!$client->answer(timeout => 0.3), "$name: the message is not acknowledged before it is replicated");

    $pg->commits_wait_for('');
    is($client->answer->{status}, 202, "$name: the message is acknowledged when it is replicated");
    is($pg->count_posts("\"$name\""), 1, "$name: the message is a post once");
    $pg->commits_wait_for('missing');
}

# The server crashes while a commit waits for the standby, and is started again.
my $client = waiting('a crash');
$pg->stop('immediate');
$pg->start;
$pg->poll_query_until($waits, 1);
ok(!$client->answer(timeout => 0.3), 'a crash: a message that was recovered is not acknowledged before it is replicated');
$pg->commits_wait_for('');
is($client->answer->{status}, 202, 'a crash: the message is acknowledged when it is replicated');
is($pg->count_posts('"a crash"'), 1, 'a crash: the message is a post once');

done_testing;
