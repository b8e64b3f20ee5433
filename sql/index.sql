-- ngx_pgq.topic_index(), ngx_pgq.time_index(): create indexes of posts that not all users need. For a superuser, or the owner
-- of posts if it may create objects in the schema public. A second call does nothing. Movers wait while an index is created:
-- of a large table, create it concurrently by the same statement.
--
--   topic_index()  the posts of a topic by id, for recent() and after() with topics. Posts without a topic are not in it
--   time_index()   the posts of a time, for since(). It is a BRIN index, which is small and costs little

create or replace function ngx_pgq.topic_index()
returns void
language sql
volatile
parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
    create index if not exists posts_topic_id_idx on public.posts (topic, id) where topic <> ''
$$;

comment on function ngx_pgq.topic_index() is
'create an index of posts on (topic, id)';

alter function ngx_pgq.topic_index() owner to ngx_pgq_owner;

create or replace function ngx_pgq.time_index()
returns void
language sql
volatile
parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
    create index if not exists posts_at_idx on public.posts using brin (at) with (pages_per_range = 32, autosummarize = on)
$$;

comment on function ngx_pgq.time_index() is
'create an index of posts on at, for since()';

alter function ngx_pgq.time_index() owner to ngx_pgq_owner;
