-- after() returns the posts that follow an id, oldest first. recent() and after() can be limited to topics.

\ir helper.psql

select plan(22);

begin;
select is_empty('select * from ngx_pgq.after(0)', 'after() returns no row when there are no posts');

insert into posts (id, at, message_id, data, topic) values
    (1, '2026-01-02 03:04:05.678901+00', gen_random_uuid(), '{"a":1.50}', ''),
    (2, '2026-01-02 03:04:06+00', gen_random_uuid(), '"22"', 'a/b'),
    (3, 'infinity', gen_random_uuid(), '"33"', 'a/c'),
    (5, '2026-01-02 03:04:07+00', gen_random_uuid(), '"55"', 'a/b');

select results_eq('select id, at, data::text, newer, topic from ngx_pgq.after(0)',
    $$values (1::bigint, '2026-01-02T03:04:05.678901Z', '{"a":1.50}', 2::bigint, ''),
             (2, '2026-01-02T03:04:06.000000Z', '"22"', 3, 'a/b'),
             (3, null, '"33"', 5, 'a/c'),
             (5, '2026-01-02T03:04:07.000000Z', '"55"', null, 'a/b')$$,
    'posts are returned oldest first, with the id of the next one');
select results_eq('select id, topic from ngx_pgq.recent()', $$values (5::bigint, 'a/b'), (3, 'a/c'), (2, 'a/b'), (1, '')$$, 'recent() returns the topics');
select results_eq('select id from ngx_pgq.after(2)', 'values (3::bigint), (5)', 'after() returns the posts with greater ids');
select results_eq('select id from ngx_pgq.after(3, 1)', 'values (5::bigint)', 'most limits the number of posts');
select is_empty('select id from ngx_pgq.after(5)', 'no post follows the last one');
select is_empty('select id from ngx_pgq.after(9223372036854775807)', 'no post follows the greatest bigint');
select results_eq('select id from ngx_pgq.after(-9223372036854775808)', 'values (1::bigint), (2), (3), (5)', 'all posts follow the smallest bigint');
select results_eq('select id, newer from ngx_pgq.after(1, 10, 8)', 'values (2::bigint, 3::bigint), (3, 5)', 'posts are returned until size is reached, with the id of the next one');
select results_eq('select id from ngx_pgq.after(1, 10, 1)', 'values (2::bigint)', 'the first post is returned even if it is larger than size');

-- topics
select results_eq($$select id from ngx_pgq.after(0, topics => '{a/b}')$$, 'values (2::bigint), (5)', 'after() returns the posts of one topic');
select results_eq($$select id from ngx_pgq.recent(topics => '{a/b}')$$, 'values (5::bigint), (2)', 'recent() returns the posts of one topic');
select results_eq($$select id, newer from ngx_pgq.after(0, topics => '{a/b,a/c,none}')$$, 'values (2::bigint, 3::bigint), (3, 5), (5, null)', 'after() returns the posts of several topics');
select results_eq($$select id, older from ngx_pgq.recent(2, topics => '{a/b,a/c}')$$, 'values (5::bigint, 3::bigint), (3, null)', 'recent() returns the posts of several topics');
select is_empty($$select id from ngx_pgq.recent(topics => '{}')$$, 'no post has a topic of an empty list');
select results_eq($$select id from ngx_pgq.after(0, pattern => '^a/[^/]+$')$$, 'values (2::bigint), (3), (5)', 'after() returns the posts whose topic matches a pattern');
select results_eq($$select id from ngx_pgq.recent(before => 5, pattern => '^a/[bc]$')$$, 'values (3::bigint), (2)', 'recent() returns the posts whose topic matches a pattern');
select results_eq($$select id from ngx_pgq.after(0, topics => '{a/b}', pattern => 'c$')$$, 'select 1::bigint where false', 'a post must satisfy both');

-- plans
create function pg_temp.plan(query text) returns text language plpgsql as $$
declare
    line text;
    plan text := '';
begin
    for line in execute 'explain (costs off) ' || query loop
        plan := plan || line || E'\n';
    end loop;
    return plan;
end
$$;
insert into posts (id, at, message_id, data, topic)
    select 100 + i, now(), gen_random_uuid(), '1', 't/' || i % 10 from generate_series(1, 20000) i;
analyze posts;
select alike(pg_temp.plan('select id, data from ngx_pgq.after(20000, 100)'), '%Index Scan using posts_pkey%Index Cond: (id > ''20000''::bigint)%',
    'after() is inlined and uses the index on id');
select unalike(pg_temp.plan('select id, data from ngx_pgq.recent(100, null, 1000000)'), '%topic%', 'recent() without topics compares no topic');
select lives_ok('create index posts_topic_id_idx on posts (topic, id)', 'an index on topic and id is created');
select alike(pg_temp.plan($$select id, data from ngx_pgq.after(5, 100, 1000000, '{t/7}')$$), '%Limit%Index Scan using posts_topic_id_idx%topic = ''t/7''%id > ''5''%',
    'after() with one topic uses the index on topic and id, in its order');
select * from finish();
rollback;
