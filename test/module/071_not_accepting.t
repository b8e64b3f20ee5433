# A database that takes no transactions, as one near wraparound, says 54000 to every message: that is 503 and no refusal.

use Pgq;

my $pg     = Pgq::Postgres->new->start;
my $nginx  = Pgq::Nginx->new(pg => $pg, pool => 'lanes=2', timeout => '2s')->start;
my $client = Pgq::Client->new($nginx);

$pg->safe_psql(q{
    create function not_now() returns trigger language plpgsql as $$
        begin raise exception 'database is not accepting commands' using errcode = '54000'; end $$;
    create trigger not_now before insert on ngx_pgq.queue for each row execute function not_now();
});
my @clients = map { Pgq::Client->new($nginx) } 1 .. 10;
$_->send($_->request('POST', '/post', body => '"not now"', headers => { 'Content-Type' => 'application/json' })) for @clients;
my %status;
$status{ $_->answer->{status} }++ for @clients;
# 504 is for what is on its way when its time is over
is(($status{503} // 0) + ($status{504} // 0), 10, 'messages are to be sent again, and none is refused') or diag(explain(\%status));

$pg->safe_psql('drop trigger not_now on ngx_pgq.queue');
is($client->post('/post', '"now"')->{status}, 202, 'when the database takes transactions, a message is accepted');
ok($pg->poll_query_until(q{select string_agg(distinct data::text, ' ') from posts}, '"now"'), 'and it is a post');

done_testing;
