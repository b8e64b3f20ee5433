-- ngx_pgq.queue: messages not yet moved.
-- Written by ngx_pgq.enqueue() and by plain INSERTs of producers; read and emptied by the movers only.
--
--   at          when it came in
--   message_id  the message's id, from its sender or made here
--   slot        the leaf it lies in; never set it by hand, its default also wakes a mover
--   data        the message, to the byte
--
-- There is no index: a mover knows which blocks were written to, and reads those.

create table if not exists ngx_pgq.queue (
    at          timestamptz not null default clock_timestamp(),
    message_id  uuid        not null default gen_random_uuid(),
    slot        smallint    not null,
    data        json        not null
) partition by list (slot);

-- The leaves. Rows live for milliseconds, and a leaf is truncated before vacuum would be worth it. Vacuum comes only
-- where that was impossible for long; nobody looks for statistics; and vacuum gives no space back to the system, for
-- which it would have to lock everybody out for a moment.
do $$
begin
    for slot in 0..3 loop
        execute format('create table if not exists ngx_pgq.queue_%1$s
                            partition of ngx_pgq.queue for values in (%1$s)', slot);
        execute format('alter table ngx_pgq.queue_%s set (
                            fillfactor = 100,
                            vacuum_truncate = off,
                            autovacuum_vacuum_threshold = 10000000,
                            autovacuum_vacuum_scale_factor = 0,
                            autovacuum_vacuum_insert_threshold = -1,
                            autovacuum_vacuum_cost_delay = 0,
                            autovacuum_analyze_threshold = 2147483647,
                            toast.vacuum_truncate = off,
                            toast.autovacuum_vacuum_threshold = 10000000,
                            toast.autovacuum_vacuum_scale_factor = 0,
                            toast.autovacuum_vacuum_insert_threshold = -1,
                            toast.autovacuum_vacuum_cost_delay = 0)', slot);
    end loop;
end
$$;

-- Only what is not so already: these lock out everybody who uses the queue.
select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where relnamespace = 'ngx_pgq'::regnamespace and relname ~ '^queue(_[0-3])?$' and relowner <> 'ngx_pgq_owner'::regrole
\gexec

-- Not in CREATE TABLE, as DROP EXTENSION CASCADE takes the default away and installing again must bring it back.
select format('alter table %s alter column slot set default ngx_pgq.slot()', attrelid::regclass)
  from pg_attribute
  join pg_class on pg_class.oid = attrelid
 where relnamespace = 'ngx_pgq'::regnamespace and relname ~ '^queue(_[0-3])?$' and attname = 'slot' and not atthasdef
\gexec
