-- The extension and its schema. The schema and the tables are not members of the extension, so DROP EXTENSION keeps messages.

create schema if not exists ngx_pgq authorization ngx_pgq_owner;
create extension if not exists ngx_pgq;
alter extension ngx_pgq update;

-- If the schema did not exist, the user who ran CREATE EXTENSION owns it.
alter schema ngx_pgq owner to ngx_pgq_owner;
