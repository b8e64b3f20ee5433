-- ngx_pgq.batch: batches that were enqueued or fenced. A batch that is sent twice is enqueued once.
-- enqueue(), enqueue_keyed(), enqueue_all() and fence() search all leaves and insert. The first mover truncates a leaf ten
-- minutes after the last transaction that wrote to it has ended.
--
--   at        when the batch was enqueued, or last sent again; infinity: it was fenced
--   slot      the number of the leaf: of the current one when the batch arrived. Not a slot of the queue
--   batch_id  the id of the batch, given by the client

create table if not exists ngx_pgq.batch (
    at        timestamptz not null default clock_timestamp(),
    slot      smallint    not null,
    batch_id  uuid        not null,
    primary key (batch_id, slot)
) partition by list (slot);

-- No row is deleted, so there is nothing to vacuum.
do $$
begin
    for leaf in 0..2 loop
        execute format('create table if not exists ngx_pgq.batch_%1$s
                            partition of ngx_pgq.batch for values in (%1$s)', leaf);
        execute format('alter table ngx_pgq.batch_%s set (autovacuum_enabled = off)', leaf);
    end loop;
end
$$;

-- The owner is set only if it is another, as this blocks enqueue().
select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where relnamespace = 'ngx_pgq'::regnamespace and relname ~ '^batch(_[0-2])?$' and relowner <> 'ngx_pgq_owner'::regrole
\gexec
