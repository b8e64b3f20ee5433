/* pg_extension/ngx_pgq--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION ngx_pgq" to load this file. \quit

-- wake.c

create function ngx_pgq.slot()
returns smallint
as 'MODULE_PATHNAME', 'ngx_pgq_slot'
language c volatile strict parallel restricted;

comment on function ngx_pgq.slot() is
'get the current slot, and wake a mover when the transaction commits';

-- enqueue.c

create function ngx_pgq.enqueue(
    batch_id uuid,
    message_ids uuid[],
    messages text[],
    topics text[] default null,
    out ordinal integer,
    out sqlstate text,
    out problem text)
returns setof record
as 'MODULE_PATHNAME', 'ngx_pgq_enqueue'
language c volatile parallel unsafe rows 1;

comment on function ngx_pgq.enqueue(uuid, uuid[], text[], text[]) is
'enqueue a batch of messages once; returns a row for each refused message';

create function ngx_pgq.fence(batch_id uuid)
returns boolean
as 'MODULE_PATHNAME', 'ngx_pgq_fence'
language c volatile parallel unsafe;

comment on function ngx_pgq.fence(uuid) is
'make sure that a batch is never enqueued; false if it was';

create function ngx_pgq.enqueue_keyed(
    batch_id uuid,
    message_ids uuid[],
    messages text[],
    keys text[],
    topics text[] default null,
    out ordinal integer,
    out sqlstate text,
    out problem text)
returns setof record
as 'MODULE_PATHNAME', 'ngx_pgq_enqueue_keyed'
language c volatile parallel unsafe rows 1;

comment on function ngx_pgq.enqueue_keyed(uuid, uuid[], text[], text[], text[]) is
'enqueue a batch of messages once, and each idempotency key once; returns a row for each message that is not enqueued';

create function ngx_pgq.enqueue_all(
    batch_id uuid,
    first_id uuid,
    messages text[],
    key text default null,
    topic text default '',
    out ordinal integer,
    out sqlstate text,
    out problem text)
returns setof record
as 'MODULE_PATHNAME', 'ngx_pgq_enqueue_all'
language c volatile parallel unsafe rows 1;

comment on function ngx_pgq.enqueue_all(uuid, uuid, text[], text, text) is
'enqueue the messages of one request once, all or nothing; returns a row if nothing is enqueued';

-- control.c

create function ngx_pgq.pause()
returns void
as 'MODULE_PATHNAME', 'ngx_pgq_pause'
language c volatile strict parallel unsafe;

comment on function ngx_pgq.pause() is
'pause the movers of this database until resume() or a restart; returns when no batch is in progress';

create function ngx_pgq.resume()
returns void
as 'MODULE_PATHNAME', 'ngx_pgq_resume'
language c volatile strict parallel unsafe;

comment on function ngx_pgq.resume() is
'end the pause of pause()';

create function ngx_pgq.wait_until_drained(timeout interval default null)
returns boolean
as 'MODULE_PATHNAME', 'ngx_pgq_wait_until_drained'
language c volatile parallel unsafe;

comment on function ngx_pgq.wait_until_drained(interval) is
'wait until the queue is empty; false if the timeout has elapsed';

-- recent.c

create function ngx_pgq.json_octets(data json)
returns integer
as 'MODULE_PATHNAME', 'ngx_pgq_json_octets'
language c immutable strict parallel safe;

comment on function ngx_pgq.json_octets(json) is
'the length of a JSON value, without reading it';

create function ngx_pgq.json_utf8(data json)
returns json
as 'MODULE_PATHNAME', 'ngx_pgq_json_utf8'
language c stable strict parallel safe;

comment on function ngx_pgq.json_utf8(json) is
'a JSON value with characters that UTF-8 does not have replaced by \ufffd';

-- status.c

create function ngx_pgq.status_rows(
    out database name,
    out slot integer,
    out mover integer,
    out pid integer,
    out state text,
    out depth bigint,
    out bytes bigint,
    out oldest_at timestamptz,
    out rotations bigint,
    out skipped text,
    out batches bigint,
    out messages bigint,
    out rate double precision,
    out dead_letters bigint,
    out errors bigint,
    out last_error text,
    out last_error_at timestamptz,
    out last_move_at timestamptz,
    out started_at timestamptz)
returns setof record
as 'MODULE_PATHNAME', 'ngx_pgq_status_rows'
language c volatile strict parallel restricted;

comment on function ngx_pgq.status_rows() is
'state of each slot, and of each mover that was started since server start';

create view ngx_pgq.status as
select database, slot, mover, pid, state, depth, bytes, date_trunc('milliseconds', clock_timestamp() - oldest_at) as oldest,
       rotations, skipped, batches, messages, round(rate::numeric, 1) as rate, dead_letters, errors, last_error,
       last_error_at, last_move_at, started_at
  from ngx_pgq.status_rows();

comment on view ngx_pgq.status is
'state and counts of slots and movers since server start';

revoke all on function ngx_pgq.slot() from public;
revoke all on function ngx_pgq.enqueue(uuid, uuid[], text[], text[]) from public;
revoke all on function ngx_pgq.fence(uuid) from public;
revoke all on function ngx_pgq.enqueue_keyed(uuid, uuid[], text[], text[], text[]) from public;
revoke all on function ngx_pgq.enqueue_all(uuid, uuid, text[], text, text) from public;
revoke all on function ngx_pgq.pause() from public;
revoke all on function ngx_pgq.resume() from public;
revoke all on function ngx_pgq.wait_until_drained(interval) from public;
revoke all on function ngx_pgq.json_octets(json) from public;
revoke all on function ngx_pgq.json_utf8(json) from public;
revoke all on function ngx_pgq.status_rows() from public;
revoke all on ngx_pgq.status from public;
grant execute on function ngx_pgq.status_rows() to pg_monitor;
grant select on ngx_pgq.status to pg_monitor;
