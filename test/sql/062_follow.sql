-- follow() returns new posts with the ends of posts; position() says whether a reader has missed posts; since() finds the posts
-- of a time; refresh() corrects what position() and follow() know after a manual change.

\ir helper.psql

select plan(50);

create function pg_temp.known(after bigint) returns text language sql as $$
    select format('%s %s %s', oldest, newest, complete) from ngx_pgq.position(after)
$$;
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

truncate posts restart identity;
select setval('ngx_pgq.removed', 0) as reset \gset
vacuum analyze posts;    -- plans are made for an empty table

-- ---- no posts
select is((select string_agg(follow::text, ' ') from ngx_pgq.follow(0, 10, 1000)), '(,,,,,0,0,' || (select n from ngx_pgq.revision) || ',)', 'follow() returns only its first row when there are no posts');
select is((select string_agg(follow::text, ' ') from ngx_pgq.follow(null, 10, 1000)), '(,,,,,0,0,' || (select n from ngx_pgq.revision) || ',)', 'follow() from the newest posts returns only its first row, too');
select is(pg_temp.known(0), ' 0 t', 'position() knows no post');

insert into posts (at, message_id, data, topic) select '2026-01-02 00:00:00Z'::timestamptz + i * interval '1 s', gen_random_uuid(), to_json('p' || i), case i when 3 then 'a/b' else '' end
  from generate_series(1, 10) as i;

-- ---- follow()
select is((select string_agg(format('%s %s %s', id, head, removed), ', ') from ngx_pgq.follow(7, 10, 1000)), ' 10 0, 8  , 9  , 10  ',
    'follow() returns the ends of posts, then the posts that follow an id');
select results_eq('select id, at, data::text, topic from ngx_pgq.follow(2, 1, 1000) where id is not null', $$values (3::bigint, '2026-01-02T00:00:03.000000Z', '"p3"', 'a/b')$$,
    'a post of follow() has its time, data and topic');
select is((select array_agg(follow.message_id order by id) from ngx_pgq.follow(0, 10, 1000)), (select array_agg(message_id order by id) from (select null::bigint as id, null::uuid as message_id union all select id, message_id from posts) as p),
    'each post has the id of its message');
select is((select array_agg(id) from ngx_pgq.follow(0, 3, 1000) where id is not null), '{1,2,3}', 'most limits the number of posts');
select is((select array_agg(id) from ngx_pgq.follow(0, 10, 8) where id is not null), '{1,2}', 'size limits the bytes of all data');
select is((select array_agg(id) from ngx_pgq.follow(0, 10, 1) where id is not null), '{1}', 'the first post is returned even if it is larger than size');
select is((select array_agg(id) from ngx_pgq.follow(null, 10, 1000, 4) where id is not null), '{7,8,9,10}', 'without an id follow() starts at the newest posts');
select is((select array_agg(id) from ngx_pgq.follow(null, 2, 1000, 4) where id is not null), '{7,8}', 'without an id follow() returns the oldest of these first');
select is((select count(id) from ngx_pgq.follow(null, 100, 1000)), 10::bigint, 'without an id follow() returns all posts if there are fewer');
select is((select string_agg(id || '', '') from ngx_pgq.follow(99, 10, 1000)), null, 'no post follows an id that is beyond the newest');
select is((select head from ngx_pgq.follow(99, 10, 1000)), 10::bigint, 'the first row shows that an id is beyond the newest');
begin;    -- counts of statements are per transaction
select coalesce(max(seq_scan), 0) as scans from pg_stat_xact_user_tables where relid = 'posts'::regclass \gset
insert into posts (id, at, message_id, data) select id, now(), gen_random_uuid(), '1' from generate_series(1001, 21000) as id;
select is((select count(id) from ngx_pgq.follow(20990, 100, 1000)), 10::bigint, 'follow() returns new posts of a large table');
select is((select seq_scan from pg_stat_xact_user_tables where relid = 'posts'::regclass), :scans::bigint, 'the plan of follow() uses the index on id, also if it was made while there were few posts');
select count(*) as found from posts where data::text = '1' \gset
select is((select seq_scan from pg_stat_xact_user_tables where relid = 'posts'::regclass), :scans::bigint + 1, 'another scan is counted');
commit;
select is(current_setting('enable_seqscan') || current_setting('jit') || current_setting('plan_cache_mode'), 'ononauto', 'follow() changes no setting of the session');
delete from posts where id > 1000;

-- ---- position(), when retention has deleted posts
select is(pg_temp.known(3), '1 10 t', 'nothing is missing before retention has deleted posts');
delete from posts where id <= 6;
select setval('ngx_pgq.removed', 6) as removed \gset
select is(pg_temp.known(5), '7 10 f', 'a reader that has not seen a deleted post has missed it');
select is(pg_temp.known(6), '7 10 t', 'a reader that has seen all deleted posts has missed none');
select is(pg_temp.known(0), '7 10 t', 'a reader that starts at the oldest post has missed none');
select is((select string_agg(format('%s %s %s', id, head, removed), ', ') from ngx_pgq.follow(2, 2, 1000)), ' 10 6, 7  , 8  ', 'follow() returns the greatest deleted id');
insert into posts (id, at, message_id, data) values (4, now(), gen_random_uuid(), '"kept"');
select is(pg_temp.known(4) || ' ' || pg_temp.known(6), '7 10 f 7 10 t', 'a post that retention has passed over does not hide that later ones are missing');
select is((select array_agg(id) from ngx_pgq.follow(2, 2, 1000) where id is not null), '{7,8}', 'follow() does not return a post that retention has passed over');
select is((select array_agg(id) from ngx_pgq.after(0, 3)), '{4,7,8}', 'after() returns it');
delete from posts;
select setval('ngx_pgq.removed', 10) as removed \gset
select is(pg_temp.known(10) || ',' || pg_temp.known(9), ' 10 t, 10 f', 'the newest id stays known when retention has deleted all posts');
select is((select string_agg(follow::text, ' ') from ngx_pgq.follow(10, 10, 1000)), '(,,,,,10,10,' || (select n from ngx_pgq.revision) || ',)', 'the head does not go back when retention has deleted all posts');

-- ---- refresh()
select setval('ngx_pgq.removed', 0) as reset \gset
insert into posts (at, message_id, data) select now(), gen_random_uuid(), '1' from generate_series(11, 20);
delete from posts where id <= 15;
select is(pg_temp.known(12), '16 20 t', 'a manual deletion is not known');
select revision as before from ngx_pgq.follow(0, 1, 1) where id is null \gset
select ngx_pgq.refresh() as done \gset
select cmp_ok((select revision from ngx_pgq.follow(0, 1, 1) where id is null), '>', (:before)::bigint, 'refresh() changes the revision');
select is((select count(*) from ngx_pgq.revision), 1::bigint, 'there is one revision');
select is(pg_temp.known(12) || ' ' || pg_temp.known(15), '16 20 f 16 20 t', 'it is known after refresh()');
insert into posts (id, at, message_id, data) values (3, now(), gen_random_uuid(), '"kept"');
select ngx_pgq.refresh() as done \gset
select is(pg_temp.known(14), '16 20 f', 'refresh() does not forget deleted posts because of an older post');
delete from posts;
select ngx_pgq.refresh() as done \gset
select is(pg_temp.known(20) || ',' || pg_temp.known(19), ' 20 t, 20 f', 'refresh() finds that all posts are deleted');
truncate posts restart identity;
select ngx_pgq.refresh() as done \gset
select is(pg_temp.known(0), ' 0 t', 'refresh() forgets the old ids after TRUNCATE RESTART IDENTITY');
insert into posts (at, message_id, data) values (now(), gen_random_uuid(), '1');
select is(pg_temp.known(0), '1 1 t', 'the first post after TRUNCATE RESTART IDENTITY is known');
create role ngx_pgq_test_operator in role ngx_pgq_owner;
set role ngx_pgq_test_operator;
select lives_ok('select ngx_pgq.refresh()', 'a member of ngx_pgq_owner may call refresh()');
reset role;
drop role ngx_pgq_test_operator;
set role ngx_pgq_web;
select throws_ok('select ngx_pgq.refresh()', '42501', null, 'ngx_pgq_web may not call refresh()');
select throws_ok($$select setval('ngx_pgq.removed', 1)$$, '42501', null, 'ngx_pgq_web may not change what is known');
select lives_ok('listen ngx_pgq_posts; select * from ngx_pgq.follow(0, 1, 1); select * from ngx_pgq.position(0)', 'ngx_pgq_web may follow posts');

-- ---- since()
select throws_ok('select ngx_pgq.since(now())', '55000', 'public.posts has no index on at', 'since() fails without an index on at');
reset role;
truncate posts;
insert into posts (id, at, message_id, data) select 100 + i * 10, '2026-01-01 00:00:00Z'::timestamptz + i * interval '1 min', gen_random_uuid(), '1' from generate_series(1, 5) as i;
insert into posts (id, at, message_id, data) values (160, '2026-01-01 00:01:30Z', gen_random_uuid(), '"retried"'), (170, '2026-01-01 00:06:00Z', gen_random_uuid(), '1');
select ngx_pgq.time_index(), ngx_pgq.time_index() as created \gset
set role ngx_pgq_web;
select is(array[ngx_pgq.since('2025-01-01'), ngx_pgq.since('2026-01-01 00:02:00Z'), ngx_pgq.since('2026-01-01 00:05:01Z'), ngx_pgq.since('2027-01-01')],
          array[109, 119, 169, 170]::bigint[], 'since() returns the id before the first post that is not older');
select is(ngx_pgq.since('2026-01-01 00:01:15Z'), 119::bigint, 'a post with an old time and a new id does not hide the posts between');
reset role;
drop index posts_at_idx;
select throws_ok('select ngx_pgq.since(now())', '55000', null, 'since() fails when the index is dropped');

-- ---- topic_index()
select ngx_pgq.topic_index(), ngx_pgq.topic_index() as created \gset
truncate posts restart identity;
insert into posts (at, message_id, data, topic) select now(), gen_random_uuid(), '1', case when i % 2 = 0 then '' else 't/' || i % 20 end from generate_series(1, 20000) as i;
analyze posts;
select alike(pg_temp.plan($$select id, data from ngx_pgq.recent(100, null, 1000000, '{t/7}')$$), '%Index Scan Backward using posts_topic_id_idx%Index Cond: ((topic = ''t/7''%',
    'recent() with one topic uses the index of topic_index(), in its order');
select unalike(pg_temp.plan('select id, data from ngx_pgq.recent(100, null, 1000000)'), '%posts_topic_id_idx%', 'recent() without topics does not');
drop index posts_topic_id_idx;

-- ---- the delay of follow()
truncate posts restart identity;
insert into posts (at, message_id, data) select at, gen_random_uuid(), '1'
  from unnest(array[now() - interval '90 s', now() - interval '30 s', now() + interval '1 day', '-infinity', 'infinity']) as at;
select is((select array_agg(delay) from ngx_pgq.follow(0, 10, 1000) where id is null),
          (select array_agg((extract(epoch from statement_timestamp() - at) * 1000)::bigint) from posts where id = 1), 'the delay is that of the first post');
select is((select delay from ngx_pgq.follow(2, 10, 1000) where id is null), 0::bigint, 'the delay of a post with a later time is 0');
select is((select count(delay) from ngx_pgq.follow(3, 10, 1000)) + (select count(delay) from ngx_pgq.follow(4, 10, 1000)), 0::bigint, 'a post with an infinite time has no delay');
select is((select count(delay) from ngx_pgq.follow(0, 10, 1000) where id is not null), 0::bigint, 'only the first row has a delay');
truncate posts restart identity;
select setval('ngx_pgq.removed', 0) as reset \gset
select * from finish();
