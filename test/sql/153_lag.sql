-- The lag of subscriptions in ngx_pgq.metrics() and subscription_status(), for /metrics and /status.

\ir helper.psql

select plan(13);

-- The metrics of a subscription, without their prefix.
create function pg_temp.gauges(name text) returns text[] language sql volatile as $$
    select array_agg(line order by line)
      from regexp_split_to_table(ngx_pgq.metrics(), '\n') as metric,
           substring(metric from 'pgq_subscription_(.*)') as line
     where metric like format('pgq_subscription_%%"%s"%%', name)
$$;
create function pg_temp.status() returns json language sql volatile as 'select ngx_pgq.subscription_status()::json';

truncate posts, ngx_pgq.subscription, ngx_pgq.progress;
select setval('ngx_pgq.removed', 0) \g /dev/null

select is(pg_temp.status()::text, '[]', 'without a subscription the status is an empty array');
select unalike(ngx_pgq.metrics(), '%subscription%', 'without a subscription the metrics show none');

insert into posts (id, at, message_id, data)
    select i, now() - interval '1 h' + i * interval '1 min', gen_random_uuid(), to_json(i) from generate_series(1, 30) as i;
select ngx_pgq.subscribe('new'), ngx_pgq.subscribe('old-1.x', start => 20), ngx_pgq.subscribe('two', start => 29, parts => 2) \g /dev/null
select count(*) from ngx_pgq.fetch('two', part => 2) \g /dev/null

select is(pg_temp.gauges('new'), '{"lag{subscription=\"new\",part=\"1\"} 0","leased{subscription=\"new\",part=\"1\"} 0","oldest_seconds{subscription=\"new\",part=\"1\"} 0"}',
    'a subscription without new posts has no lag');
select is((pg_temp.gauges('old-1.x'))[1], 'lag{subscription="old-1.x",part="1"} 10', 'the lag counts the posts that were not acknowledged');
select matches((pg_temp.gauges('old-1.x'))[3], '} 23[4-9]\d\.\d+$', 'the age of the first one is in seconds');
select is((select array_agg(right(line, 11) order by line) from unnest(pg_temp.gauges('two')) as line where line like 'leased%'), '{"part=\"1\"} 0","part=\"2\"} 1"}', 'a part with a lease is shown');
select matches(ngx_pgq.metrics(), E'# HELP pgq_subscription_lag .+\n# TYPE pgq_subscription_lag gauge\npgq_subscription_lag\\{', 'the metrics have a type');

select is((select array_agg(part->>'name') from json_array_elements(pg_temp.status()) as part), '{old-1.x,two,two,new}', 'the status begins with the subscription whose first post is the oldest');
select is((select array_agg(key) from json_object_keys(pg_temp.status()->0) as key), '{name,part,lag,oldest_seconds,leased_until}', 'the status has these members');
set timezone = 'Asia/Kolkata';
select matches(pg_temp.status()->2->>'leased_until', '^20\d\d-\d\d-\d\dT[\d:.]+\+00:00$', 'the end of a lease is a time in UTC');

-- ---- many
select count(ngx_pgq.subscribe('many' || i, start => 30, parts => 64)) from generate_series(1, 20) as i \g /dev/null
select is(json_array_length(pg_temp.status()), 1000, 'the status has at most 1000 parts');
select is((select count(*) from regexp_matches(ngx_pgq.metrics(), '^pgq_subscription_', 'gn')), 3000::bigint,
    'so have the metrics, three for each');
select is(array_length(pg_temp.gauges('old-1.x'), 1), 3, 'they include the part whose first post is the oldest');

select finish();
