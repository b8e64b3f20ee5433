-- ngx_pgq.retry(id): moves a dead letter back into the queue, unchanged; returns whether it existed.
-- For operators, after they have removed the cause. It runs with the rights of ngx_pgq_owner, see discard.sql.
--
-- The message becomes a post, or a dead letter with another id. Of concurrent calls for one id, one returns true; the others
-- wait for it and return false.

create or replace function ngx_pgq.retry(id bigint)
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
         where dead_letter.id = retry.id
        returning at, message_id, data, topic
    ), message as (
        insert into ngx_pgq.queue (at, message_id, data, topic)
        select at, message_id, data, topic from letter
        returning 1
    )
    select exists (select from message)
$$;

comment on function ngx_pgq.retry(bigint) is
'move a dead letter back into the queue; false if it does not exist';

alter function ngx_pgq.retry(bigint) owner to ngx_pgq_owner;
