-- ngx_pgq.refresh(): tells all readers to read posts again. For operators, after they have changed or deleted posts.
-- It runs with the rights of the caller, who needs those of the owner of posts.
--
-- The transaction changes ngx_pgq.revision and notifies followers when it commits. If the oldest posts were deleted, readers
-- that had not seen them are told that posts are missing. After TRUNCATE … RESTART IDENTITY the ids of old posts are forgotten.

create or replace function ngx_pgq.refresh()
returns void
language sql
volatile
parallel unsafe
set search_path = pg_catalog, pg_temp
as $$
    select setval('ngx_pgq.removed',
                  case when known.given < removed.last_value then greatest(known.gone, 0)
                       else greatest(known.gone, removed.last_value) end)
      from ngx_pgq.removed,
           (select coalesce((select min(posts.id) - 1 from public.posts), sequence.last) as gone, sequence.last as given
              from (select coalesce(pg_sequence_last_value(pg_get_serial_sequence('public.posts', 'id')::regclass), 0) as last
                     where pg_get_serial_sequence('public.posts', 'id') is not null) as sequence) as known;
    update ngx_pgq.revision
       set n = greatest(n + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint);
    select pg_notify('ngx_pgq_posts', 'reset')
$$;

comment on function ngx_pgq.refresh() is
'tell all readers to read posts again, after a manual change';

alter function ngx_pgq.refresh() owner to ngx_pgq_owner;
