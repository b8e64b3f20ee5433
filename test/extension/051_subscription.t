# Rows that a subscription applies to the queue, or to a table whose trigger inserts into the queue, become posts.
# idle_interval is 20 days, so the commit of the apply worker must wake the mover.

use Pgq;

my $publisher  = Pgq::Postgres->new(name => 'publisher', bare => 1, preload => '', database => 'postgres',
    conf => "wal_level = logical\nmax_prepared_transactions = 5\nlogical_decoding_work_mem = 64kB\n")->start;
my $subscriber = Pgq::Postgres->new(conf => "ngx_pgq.idle_interval = '20d'\nmax_prepared_transactions = 5\nwal_retrieve_retry_interval = 100\n")->start;

my $last = 0;

sub become_posts {
    my ($name, $expected) = @_;
    my $count = my @expected = split / /, $expected;

    $subscriber->poll_query_until("select count(*) from posts where id > $last", $count, 10);
    is($subscriber->safe_psql("select string_agg(data #>> '{}', ' ' order by id) from posts where id > $last"), $expected, "the messages of $name become posts");
    is($subscriber->safe_psql('select count(*) from ngx_pgq.queue'), 0, "the queue is empty after $name");
    $last = $subscriber->safe_psql('select max(id) from posts');
}

$publisher->safe_psql(q{
    create schema ngx_pgq;
    create table ngx_pgq.queue (at timestamptz, message_id uuid, data json);
    create table sale (number integer primary key);
    create publication all_tables for table ngx_pgq.queue, sale;
    create function put(variadic data text[]) returns void language sql as $$
        insert into ngx_pgq.queue select clock_timestamp(), gen_random_uuid(), to_json(d) from unnest(data) d $$;
    select put('there', 'before');
});
$subscriber->safe_psql(q{
    create table sale (number integer primary key);
    create function tell() returns trigger language plpgsql as $$
    begin
        insert into ngx_pgq.queue (data) values (to_json('sale-' || new.number));
        return null;
    end $$;
    create trigger tell after insert on sale for each row execute function tell();
    alter table sale enable replica trigger tell;
});
$subscriber->safe_psql("create subscription from_publisher connection '" . $publisher->conninfo . "' publication all_tables
    with (streaming = on, two_phase = on)");

become_posts('the initial copy' => 'there before');

$publisher->safe_psql(q{select put('one')});
become_posts('an INSERT' => 'one');
$publisher->safe_psql(q{begin; select put('two'); savepoint a; select put('undone'); rollback to a; select put('three', 'four'); commit});
become_posts('a transaction with a savepoint' => 'two three four');
$publisher->safe_psql(q{begin; select put('no'); rollback});
$publisher->safe_psql('insert into sale values (1), (2)');
become_posts('an INSERT into another table after a ROLLBACK' => 'sale-1 sale-2');
$publisher->safe_psql(q{select put(variadic array_agg(n::text)) from generate_series(1, 3000) n});
become_posts('a transaction that is streamed' => join ' ', 1 .. 3000);

# a transaction that is prepared on the publisher
my $prepared = 'select count(*) from pg_prepared_xacts';

$publisher->safe_psql(q{begin; select put('prepared'); insert into sale values (3); prepare transaction 'p'});
$publisher->safe_psql(q{begin; select put('never'); prepare transaction 'q'});
ok($subscriber->poll_query_until($prepared, 2), 'two transactions are prepared on the subscriber');
$publisher->safe_psql(q{select put('meanwhile')});
become_posts('an INSERT while transactions are prepared' => 'meanwhile');
$publisher->safe_psql(q{commit prepared 'p'});
become_posts('COMMIT PREPARED' => 'prepared sale-3');

# the subscriber is restarted between PREPARE and COMMIT PREPARED
$publisher->safe_psql(q{begin; select put('later'); prepare transaction 'r'});
ok($subscriber->poll_query_until($prepared, 2), 'another transaction is prepared on the subscriber');
$subscriber->restart;
$publisher->safe_psql(q{commit prepared 'r'; rollback prepared 'q'});
become_posts('COMMIT PREPARED after a restart' => 'later');
ok($subscriber->poll_query_until($prepared, 0), 'ROLLBACK PREPARED is applied');
$publisher->safe_psql(q{select put('last')});
become_posts('an INSERT after ROLLBACK PREPARED' => 'last');

is($subscriber->safe_psql('select count(*), count(distinct message_id) from posts'), join('|', (3000 + 13) x 2), 'each message is posted once');
is($subscriber->safe_psql('select count(*) from posts join ngx_pgq.dead_letter using (message_id)'), 0, 'no message is a dead letter');
$subscriber->safe_psql('drop subscription from_publisher');

done_testing;
