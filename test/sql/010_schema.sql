-- The schema has the tables, functions and owners that are documented, and installing again changes nothing.

\ir helper.psql

insert into ngx_pgq.queue (data) values ('"kept"');
\ir ../../sql/install.sql
set client_min_messages = warning;

select plan(43);

select has_extension('ngx_pgq');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"kept"')$$),
          'installing again keeps the messages of the queue');

select columns_are('ngx_pgq', 'queue', array['at', 'message_id', 'slot', 'data', 'topic']);
select col_type_is('ngx_pgq', 'queue', 'data', 'json', 'a message is stored as json, byte for byte');
select col_default_is('ngx_pgq', 'queue', 'slot', 'ngx_pgq.slot()', 'slot() chooses the slot of a row');
select col_default_is('ngx_pgq', 'queue_2', 'slot', 'ngx_pgq.slot()', 'slot() chooses the slot of a row that is inserted into a leaf');
select is_partitioned('ngx_pgq', 'queue', 'the queue is partitioned');
select is_partition_of('ngx_pgq', ('queue_' || slot)::name, 'ngx_pgq', 'queue', 'queue_' || slot || ' is a leaf of the queue') from generate_series(0, 3) as slot;
select is((select count(*) from pg_index where indrelid::regclass::text ~ '^ngx_pgq.queue'), 0::bigint,
          'the queue and its leaves have no index');

select columns_are('public', 'posts', array['id', 'at', 'message_id', 'data', 'topic']);
select col_is_pk('public', 'posts', 'id', 'id is the primary key of posts');
select col_type_is('public', 'posts', 'data', 'json', 'a post is stored as json, byte for byte');

select columns_are('ngx_pgq', 'dead_letter', array['id', 'at', 'message_id', 'data', 'died_at', 'sqlstate', 'problem', 'topic']);
select col_is_pk('ngx_pgq', 'dead_letter', 'id', 'id is the primary key of dead_letter');

select columns_are('ngx_pgq', 'batch', array['at', 'slot', 'batch_id']);
select col_is_pk('ngx_pgq', 'batch', array['batch_id', 'slot']::name[], 'a leaf of the batch table has a batch at most once');
select is_partition_of('ngx_pgq', ('batch_' || slot)::name, 'ngx_pgq', 'batch', 'batch_' || slot || ' is a leaf of the batch table') from generate_series(0, 2) as slot;

select columns_are('ngx_pgq', 'key', array['at', 'slot', 'digest', 'fingerprint', 'message_id']);
select col_is_pk('ngx_pgq', 'key', array['digest', 'at', 'slot']::name[], 'a key is found by its digest');
select has_index('ngx_pgq', 'key', 'key_at_idx', array['at'], 'keys are found by age');
select is_partition_of('ngx_pgq', ('key_' || slot)::name, 'ngx_pgq', 'key', 'key_' || slot || ' is a leaf of the keys') from generate_series(0, 3) as slot;
select is((select count(*) from pg_class where relnamespace = 'ngx_pgq'::regnamespace and relname ~ '^key_[0-3]$' and reloptions = '{autovacuum_enabled=off}'), 4::bigint,
          'autovacuum is off for the leaves of the keys');
select columns_are('ngx_pgq', 'subscription', array['name', 'topics', 'parts']);
select columns_are('ngx_pgq', 'progress', array['name', 'part', 'turn', 'upto', 'generation', 'until', 'lease']);
select col_is_pk('ngx_pgq', 'progress', array['name', 'part', 'turn']::name[], 'the newest row of a part is found by its turn');
select is((select reloptions from pg_class where oid = 'ngx_pgq.progress'::regclass), '{vacuum_truncate=off}', 'vacuum does not block consumers');
select function_returns('ngx_pgq', 'fence', array['uuid'], 'boolean');
select has_function('ngx_pgq', 'enqueue_keyed', array['uuid', 'uuid[]', 'text[]', 'text[]', 'text[]']);
select has_function('ngx_pgq', 'enqueue_all', array['uuid', 'uuid', 'text[]', 'text', 'text']);
select is((select count(*) from pg_proc where pronamespace = 'ngx_pgq'::regnamespace and proname = 'enqueue'), 1::bigint, 'enqueue() has one signature');

select function_returns('ngx_pgq', 'slot', array[]::name[], 'smallint');
select has_function('ngx_pgq', 'enqueue', array['uuid', 'uuid[]', 'text[]', 'text[]']);
select has_view('ngx_pgq', 'status', 'the view status exists');

select is((select count(*)
             from pg_class
             join pg_depend on classid = 'pg_class'::regclass and objid = pg_class.oid and deptype = 'e'
            where relkind in ('r', 'p') and relnamespace in ('ngx_pgq'::regnamespace, 'public'::regnamespace)
              and refobjid = (select oid from pg_extension where extname = 'ngx_pgq')), 0::bigint,
          'no table is a member of the extension');
select is((select array_agg(distinct pg_get_userbyid(relowner)) from pg_class
            where relkind in ('r', 'p') and relnamespace = 'ngx_pgq'::regnamespace), array['ngx_pgq_owner'::name],
          'ngx_pgq_owner owns all tables');

select * from finish();
