-- Makes everything ngx_pgq needs in the database psql is connected to: roles, the extension, tables, functions, rights.
-- Run by a superuser: psql -X -v ON_ERROR_STOP=1 -d posts -f sql/install.sql
-- One transaction; run again it mends what is missing and changes nothing else. After an update of the library, run it
-- again: it updates the extension, too. Nobody who enqueues or reads is locked out by that, and the movers go on.

\set ON_ERROR_STOP on
set client_min_messages = warning;

begin;
-- No name below is looked up where somebody else may have made an object of that name.
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
\ir horizon.sql
\ir grants.sql
\ir served.sql
commit;
