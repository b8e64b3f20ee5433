# A refusal is of what was sent: a message is not refused for another one of its batch whose client has left meanwhile.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1')->start;

sub post_later {
    my ($message) = @_;
    my $client = Pgq::Client->new($nginx);
    $client->send($client->request('POST', '/post', body => $message, headers => { 'Content-Type' => 'application/json' }));
    return $client;
}

$pg->safe_psql(q{
    create function picky() returns trigger language plpgsql as $$
        begin if new.data::text = '"bad"' then perform pg_advisory_xact_lock(7); raise check_violation; end if; return new; end $$;
    create trigger picky before insert on ngx_pgq.queue for each row execute function picky();
});

# the only lane is held up until two messages wait
my $lock = $pg->session;
my $gate = $pg->session;
$gate->query('select pg_advisory_lock(7)');
$lock->query('begin; lock table ngx_pgq.batch');
my $first = post_later('"first"');
$pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
my ($bad, $good) = map { post_later($_) } '"bad"', '"good"';
Pgq::Client->new($nginx)->get('/nowhere');
$lock->query('commit');
is($first->answer->{status}, 202, 'a first message is accepted');

ok($pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'advisory'", 1), 'a batch of two is under way');
my $position = $nginx->log_position;
$bad->close;
$nginx->wait_for_log(qr/client prematurely closed connection/, $position);
$gate->query('select pg_advisory_unlock(7)');
is($good->answer->{status}, 202, 'the client of the bad message has left, and the other message is accepted');
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"good"'}, 1), 'and it is a post, once');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"bad"'}), 0, 'the bad one is none');

done_testing;
