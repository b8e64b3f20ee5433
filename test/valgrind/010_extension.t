# A server with its movers under valgrind: messages are enqueued, moved and refused in each way.

use Pgq;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nngx_pgq.batch_size = 100\nngx_pgq.rotate_size = 64kB\nautovacuum = off\n", valgrind => 1)->start;
my $drained = 'select count(*) from ngx_pgq.queue';

sub results {
    my ($name, $expected, @messages) = @_;
    my $array = join ', ', map { defined $_ ? "\$m\$$_\$m\$" : 'null' } @messages;
    my $sql   = "select coalesce(string_agg(ordinal || ':' || sqlstate, ' ' order by ordinal), '') from ngx_pgq.enqueue(gen_random_uuid(),
        (select array_agg(gen_random_uuid()) from generate_series(1, @{[ scalar @messages ]})), array[$array]::text[])";
    is($pg->safe_psql($sql), $expected, "$name have the results '$expected'");
}

results('valid messages', '', '1', '"a"', ' {"a" : [1, -2.5e10, null, true, "\u00e4\ud83d\ude00 é"]} ', '[]', '"' . 'x' x 20_000 . '"');
results('invalid JSON', '1:22P02 2:22P02 3:22P02 4:22P02 5:22P02 6:22P02 7:22P02', '', ' ', '{', '[1,', '"', "\"\\", '1 2');
results('characters that cannot be stored', '1:22P05 2:22P02 3:22P02 4:22P02', '"\u0000"', '"\u12', '"\x"', "\"\t\"");
results('nulls', '1:22004 3:22004', undef, '1', undef);
results('deeply nested messages', '1:54001', '[' x 3000 . ']' x 3000, '[' x 1000 . ']' x 1000);
results('deeply nested unfinished messages', '1:54001 2:22P02', '[' x 3000, '[' x 1000);
results('500 messages', '', map { qq({"n": $_}) } 1 .. 500);

for my $call (
    "null, '{}', '{}'", "gen_random_uuid(), array[gen_random_uuid()], '{}'",
    "gen_random_uuid(), array[array[gen_random_uuid()]], array[array['1']]",
) {
    isnt(($pg->psql("select * from ngx_pgq.enqueue($call)"))[0], 0, "an invalid call is refused: $call");
}

my $batch = q{select count(*) from ngx_pgq.enqueue('0190a5b0-0000-7000-8000-000000000001', array[gen_random_uuid()], array['"batch"'])};
$pg->safe_psql("$batch; $batch; begin; $batch; rollback; $batch");
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(repeat('x', n * 7)) from generate_series(1, 1000) n});
$pg->safe_psql(q{begin; savepoint a; insert into ngx_pgq.queue (data) values ('1'); rollback to a; insert into ngx_pgq.queue (data) values ('2'); commit});
ok($pg->poll_query_until($drained, 0, 60), 'all messages are moved');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"batch"'}), 1, 'a batch that is sent four times is in posts once');

# posts has a trigger, a constraint and an index, and some messages become dead letters
$pg->safe_psql(q{
    create function refuse() returns trigger language plpgsql as $$
    begin
        if new.data::text ~ 'refused' then raise exception 'refused'; end if;
        return new;
    end $$;
    create trigger refuse before insert on posts for each row execute function refuse();
    alter table posts add check (data::text !~ 'checked'), add unique (message_id);
    insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 200) n;
    insert into ngx_pgq.queue (data) values ('"refused"'), ('"checked"')});
ok($pg->poll_query_until($drained, 0, 60), 'messages are moved by the executor when posts has a trigger');
$pg->safe_psql(q{drop trigger refuse on posts; insert into ngx_pgq.queue (data) values ('"checked"'), ('"fine"')});
ok($pg->poll_query_until($drained, 0, 60), 'messages are moved after the trigger was dropped');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 3, 'messages that posts refuses are dead letters');

$pg->set('ngx_pgq.movers' => 1);
is($pg->safe_psql('select count(*) > 0 from ngx_pgq.status'), 't', 'the status of the movers is shown');
$pg->safe_psql('select pg_terminate_backend(pid) from ngx_pgq.status where pid is not null');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('"again"')});
ok($pg->poll_query_until($drained, 0, 60), 'a mover that was restarted moves messages');

done_testing;
