/* pg_extension/ngx_pgq--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION ngx_pgq" to load this file. \quit

create function ngx_pgq.slot()
returns smallint
as 'MODULE_PATHNAME', 'ngx_pgq_slot'
language c volatile strict parallel restricted;

comment on function ngx_pgq.slot() is
'the slot new messages go to; also has the commit of this transaction wake a mover';

create function ngx_pgq.enqueue(
    batch_id uuid,
    message_ids uuid[],
    messages text[],
    out ordinal integer,
    out sqlstate text,
    out problem text)
returns setof record
as 'MODULE_PATHNAME', 'ngx_pgq_enqueue'
language c volatile parallel unsafe rows 1;

comment on function ngx_pgq.enqueue(uuid, uuid[], text[]) is
'put a batch of messages into the queue, once; a row for each message refused';

create function ngx_pgq.mover_status(
    out database name,
    out mover integer,
    out pid integer,
    out state text,
    out batches bigint,
    out messages bigint,
    out dead_letters bigint,
    out errors bigint,
    out last_error text,
    out last_move_at timestamptz,
    out started_at timestamptz)
returns setof record
as 'MODULE_PATHNAME', 'ngx_pgq_mover_status'
language c volatile strict parallel restricted;

comment on function ngx_pgq.mover_status() is
'a row for each mover there is or was since the server started';

create view ngx_pgq.status as
select * from ngx_pgq.mover_status();

comment on view ngx_pgq.status is
'what each mover is doing and has done since the server started';

revoke all on function ngx_pgq.slot() from public;
revoke all on function ngx_pgq.enqueue(uuid, uuid[], text[]) from public;
revoke all on function ngx_pgq.mover_status() from public;
revoke all on ngx_pgq.status from public;
grant execute on function ngx_pgq.mover_status() to pg_monitor;
grant select on ngx_pgq.status to pg_monitor;
