-- The extension and its schema. The schema and the tables in it are no members of the extension: DROP EXTENSION
-- leaves people's messages alone.

create schema if not exists ngx_pgq authorization ngx_pgq_owner;
create extension if not exists ngx_pgq;
alter extension ngx_pgq update;
