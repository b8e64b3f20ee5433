-- ngx_pgq.subscription_status(): the state of subscriptions as a JSON array, as in the view subscriptions.
-- nginx calls it for /status, if pgq_status names a pool. It runs with the rights of its owner, as nginx's role may not read
-- the view. It shows the 1000 parts whose first post is the oldest, in this order.

create or replace function ngx_pgq.subscription_status()
returns text
language sql
stable
parallel safe
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
    select format('[%s]', string_agg(row_to_json(state)::text, ',' order by oldest_seconds desc, lag desc, name, part))
      from (select name, part, lag, oldest_seconds, leased_until
              from ngx_pgq.subscription_rows()
             order by oldest_seconds desc, lag desc, name, part
             limit 1000) as state
$$;

alter function ngx_pgq.subscription_status() owner to ngx_pgq_owner;
