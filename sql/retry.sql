-- ngx_pgq.retry(id): puts a dead letter back into the queue, as it came in; true if there was one.
-- Called by operators, when what refused it is mended; runs with the rights of ngx_pgq_owner, as discard() does.
--
-- The movers try it as they would a new message: it becomes a post, or a dead letter with another id. It happens once,
-- however many call at the same time: the others wait, and get false.

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
        returning at, message_id, data
    ), message as (
        insert into ngx_pgq.queue (at, message_id, data)
        select at, message_id, data from letter
        returning 1
    )
    select exists (select from message)
$$;

comment on function ngx_pgq.retry(bigint) is
'put a dead letter back into the queue; true if there was one';

alter function ngx_pgq.retry(bigint) owner to ngx_pgq_owner;
