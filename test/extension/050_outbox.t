# The outbox: what a transaction inserts into the queue becomes a post when it commits, however it came there, and
# never if it does not. Nobody looks around here, so it is the commit that wakes the mover.

use Pgq;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.idle_interval = '20d'\nmax_prepared_transactions = 5\nngx_pgq.movers = 2\n")->start;

# What has become posts since this was asked last, in the order of ids, when there is nothing left in the queue.
my $last = 0;

sub posts {
    my ($count) = @_;

    $pg->poll_query_until("select count(*) from posts where id > $last", $count, 10) if $count;
    my $posts = $pg->safe_psql("select coalesce(string_agg(data #>> '{}', ' ' order by id), '') from posts where id > $last");
    $last = $pg->safe_psql('select coalesce(max(id), 0) from posts');

    return $posts;
}

# A message after which nothing that was to be moved is still on its way.
sub afterwards {
    my ($expected, $name) = @_;

    $pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"end"')});
    is(posts(1 + (my @expected = split / /, $expected)), $expected eq '' ? 'end' : "$expected end", $name);
    is($pg->safe_psql('select count(*) from ngx_pgq.queue'), 0, '… and nothing is left behind');
}

sub commits {
    my ($name, $sql, $expected, %option) = @_;

    $pg->safe_psql($sql, %option);
    is(posts(scalar(my @expected = split / /, $expected)), $expected, "$name: its commit wakes a mover");
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

# ways in
commits('INSERT', q{insert into ngx_pgq.queue (data) values ('"one"'), ('"two"')}, 'one two', @shop);
commits('INSERT of many rows', q{insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 500) n},
    join(' ', 1 .. 500), @shop);
commits('a transaction block', q{begin; insert into bill values (1); insert into ngx_pgq.queue (data) values ('"paid"'); commit},
    'bill-1 paid', @shop);
commits('a trigger', 'insert into bill select generate_series(2, 4)', 'bill-2 bill-3 bill-4', @shop);
commits('a function with an exception block', 'select pay(1)', 'before again', @shop);
commits('the same without exception', 'select pay(5)', 'before undone bill-5', @shop);
commits('COPY', qq{copy ngx_pgq.queue (data) from stdin;\n"copied"\n"too"\n\\.\n}, 'copied too', @shop);
commits('COPY into one slot', qq{copy ngx_pgq.queue_2 (data, slot) from stdin;\n"slot"\t2\n\\.\nselect ngx_pgq.slot()}, 'slot');
commits('a procedure that commits on its way',
    q{do $$ begin for n in 1..3 loop insert into ngx_pgq.queue (data) values (to_json(n)); commit; end loop; end $$}, '1 2 3', @shop);
commits('an INSERT with a post in its way', q{
    begin; insert into ngx_pgq.queue (data) values ('"first"');
    select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"second"']); commit}, 'first second');
is($pg->safe_psql(q{
    with sent as (insert into ngx_pgq.queue (message_id, data)
        values ('00000000-0000-0000-0000-00000000000a', '{"a" : 1e400}') returning message_id) select count(*) from sent}), 1,
    'with an id of its own, and digits');
posts(1);
is($pg->safe_psql(q{select data from posts where message_id = '00000000-0000-0000-0000-00000000000a'}), '{"a" : 1e400}',
    '… which are kept, to the byte');

# not before
my $session = $pg->session(@shop);
$session->query(q{begin; insert into ngx_pgq.queue (data) values ('"early"')});
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"late"')});
is(posts(1), 'late', 'what has not committed holds nothing up');
$session->query('commit');
is(posts(1), 'early', 'and is moved when it has');

# undone
$session->query(q{begin; insert into ngx_pgq.queue (data) values ('"no"'); insert into bill values (6); rollback});
$session->query(q{begin; insert into ngx_pgq.queue (data) values ('"no"'); select 1 / 0; commit});
$session->query(q{insert into ngx_pgq.queue (data) values ('"no"'), ('no JSON')});
$session->query(q{begin; insert into ngx_pgq.queue (data) values ('"no"')});
$session->quit;
afterwards('', 'what is rolled back, fails, or loses its session never becomes a post');

# savepoints
commits('savepoints', q{
    begin;
    insert into ngx_pgq.queue (data) values ('"outer"');
    savepoint a;
    insert into ngx_pgq.queue (data) values ('"released"');
    savepoint b;
    insert into ngx_pgq.queue (data) values ('"gone"');
    savepoint c;
    insert into ngx_pgq.queue (data) values ('"gone, too"');
    release c;
    rollback to b;
    insert into ngx_pgq.queue (data) values ('"instead"');
    release a;
    commit}, 'outer released instead', @shop);
commits('all of it in a savepoint', q{begin; savepoint a; insert into ngx_pgq.queue (data) values ('"inner"'); release a; commit},
    'inner', @shop);
$pg->safe_psql(q{begin; savepoint a; insert into ngx_pgq.queue (data) values ('"no"'); rollback to a; commit}, @shop);
afterwards('', 'nothing comes of what a savepoint undoes');

# prepared transactions
sub prepare {
    my ($name) = @_;

    $pg->safe_psql(qq{begin; insert into ngx_pgq.queue (data) values ('"$name"'); prepare transaction '$name'}, @shop);
}

prepare('prepared');
prepare('never');
afterwards('', 'a prepared transaction waits');
commits('COMMIT PREPARED in another session', q{commit prepared 'prepared'}, 'prepared');
$pg->safe_psql(q{rollback prepared 'never'});
afterwards('', 'ROLLBACK PREPARED: no post');

prepare('survivor');
prepare('crashed');
$pg->restart;
commits('COMMIT PREPARED after a restart', q{commit prepared 'survivor'}, 'survivor');
$pg->restart('immediate');
commits('and after a crash', q{commit prepared 'crashed'}, 'crashed');

# with another prepared one open, all the time: it holds a snapshot and its place
prepare('open');
commits('beside an open one', q{insert into ngx_pgq.queue (data) values ('"beside"')}, 'beside');
commits('COMMIT PREPARED', q{commit prepared 'open'}, 'open');

is($pg->safe_psql('select count(*) - count(distinct message_id) from posts'), 0, 'no message has become two posts');

done_testing;
