-- ngx_pgq.retry_all(): moves all dead letters back into the queue, unchanged; returns their number.
-- For operators, after they have removed the cause. It runs with the rights of ngx_pgq_owner, see discard.sql.
--
-- Dead letters that another session is retrying or discarding are skipped.

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
        returning at, message_id, data, topic
    ), message as (
        insert into ngx_pgq.queue (at, message_id, data, topic)
        select at, message_id, data, topic from letter
        returning 1
    )
    select count(*) from message
$$;

comment on function ngx_pgq.retry_all() is
'move all dead letters back into the queue; returns their number';

alter function ngx_pgq.retry_all() owner to ngx_pgq_owner;
