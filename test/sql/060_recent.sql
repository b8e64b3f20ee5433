-- recent() returns the posts that GET /get shows: newest first, byte for byte, and not more bytes than the limit.

\ir helper.psql

select plan(17);

begin;
select is_empty('select * from ngx_pgq.recent()', 'recent() returns no row when there are no posts');

insert into posts (id, at, message_id, data) values
    (1, '2026-01-02 03:04:05.678901+00', gen_random_uuid(), '{"b": 1,  "a":1.50, "a":2}'),
    (2, '2026-01-02 05:04:05+02', gen_random_uuid(), '"é"'),
    (3, '2026-01-02 03:04:06+00', gen_random_uuid(), 'null');
set local timezone = 'Asia/Kathmandu';

select results_eq('select id, at, data::text, older from ngx_pgq.recent()',
    $$values (3::bigint, '2026-01-02T03:04:06.000000Z', 'null', 2::bigint),
             (2::bigint, '2026-01-02T03:04:05.000000Z', '"é"', 1::bigint),
             (1::bigint, '2026-01-02T03:04:05.678901Z', '{"b": 1,  "a":1.50, "a":2}', null::bigint)$$,
    'posts are returned newest first, byte for byte, with their time in UTC');
select results_eq('select id from ngx_pgq.recent(2)', 'values (3::bigint), (2::bigint)', 'most limits the number of posts');
select results_eq('select id from ngx_pgq.recent(1, 3)', 'values (2::bigint)', 'before returns posts with smaller ids');
select is_empty('select * from ngx_pgq.recent(5, 1)', 'no post is older than the first');
select results_eq('select id from ngx_pgq.recent(5, 9223372036854775807)', 'select generate_series(3::bigint, 1, -1)',
    'before may be the greatest bigint');

-- The posts 3 and 2 have four bytes each, post 1 has 26.
select results_eq('select id, older from ngx_pgq.recent(5, null, 8)', 'values (3::bigint, 2::bigint), (2, 1)',
    'posts are returned until size is reached, with the id of the next older post');
select results_eq('select id, older from ngx_pgq.recent(5, null, 7)', 'values (3::bigint, 2::bigint)', 'a post that does not fit into size is not returned');
select results_eq('select id, older from ngx_pgq.recent(5, 2, 8)', 'values (1::bigint, null::bigint)',
    'the first post is returned even if it does not fit into size');

insert into posts (id, at, message_id, data) values
    (4, 'infinity', gen_random_uuid(), '4'),
    (5, '-infinity', gen_random_uuid(), '5'),
    (6, '0044-03-15 12:00:00+00 BC', gen_random_uuid(), '6'),
    (7, '20000-01-01 00:00:00+00', gen_random_uuid(), '7'),
    (8, '9999-12-31 23:59:59+00', gen_random_uuid(), '8');
select results_eq('select id, at from ngx_pgq.recent(5)',
    $$values (8::bigint, '9999-12-31T23:59:59.000000Z'), (7, null), (6, null), (5, null), (4, null)$$,
    'a post whose time RFC 3339 cannot express has a null time');

insert into posts (id, at, message_id, data) select i, now(), gen_random_uuid(), '1' from generate_series(11, 210) i;
select is(count(*), 100::bigint, 'recent() returns 100 posts by default') from ngx_pgq.recent();

-- toasted values
insert into posts (id, at, message_id, data)
    select 300 + n, now(), gen_random_uuid(), to_json(string_agg(md5(i::text || n), '')) from generate_series(1, 3) n,
           generate_series(1, 4000) i group by n;
select is(ngx_pgq.json_octets(data), octet_length(data::text), 'json_octets() is the length of a toasted post') from posts order by id desc limit 1;
select is(count(*), 2::bigint, 'the size of toasted posts is that of their text') from ngx_pgq.recent(10, null, 300000);

create function pg_temp.plan() returns setof text language plpgsql as $$
begin
    return query execute 'explain (costs off) select id, data from ngx_pgq.recent(10, 100, 1)';
end
$$;
select ok(not bool_or(line like '%Function Scan%'), 'recent() is inlined into the query') from pg_temp.plan() as line;
select ok(bool_or(line ~ 'Index Cond: .*id < '), 'a query with before uses the index on id') from pg_temp.plan() as line;

select is(ngx_pgq.json_utf8('"é€😀"')::text, '"é€😀"', 'json_utf8() changes nothing in a UTF-8 database');
select is(ngx_pgq.json_utf8(null)::text, null, 'json_utf8(null) is null');
select * from finish();
rollback;
