-- ngx_pgq.retry_all(): puts all dead letters back into the queue, as they came in; how many there were.
-- Called by operators, when what refused them is mended; runs with the rights of ngx_pgq_owner, as discard() does.
--
-- What another session is retrying or discarding at the moment is left to it, so nobody waits.

create or replace function ngx_pgq.retry_all()
returns bigint
language sql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
as $$
    set constraints all immediate;
    with wanted as materialized (
        select id from ngx_pgq.dead_letter for update skip locked
    ), letter as (
        delete from ngx_pgq.dead_letter using wanted
         where dead_letter.id = wanted.id
        returning at, message_id, data
    ), message as (
        insert into ngx_pgq.queue (at, message_id, data)
        select at, message_id, data from letter
        returning 1
    )
    select count(*) from message
$$;

comment on function ngx_pgq.retry_all() is
'put all dead letters back into the queue; how many there were';

alter function ngx_pgq.retry_all() owner to ngx_pgq_owner;
