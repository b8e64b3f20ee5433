-- ngx_pgq.dead_letter: messages that posts refused.
-- Written by the movers only; read by operators, who mend what refused them and call ngx_pgq.retry(), or
-- ngx_pgq.discard().
--
--   at, message_id, data  as the message had them
--   died_at               when posts refused it
--   sqlstate, problem     why

create table if not exists ngx_pgq.dead_letter (
    id          bigint generated always as identity primary key,
    at          timestamptz not null,
    message_id  uuid        not null,
    data        json        not null,
    died_at     timestamptz not null default clock_timestamp(),
    sqlstate    text        not null,
    problem     text        not null
);

alter table ngx_pgq.dead_letter owner to ngx_pgq_owner;
