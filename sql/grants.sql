-- All rights. A role that is not named here has none.

revoke all on schema ngx_pgq from public;
revoke all on all functions in schema ngx_pgq from public;
revoke all on all tables in schema ngx_pgq from public;
revoke all on public.posts from public;

-- rights that PUBLIC has by default
grant usage on schema public to ngx_pgq_owner, ngx_pgq_mover, ngx_pgq_web;
select format('grant connect on database %I to ngx_pgq_mover, ngx_pgq_web', current_database())
\gexec

-- nginx: enqueue batches, read posts
grant usage on schema ngx_pgq to ngx_pgq_web;
grant execute on function ngx_pgq.enqueue(uuid, uuid[], text[], text[]) to ngx_pgq_web;
grant execute on function ngx_pgq.fence(uuid) to ngx_pgq_web;
grant execute on function ngx_pgq.enqueue_keyed(uuid, uuid[], text[], text[], text[]) to ngx_pgq_web;
grant execute on function ngx_pgq.enqueue_all(uuid, uuid, text[], text, text) to ngx_pgq_web;
grant execute on function ngx_pgq.recent(integer, bigint, integer, text[], text) to ngx_pgq_web;
grant execute on function ngx_pgq.after(bigint, integer, integer, text[], text) to ngx_pgq_web;
grant execute on function ngx_pgq.follow(bigint, integer, integer, integer) to ngx_pgq_web;
grant execute on function ngx_pgq.position(bigint), ngx_pgq.since(timestamptz) to ngx_pgq_web;
grant select on ngx_pgq.removed, ngx_pgq.revision to ngx_pgq_web;
grant execute on function ngx_pgq.json_octets(json), ngx_pgq.json_utf8(json) to ngx_pgq_web;
grant execute on function ngx_pgq.metrics(), ngx_pgq.subscription_status() to ngx_pgq_web;
grant select on public.posts to ngx_pgq_web;

-- applications: insert into the queue in their own transactions. They must not set message_id, or at, which determines how
-- long a post is kept
grant usage on schema ngx_pgq to ngx_pgq_producer;
grant execute on function ngx_pgq.slot() to ngx_pgq_producer;
grant insert (data, topic) on ngx_pgq.queue to ngx_pgq_producer;

-- consumers, and nginx for them: create and delete subscriptions, fetch and acknowledge posts. These functions read posts as
-- ngx_pgq_owner, which may not be its owner
grant usage on schema ngx_pgq to ngx_pgq_consumer;
grant execute on function ngx_pgq.subscribe(text, text[], bigint, integer) to ngx_pgq_consumer, ngx_pgq_web;
grant execute on function ngx_pgq.unsubscribe(text) to ngx_pgq_consumer, ngx_pgq_web;
grant execute on function ngx_pgq.fetch(text, integer, interval, integer, bigint) to ngx_pgq_consumer, ngx_pgq_web;
grant execute on function ngx_pgq.ack(text, bigint, bigint, integer, boolean, bigint) to ngx_pgq_consumer, ngx_pgq_web;
grant execute on function ngx_pgq.subscribe_json(text, json), ngx_pgq.ack_json(text, json) to ngx_pgq_web;
grant execute on function ngx_pgq.fetch_json(text, integer, integer, integer, bigint, integer) to ngx_pgq_web;
grant execute on function ngx_pgq.check_members(json, text[]) to ngx_pgq_web;
grant select on public.posts to ngx_pgq_owner;

-- movers: delete from the queue, insert posts and dead letters, delete old posts (settings ngx_pgq.keep_posts and
-- ngx_pgq.keep_posts_for) that consumers do not need (ngx_pgq.keep_unacknowledged_for), truncate leaves of the queue, of the
-- batch table and of the table of keys. SELECT FOR UPDATE of posts needs the right to update a column; no row is updated.
grant usage on schema ngx_pgq to ngx_pgq_mover;
grant select, delete, truncate on ngx_pgq.queue_0, ngx_pgq.queue_1, ngx_pgq.queue_2, ngx_pgq.queue_3 to ngx_pgq_mover;
grant select, insert, update (id), delete on public.posts to ngx_pgq_mover;
grant insert on ngx_pgq.dead_letter to ngx_pgq_mover;
grant select, update on ngx_pgq.removed to ngx_pgq_mover;
grant execute on function ngx_pgq.acknowledged() to ngx_pgq_mover;
grant truncate on ngx_pgq.batch_0, ngx_pgq.batch_1, ngx_pgq.batch_2 to ngx_pgq_mover;
grant select, insert, update on ngx_pgq.service_time to ngx_pgq_mover;
grant truncate on ngx_pgq.key_0, ngx_pgq.key_1, ngx_pgq.key_2, ngx_pgq.key_3 to ngx_pgq_mover;

-- operators, who are granted ngx_pgq_owner: see the status, as metrics() does; pause and resume movers and wait for them;
-- enqueue, as retry() does. Subscriptions insert as the owner of their table from PostgreSQL 16 on
grant execute on function ngx_pgq.pause(), ngx_pgq.resume(), ngx_pgq.wait_until_drained(interval) to ngx_pgq_owner;
grant execute on function ngx_pgq.slot(), ngx_pgq.status_rows() to ngx_pgq_owner;
grant select on ngx_pgq.status to ngx_pgq_owner;

-- monitoring: see the movers, the slots, subscriptions, and what holds back vacuum
grant usage on schema ngx_pgq to pg_monitor;
grant execute on function ngx_pgq.status_rows() to pg_monitor;
grant select on ngx_pgq.status to pg_monitor;
grant select on ngx_pgq.horizon to pg_monitor;
grant execute on function ngx_pgq.subscription_rows() to pg_monitor;
grant select on ngx_pgq.subscriptions to pg_monitor;
