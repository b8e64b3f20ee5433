-- ngx_pgq.key: idempotency keys. A message that is sent twice with the same key is enqueued once.
-- enqueue_keyed() and enqueue_all() read and insert. The first mover truncates a leaf when all its keys have expired
-- (setting ngx_pgq.keep_keys).
--
--   at           when the key was taken, by ngx_pgq.service_time
--   slot         the number of the leaf, determined by at. Not a slot of the queue
--   digest       SHA-256 of the key with its scope
--   fingerprint  SHA-256 of the message, or of all messages of the request
--   message_id   the id of the message, or of the first message of the request
--
-- An expired key may be taken again before its row is removed: the newest row is valid.

create table if not exists ngx_pgq.key (
    at           timestamptz not null,
    slot         smallint    not null,
    digest       bytea       not null check (octet_length(digest) = 32),
    fingerprint  bytea       not null check (octet_length(fingerprint) = 32),
    message_id   uuid        not null,
    primary key (digest, at, slot)
) partition by list (slot);

-- This index finds the newest row of a leaf. CREATE INDEX IF NOT EXISTS would lock the table even if the index exists.
select 'create index key_at_idx on ngx_pgq.key (at)'
 where to_regclass('ngx_pgq.key_at_idx') is null
\gexec

-- No row is updated or deleted, so there is nothing to vacuum.
do $$
begin
    for leaf in 0..3 loop
        execute format('create table if not exists ngx_pgq.key_%1$s
                            partition of ngx_pgq.key for values in (%1$s)', leaf);
        execute format('alter table ngx_pgq.key_%s set (autovacuum_enabled = off)', leaf);
    end loop;
end
$$;

-- The owner is set only if it is another, as this blocks messages with keys.
select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where relnamespace = 'ngx_pgq'::regnamespace and relname ~ '^key(_[0-3])?$' and relowner <> 'ngx_pgq_owner'::regrole
\gexec
