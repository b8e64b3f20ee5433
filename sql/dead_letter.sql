-- ngx_pgq.dead_letter: messages that posts refused.
-- The movers insert. Operators read it, remove the cause, and call ngx_pgq.retry() or ngx_pgq.discard().
--
--   at, message_id, data, topic  the message, as in ngx_pgq.queue
--   died_at                      when posts refused it
--   sqlstate, problem            the error that posts raised: its SQLSTATE and its text

create table if not exists ngx_pgq.dead_letter (
    id          bigint generated always as identity primary key,
    at          timestamptz not null,
    message_id  uuid        not null,
    data        json        not null,
    died_at     timestamptz not null default clock_timestamp(),
    sqlstate    text        not null,
    problem     text        not null
);

-- The table of an older version lacks the column.
select $$alter table ngx_pgq.dead_letter add column topic text not null default ''$$
 where not exists (select from pg_attribute where attrelid = 'ngx_pgq.dead_letter'::regclass and attname = 'topic')
\gexec

select format('alter table %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.dead_letter'::regclass and relowner <> 'ngx_pgq_owner'::regrole
\gexec
