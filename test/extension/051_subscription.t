# The outbox of a subscription: rows that logical replication applies to the queue, or to a table whose trigger inserts
# into the queue, become posts. Only the commit of the apply worker can wake the mover.

use Pgq;

my $there = Pgq::Postgres->new(name => 'publisher', bare => 1, preload => '', database => 'postgres',
    conf => "wal_level = logical\nmax_prepared_transactions = 5\nlogical_decoding_work_mem = 64kB\n")->start;
my $here  = Pgq::Postgres->new(conf => "ngx_pgq.idle_interval = '20d'\nmax_prepared_transactions = 5\nwal_retrieve_retry_interval = 100\n")->start;

my $last = 0;

sub arrives {
    my ($name, $expected) = @_;
    my $count = my @expected = split / /, $expected;

    $here->poll_query_until("select count(*) from posts where id > $last", $count, 10);
    is($here->safe_psql("select string_agg(data #>> '{}', ' ' order by id) from posts where id > $last"), $expected, "$name becomes posts");
    is($here->safe_psql('select count(*) from ngx_pgq.queue'), 0, "$name leaves the queue empty");
    $last = $here->safe_psql('select max(id) from posts');
}

$there->safe_psql(q{
    create schema ngx_pgq;
    create table ngx_pgq.queue (at timestamptz, message_id uuid, data json);
    create table sale (number integer primary key);
    create publication all_of_it for table ngx_pgq.queue, sale;
    create function put(variadic data text[]) returns void language sql as $$
        insert into ngx_pgq.queue select clock_timestamp(), gen_random_uuid(), to_json(d) from unnest(data) d $$;
    select put('there', 'before');
});
$here->safe_psql(q{
    create table sale (number integer primary key);
    create function tell() returns trigger language plpgsql as $$
    begin
        insert into ngx_pgq.queue (data) values (to_json('sale-' || new.number));
        return null;
    end $$;
    create trigger tell after insert on sale for each row execute function tell();
    alter table sale enable replica trigger tell;
});
$here->safe_psql("create subscription it connection '" . $there->conninfo . "' publication all_of_it
    with (streaming = on, two_phase = on)");

arrives('the initial copy' => 'there before');

$there->safe_psql(q{select put('one')});
arrives('an INSERT' => 'one');
$there->safe_psql(q{begin; select put('two'); savepoint a; select put('undone'); rollback to a; select put('three', 'four'); commit});
arrives('a transaction with a savepoint' => 'two three four');
$there->safe_psql(q{begin; select put('no'); rollback});
$there->safe_psql('insert into sale values (1), (2)');
arrives('an INSERT into another table, without a transaction that was rolled back,' => 'sale-1 sale-2');
$there->safe_psql(q{select put(variadic array_agg(n::text)) from generate_series(1, 3000) n});
arrives('a transaction that is streamed' => join ' ', 1 .. 3000);

# a transaction that is prepared on the publisher
my $prepared = 'select count(*) from pg_prepared_xacts';

$there->safe_psql(q{begin; select put('prepared'); insert into sale values (3); prepare transaction 'p'});
$there->safe_psql(q{begin; select put('never'); prepare transaction 'q'});
ok($here->poll_query_until($prepared, 2), 'two transactions are prepared on the subscriber');
$there->safe_psql(q{select put('meanwhile')});
arrives('an INSERT while transactions are prepared' => 'meanwhile');
$there->safe_psql(q{commit prepared 'p'});
arrives('COMMIT PREPARED' => 'prepared sale-3');

# the subscriber is restarted between PREPARE and COMMIT PREPARED
$there->safe_psql(q{begin; select put('later'); prepare transaction 'r'});
ok($here->poll_query_until($prepared, 2), 'another transaction is prepared on the subscriber');
$here->restart;
$there->safe_psql(q{commit prepared 'r'; rollback prepared 'q'});
arrives('COMMIT PREPARED after a restart' => 'later');
ok($here->poll_query_until($prepared, 0), 'ROLLBACK PREPARED is applied');
$there->safe_psql(q{select put('last')});
arrives('an INSERT after ROLLBACK PREPARED' => 'last');

is($here->safe_psql('select count(*), count(distinct message_id) from posts'), join('|', (3000 + 13) x 2), 'each message is posted once');
is($here->safe_psql('select count(*) from posts join ngx_pgq.dead_letter using (message_id)'), 0, 'no message is a dead letter');
$here->safe_psql('drop subscription it');

done_testing;
