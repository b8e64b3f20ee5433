-- ngx_pgq.discard(id): deletes a dead letter; returns whether it existed.
-- For operators. It runs with the rights of ngx_pgq_owner, and so do triggers on its tables: constraints are set immediate,
-- as deferred triggers would run with the rights of the session that commits.

create or replace function ngx_pgq.discard(id bigint)
returns boolean
language sql
volatile
strict
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    set constraints all immediate;
    with letter as (
        delete from ngx_pgq.dead_letter
         where dead_letter.id = discard.id
        returning 1
    )
    select exists (select from letter)
$$;

comment on function ngx_pgq.discard(bigint) is
'delete a dead letter; false if it does not exist';

alter function ngx_pgq.discard(bigint) owner to ngx_pgq_owner;
