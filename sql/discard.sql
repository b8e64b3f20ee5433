-- ngx_pgq.discard(id): forgets a dead letter for good; true if there was one.
-- Called by operators; runs with the caller's rights, which are those of ngx_pgq_owner.

create or replace function ngx_pgq.discard(id bigint)
returns boolean
language sql
volatile
strict
parallel unsafe
as $$
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
