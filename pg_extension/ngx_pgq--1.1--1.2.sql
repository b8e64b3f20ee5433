/* pg_extension/ngx_pgq--1.1--1.2.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION ngx_pgq UPDATE" to load this file. \quit

-- enqueue.c

create function ngx_pgq.fence(batch_id uuid)
returns boolean
as 'MODULE_PATHNAME', 'ngx_pgq_fence'
language c volatile parallel unsafe;

comment on function ngx_pgq.fence(uuid) is
'see to it that a batch is never taken; false if it was';

-- keyed.c

create function ngx_pgq.enqueue_keyed(
    batch_id uuid,
    message_ids uuid[],
    messages text[],
    keys text[],
    out ordinal integer,
    out sqlstate text,
    out problem text)
returns setof record
as 'MODULE_PATHNAME', 'ngx_pgq_enqueue_keyed'
language c volatile parallel unsafe rows 1;

comment on function ngx_pgq.enqueue_keyed(uuid, uuid[], text[], text[]) is
'put a batch of messages into the queue, once, and once for each idempotency key; a row for each message not put in';

create function ngx_pgq.enqueue_all(
    batch_id uuid,
    first_id uuid,
    messages text[],
    key text default null,
    out ordinal integer,
    out sqlstate text,
    out problem text)
returns setof record
as 'MODULE_PATHNAME', 'ngx_pgq_enqueue_all'
language c volatile parallel unsafe rows 1;

comment on function ngx_pgq.enqueue_all(uuid, uuid, text[], text) is
'put the messages of one request into the queue, all or nothing, once; a row if nothing was put in';

revoke all on function ngx_pgq.fence(uuid) from public;
revoke all on function ngx_pgq.enqueue_keyed(uuid, uuid[], text[], text[]) from public;
revoke all on function ngx_pgq.enqueue_all(uuid, uuid, text[], text) from public;
