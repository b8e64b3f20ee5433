-- enqueue() accepts or refuses each message of a batch separately, and stores JSON byte for byte.

\ir helper.psql

select plan(29);

-- Enqueues one message. Returns the SQLSTATE if it is refused, else null.
create function pg_temp.refusal(message text) returns text language plpgsql as $$
begin
    return (select sqlstate from ngx_pgq.enqueue(pg_temp.uuid7(), array[gen_random_uuid()], array[message]));
end
$$;

begin;

select is(pg_temp.refusal(good), null, 'accepted: ' || left(good, 40))
  from unnest(array['{"a": [1, 2.50, null, true], "b":{}}', '"text"', '0', 'null', ' [ ] ', '{"a":1,"a":2}',
                    '1e400', '-0.0', '"\ud83d\ude00 \u00e9"', repeat('9', 1000), '0.' || repeat('1', 1000),
                    '"' || repeat('x', 1000000) || '"', repeat('[', 1000) || repeat(']', 1000)]) as good;

select is(pg_temp.refusal(bad), state, 'refused: ' || what)
  from (values ('', '22P02', 'empty'), ('{"a":', '22P02', 'truncated'), ('[1,]', '22P02', 'comma'),
               ('{a:1}', '22P02', 'no quotes'), ('01', '22P02', 'leading zero'), ('NaN', '22P02', 'NaN'),
               ('"\ud800"', '22P02', 'lone high surrogate'), ('"\udc00"', '22P02', 'lone low surrogate'),
               ('"\u0000"', '22P05', 'NUL'), ('1 2', '22P02', 'two values'), (null, '22004', 'null'),
               (repeat('[', 1000000), '54001', 'nested too deeply'))
    as bad (bad, state, what);

select results_eq(
    $$select ordinal, sqlstate from ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(5), array['1', '{', '3', null, '5'])$$,
    $$values (2, '22P02'), (4, '22004')$$,
    'only the refused messages are returned, by ordinal');

select results_eq(
    $$select data::text from ngx_pgq.queue order by at desc, ctid limit 3$$,
    $$values ('1'), ('3'), ('5')$$,
    'the other messages of the batch are in the queue, in order');

select is((select problem from ngx_pgq.enqueue(pg_temp.uuid7(), pg_temp.ids(1), array['[1, x]'])),
          'byte 5: Token "x" is invalid.', 'problem has the byte offset and the error');

select is((select count(distinct at) from (select at from ngx_pgq.queue order by at desc, ctid limit 3) as last), 1::bigint,
          'all messages of a batch have the same time');

select * from finish();
rollback;
