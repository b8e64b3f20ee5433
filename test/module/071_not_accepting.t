# While a database accepts no transactions, as near wraparound, each message fails with 54000: it is answered with 503.

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
# a message whose outcome is unknown at its timeout is answered with 504
is(($status{503} // 0) + ($status{504} // 0), 10, 'no message is refused with 400 while the database accepts no transactions') or diag(explain(\%status));

$pg->safe_psql('drop trigger not_now on ngx_pgq.queue');
is($client->post('/post', '"now"')->{status}, 202, 'a message is accepted when the database accepts transactions again');
ok($pg->poll_query_until(q{select string_agg(distinct data::text, ' ') from posts}, '"now"'), 'a message that is accepted after the recovery is a post');

done_testing;
