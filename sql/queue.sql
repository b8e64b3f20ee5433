-- ngx_pgq.queue: messages not yet moved.
-- enqueue() and applications insert. Only the movers read and delete.
--
--   at          when the message arrived
--   message_id  the id of the message, given by the client or generated
--   slot        the number of the leaf. Do not set it: the default also wakes a mover
--   data        the message, byte for byte
--   topic       its topic: segments of letters, digits and . _ ~ - with / between them; '' if it has none
--
-- There is no index: a mover knows the blocks that were written and reads those.

create table if not exists ngx_pgq.queue (
    at          timestamptz not null default clock_timestamp(),
    message_id  uuid        not null default gen_random_uuid(),
    slot        smallint    not null,
    data        json        not null
) partition by list (slot);

-- The queue of an older version lacks the column. enqueue() checks topics itself and not by this constraint.
select $$alter table ngx_pgq.queue
             add column topic text not null default '' constraint queue_topic_check
                 check (topic = '' or (octet_length(topic) <= 255 and
                                       topic collate "C" ~ '^(?!_)[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*$'))$$
 where not exists (select from pg_attribute where attrelid = 'ngx_pgq.queue'::regclass and attname = 'topic')
\gexec

-- The leaves. Rows are deleted within milliseconds, and a leaf is usually truncated before vacuum would help. Autovacuum runs
-- only if a leaf could not be truncated for long. It does not truncate, which would block all sessions. Statistics are not
-- needed.
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

-- The owner is set only if it is another, as this blocks all users of the queue.
select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where relnamespace = 'ngx_pgq'::regnamespace and relname ~ '^queue(_[0-3])?$' and relowner <> 'ngx_pgq_owner'::regrole
\gexec

-- The default is not in CREATE TABLE: DROP EXTENSION CASCADE drops it, and running this script again must restore it.
select format('alter table %s alter column slot set default ngx_pgq.slot()', attrelid::regclass)
  from pg_attribute
  join pg_class on pg_class.oid = attrelid
 where relnamespace = 'ngx_pgq'::regnamespace and relname ~ '^queue(_[0-3])?$' and attname = 'slot' and not atthasdef
\gexec
