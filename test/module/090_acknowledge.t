# P1 and P2 at the edge of a commit: 202 only when the synchronous standby has it, whatever happens while the
# database waits for that; and a batch whose outcome is unknown is sent again under its own id until it is known.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', timeout => '30s')->start;
my $waits = "select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'SyncRep'";
my $posted = sub { $pg->safe_psql("select count(*) from posts where data::text = '\"$_[0]\"'") };

sub replica { return $pg->commits_wait_for($_[0]) }

sub waiting {
    my ($message) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', '/post', body => "\"$message\"", headers => { 'Content-Type' => 'application/json' }));
    $pg->poll_query_until($waits, 1);
    return $client;
}

replica('nobody');

for my $case (
    [ 'a wait that is cancelled',     'select pg_cancel_backend(pid)' ],
    [ 'a connection that is ended',   'select pg_terminate_backend(pid)' ],
) {
    my ($name, $action) = @$case;
    my $client   = waiting($name);
    my $position = $nginx->log_position;

    $pg->safe_psql("$action from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'SyncRep'");
    $nginx->wait_for_log(qr/pgq lane: (?:.* warns|lost)/, $position);
    $pg->poll_query_until($waits, 1);
    ok(!$client->answer(timeout => 0.3), "$name is not acknowledged, and asked for again");

    replica('');
    is($client->answer->{status}, 202, "$name: acknowledged when it is known");
    $pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
    is($posted->($name), 1, "$name: once");
    replica('nobody');
}

# a server that dies while it waits, and comes back
my $client = waiting('a crash');
$pg->stop('immediate');
$pg->start;
$pg->poll_query_until($waits, 1);
ok(!$client->answer(timeout => 0.3), 'a crash: what came back from it is not acknowledged before it is replicated');
replica('');
is($client->answer->{status}, 202, 'a crash: acknowledged when it is known');
$pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
is($posted->('a crash'), 1, 'a crash: once');

done_testing;
