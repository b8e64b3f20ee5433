-- ngx_pgq.unsubscribe(name): deletes a subscription and its position; returns whether it existed. It waits for
-- transactions that have acknowledged posts of it. It runs with the rights of ngx_pgq_owner.

create or replace function ngx_pgq.unsubscribe(name text)
returns boolean
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    with deleted as (
        delete from ngx_pgq.subscription
         where subscription.name = unsubscribe.name
        returning 1
    )
    select exists (select from deleted)
$$;

comment on function ngx_pgq.unsubscribe(text) is
'delete a subscription; false if it does not exist';

alter function ngx_pgq.unsubscribe(text) owner to ngx_pgq_owner;
