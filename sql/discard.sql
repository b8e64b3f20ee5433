-- ngx_pgq.discard(id): forgets a dead letter for good; true if there was one.
-- Called by operators; runs with the rights of ngx_pgq_owner, whoever calls. So do triggers on its tables: deferred ones
-- would run as whoever commits, so the constraints of the transaction are immediate from then on.

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
'forget a dead letter for good; true if there was one';

alter function ngx_pgq.discard(bigint) owner to ngx_pgq_owner;
