# The outbox: a message that a transaction inserts into the queue by any statement becomes a post when the transaction
# commits, and never if it does not. idle_interval is 20 days, so the commit must wake the mover.

use Pgq;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.idle_interval = '20d'\nmax_prepared_transactions = 5\nngx_pgq.movers = 2\n")->start;

# Returns the posts since the last call, in the order of ids, when there are this many.
my $last = 0;

sub new_posts {
    my ($count) = @_;

    $pg->poll_query_until("select count(*) from posts where id > $last", $count, 10) if $count;
    my $posts = $pg->safe_psql("select coalesce(string_agg(data #>> '{}', ' ' order by id), '') from posts where id > $last");
    $last = $pg->safe_psql('select coalesce(max(id), 0) from posts');

    return $posts;
}

# Inserts a last message and checks that only the expected posts are before it.
sub posts_before_end {
    my ($expected, $name) = @_;

    $pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"end"')});
    is(new_posts(1 + (my @expected = split / /, $expected)), $expected eq '' ? 'end' : "$expected end", $name);
    is($pg->safe_psql('select count(*) from ngx_pgq.queue'), 0, "$name: the queue is empty");
}

# Runs SQL and checks that its messages become posts.
sub makes_posts {
    my ($name, $sql, $expected, %option) = @_;

    $pg->safe_psql($sql, %option);
    is(new_posts(scalar(my @expected = split / /, $expected)), $expected, "$name: its commit wakes a mover");
}

$pg->safe_psql(q{
    create role shop login;
    grant ngx_pgq_producer to shop;
    create table bill (number integer primary key, paid boolean);
    grant all on bill to shop;

    create function tell() returns trigger language plpgsql as $$
    begin
        insert into ngx_pgq.queue (data) values (to_json('bill-' || new.number));
        return new;
    end $$;
    create trigger tell after insert on bill for each row execute function tell();

    create function pay(number integer) returns void language plpgsql as $$
    begin
        insert into ngx_pgq.queue (data) values (to_json('before'::text));
        begin
            insert into ngx_pgq.queue (data) values (to_json('undone'::text));
            insert into bill values (number);
        exception when unique_violation then
            insert into ngx_pgq.queue (data) values (to_json('again'::text));
        end;
    end $$;
});
my @shop = (user => 'shop');

# ways to insert
makes_posts('INSERT', q{insert into ngx_pgq.queue (data) values ('"one"'), ('"two"')}, 'one two', @shop);
makes_posts('INSERT of many rows', q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 500) n},
    join(' ', 1 .. 500), @shop);
makes_posts('a transaction block', q{begin; insert into bill values (1); insert into ngx_pgq.queue (data) values ('"paid"'); commit},
    'bill-1 paid', @shop);
makes_posts('a trigger', 'insert into bill select generate_series(2, 4)', 'bill-2 bill-3 bill-4', @shop);
makes_posts('a function with an exception block', 'select pay(1)', 'before again', @shop);
makes_posts('a function with an exception block that catches nothing', 'select pay(5)', 'before undone bill-5', @shop);
makes_posts('COPY', qq{copy ngx_pgq.queue (data) from stdin;\n"copied"\n"too"\n\\.\n}, 'copied too', @shop);
makes_posts('COPY into one slot', qq{copy ngx_pgq.queue_2 (data, slot) from stdin;\n"slot"\t2\n\\.\nselect ngx_pgq.slot()}, 'slot');
makes_posts('a DO block that commits several times',
    q{do $$ begin for n in 1..3 loop insert into ngx_pgq.queue (data) values (to_json(n)); commit; end loop; end $$}, '1 2 3', @shop);
makes_posts('an INSERT and enqueue() in one transaction', q{
    begin; insert into ngx_pgq.queue (data) values ('"first"');
    select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"second"']); commit}, 'first second');
is($pg->safe_psql(q{
    with sent as (insert into ngx_pgq.queue (message_id, data)
        values ('00000000-0000-0000-0000-00000000000a', '{"a" : 1e400}') returning message_id) select count(*) from sent}), 1,
    'an INSERT may set message_id');
new_posts(1);
is($pg->safe_psql(q{select data from posts where message_id = '00000000-0000-0000-0000-00000000000a'}), '{"a" : 1e400}',
    'a post has the message_id and the bytes of the INSERT');

# an open transaction
my $session = $pg->session(@shop);
$session->query(q{begin; insert into ngx_pgq.queue (data) values ('"early"')});
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"late"')});
is(new_posts(1), 'late', 'a later message is posted while an earlier transaction is open');
$session->query('commit');
is(new_posts(1), 'early', 'the earlier message is posted when its transaction commits');

# rolled back
$session->query(q{begin; insert into ngx_pgq.queue (data) values ('"no"'); insert into bill values (6); rollback});
$session->query(q{begin; insert into ngx_pgq.queue (data) values ('"no"'); select 1 / 0; commit});
$session->query(q{insert into ngx_pgq.queue (data) values ('"no"'), ('no JSON')});
$session->query(q{begin; insert into ngx_pgq.queue (data) values ('"no"')});
$session->quit;
posts_before_end('', 'a transaction that is rolled back, has an error or loses its session makes no post');

# savepoints
makes_posts('savepoints', q{
    begin;
    insert into ngx_pgq.queue (data) values ('"outer"');
    savepoint a;
    insert into ngx_pgq.queue (data) values ('"released"');
    savepoint b;
    insert into ngx_pgq.queue (data) values ('"rolled back"');
    savepoint c;
    insert into ngx_pgq.queue (data) values ('"rolled back with it"');
    release c;
    rollback to b;
    insert into ngx_pgq.queue (data) values ('"instead"');
    release a;
    commit}, 'outer released instead', @shop);
makes_posts('an INSERT in a savepoint', q{begin; savepoint a; insert into ngx_pgq.queue (data) values ('"inner"'); release a; commit},
    'inner', @shop);
$pg->safe_psql(q{begin; savepoint a; insert into ngx_pgq.queue (data) values ('"no"'); rollback to a; commit}, @shop);
posts_before_end('', 'ROLLBACK TO SAVEPOINT makes no post');

# prepared transactions
sub prepare {
    my ($name) = @_;

    $pg->safe_psql(qq{begin; insert into ngx_pgq.queue (data) values ('"$name"'); prepare transaction '$name'}, @shop);
}

prepare('prepared');
prepare('never');
posts_before_end('', 'PREPARE TRANSACTION makes no post');
makes_posts('COMMIT PREPARED in another session', q{commit prepared 'prepared'}, 'prepared');
$pg->safe_psql(q{rollback prepared 'never'});
posts_before_end('', 'ROLLBACK PREPARED makes no post');

prepare('survivor');
prepare('crashed');
$pg->restart;
makes_posts('COMMIT PREPARED after a restart', q{commit prepared 'survivor'}, 'survivor');
$pg->restart('immediate');
makes_posts('COMMIT PREPARED after a crash', q{commit prepared 'crashed'}, 'crashed');

# an INSERT while a transaction is prepared
prepare('open');
makes_posts('an INSERT while a transaction is prepared', q{insert into ngx_pgq.queue (data) values ('"single"')}, 'single');
makes_posts('COMMIT PREPARED after a later INSERT', q{commit prepared 'open'}, 'open');

is($pg->safe_psql('select count(*) - count(distinct message_id) from posts'), 0, 'no message is posted twice');

done_testing;
