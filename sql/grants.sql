-- Every right there is, in one place. Whoever is not named here has none.

revoke all on schema ngx_pgq from public;
revoke all on all functions in schema ngx_pgq from public;
revoke all on all tables in schema ngx_pgq from public;
revoke all on public.posts from public;

-- nginx: may put batches into the queue and read posts
grant usage on schema ngx_pgq to ngx_pgq_web;
grant execute on function ngx_pgq.enqueue(uuid, uuid[], text[]) to ngx_pgq_web;
grant execute on function ngx_pgq.recent(integer, bigint) to ngx_pgq_web;
grant select on public.posts to ngx_pgq_web;

-- applications: may insert into the queue, as part of their own transactions
grant usage on schema ngx_pgq to ngx_pgq_producer;
grant execute on function ngx_pgq.slot() to ngx_pgq_producer;
grant insert on ngx_pgq.queue to ngx_pgq_producer;

-- subscriptions write as the owner of their table, from PostgreSQL 16 on
grant execute on function ngx_pgq.slot() to ngx_pgq_owner;

-- the movers: empty the leaves of the queue, write posts and dead letters, truncate the ledger.
-- FOR UPDATE asks for the right to update; no row is ever updated.
grant usage on schema ngx_pgq to ngx_pgq_mover;
grant select, update, delete on ngx_pgq.queue_0, ngx_pgq.queue_1, ngx_pgq.queue_2, ngx_pgq.queue_3 to ngx_pgq_mover;
grant select, insert on public.posts to ngx_pgq_mover;
grant insert on ngx_pgq.dead_letter to ngx_pgq_mover;
grant truncate on ngx_pgq.batch_0, ngx_pgq.batch_1, ngx_pgq.batch_2 to ngx_pgq_mover;

-- monitoring: may see what the movers do, and how much waits
grant usage on schema ngx_pgq to pg_monitor;
grant execute on function ngx_pgq.mover_status() to pg_monitor;
grant select on ngx_pgq.status to pg_monitor;
