/* pg_extension/ngx_pgq--1.0--1.1.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION ngx_pgq UPDATE" to load this file. \quit
