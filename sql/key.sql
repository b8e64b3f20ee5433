-- ngx_pgq.key: the idempotency keys taken in the last hours, so that a message sent twice is put into the queue once.
-- Written by ngx_pgq.enqueue_keyed() and ngx_pgq.enqueue_all(), which also read it; emptied by the first mover, a leaf
-- at a time, when all keys in it have expired (setting ngx_pgq.keep_keys).
--
--   at           when the key was taken, by the database's own time (ngx_pgq.service_time)
--   slot         the leaf: from that time
--   digest       SHA-256 of the key, with its scope
--   fingerprint  SHA-256 of the message, or of the messages of one request
--   message_id   the message's id, or the first one's
--
-- An expired key may be taken again while its row is still there: of several the newest counts.

create table if not exists ngx_pgq.key (
    at           timestamptz not null,
    slot         smallint    not null,
    digest       bytea       not null check (octet_length(digest) = 32),
    fingerprint  bytea       not null check (octet_length(fingerprint) = 32),
    message_id   uuid        not null,
    primary key (digest, at, slot)
) partition by list (slot);

-- Shows the movers the newest row of a leaf. Not IF NOT EXISTS, which locks out everybody who sends keys before it looks.
select 'create index key_at_idx on ngx_pgq.key (at)'
 where to_regclass('ngx_pgq.key_at_idx') is null
\gexec

-- Nothing is updated or deleted row by row, so there is nothing to vacuum.
do $$
begin
    for slot in 0..3 loop
        execute format('create table if not exists ngx_pgq.key_%1$s
                            partition of ngx_pgq.key for values in (%1$s)', slot);
        execute format('alter table ngx_pgq.key_%s set (autovacuum_enabled = off)', slot);
    end loop;
end
$$;

-- Only what is not so already: this locks out everybody who sends keys.
select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where relnamespace = 'ngx_pgq'::regnamespace and relname ~ '^key(_[0-3])?$' and relowner <> 'ngx_pgq_owner'::regrole
\gexec
