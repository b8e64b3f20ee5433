-- The extension and its schema. The schema and the tables in it are no members of the extension: DROP EXTENSION
-- leaves people's messages alone.

create schema if not exists ngx_pgq authorization ngx_pgq_owner;
create extension if not exists ngx_pgq;
alter extension ngx_pgq update;

-- CREATE EXTENSION makes the schema, too, if it is missing, for the one who runs it.
alter schema ngx_pgq owner to ngx_pgq_owner;
