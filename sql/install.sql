-- Installs ngx_pgq in the current database: roles, extension, tables, functions, rights.
-- A superuser runs it: psql -X -v ON_ERROR_STOP=1 -d posts -f sql/install.sql
-- It is one transaction, and can be repeated: it adds what is missing and changes nothing else. Run it after an update of the
-- library too: it updates the extension, without blocking clients or movers.

\set ON_ERROR_STOP on
set client_min_messages = warning;

begin;
-- Names are not resolved in schemas in which other roles may create objects.
set local search_path = pg_catalog, pg_temp;
\ir roles.sql
\ir existing.sql
\ir extension.sql
\ir queue.sql
\ir posts.sql
\ir dead_letter.sql
\ir retry.sql
\ir retry_all.sql
\ir discard.sql
\ir batch.sql
\ir key.sql
\ir service_time.sql
\ir recent.sql
\ir after.sql
\ir removed.sql
\ir revision.sql
\ir position.sql
\ir follow.sql
\ir index.sql
\ir since.sql
\ir refresh.sql
\ir subscription.sql
\ir progress.sql
\ir part.sql
\ir subscribe.sql
\ir unsubscribe.sql
\ir fetch.sql
\ir ack.sql
\ir check_members.sql
\ir subscribe_json.sql
\ir fetch_json.sql
\ir ack_json.sql
\ir acknowledged.sql
\ir subscription_rows.sql
\ir subscriptions.sql
\ir horizon.sql
\ir metrics.sql
\ir subscription_status.sql
\ir grants.sql
\ir served.sql
commit;
