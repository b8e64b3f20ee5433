-- ngx_pgq.batch: the ledger of batches taken, so that a batch sent twice is put into the queue once.
-- Written by ngx_pgq.enqueue(), its siblings and ngx_pgq.fence(), which look into all leaves; emptied by the first mover,
-- a leaf at a time: ten minutes after the last transaction that wrote to it has ended, by elapsed time and not by any
-- clock that can be set.
--
--   at        when the batch was taken, or met again; infinity: it was not, and will not be (ngx_pgq.fence())
--   slot      the leaf: the current one when the batch came; an empty one of the three takes over from it
--   batch_id  the batch

create table if not exists ngx_pgq.batch (
    at        timestamptz not null default clock_timestamp(),
    slot      smallint    not null,
    batch_id  uuid        not null,
    primary key (batch_id, slot)
) partition by list (slot);

-- Nothing is deleted row by row, so there is nothing to vacuum.
do $$
begin
    for slot in 0..2 loop
        execute format('create table if not exists ngx_pgq.batch_%1$s
                            partition of ngx_pgq.batch for values in (%1$s)', slot);
        execute format('alter table ngx_pgq.batch_%s set (autovacuum_enabled = off)', slot);
    end loop;
end
$$;

-- Only what is not so already: this locks out everybody who enqueues.
select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where relnamespace = 'ngx_pgq'::regnamespace and relname ~ '^batch(_[0-2])?$' and relowner <> 'ngx_pgq_owner'::regrole
\gexec
