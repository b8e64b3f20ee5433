-- recent() is the body of GET /get: newest first, compact, data as it came in.

\ir helper.psql

select plan(7);

begin;
select is(ngx_pgq.recent(), '{"msg":[]}', 'nothing there is an empty list');

insert into posts (id, at, message_id, data) values
    (1, '2026-01-02 03:04:05.678901+00', gen_random_uuid(), '{"b": 1,  "a":1.50, "a":2}'),
    (2, '2026-01-02 05:04:05+02', gen_random_uuid(), '"é"'),
    (3, '2026-01-02 03:04:06+00', gen_random_uuid(), 'null');
set local timezone = 'Asia/Kathmandu';

select is(ngx_pgq.recent(),
          '{"msg":[{"id":3,"data":null,"at":"2026-01-02T03:04:06.000000Z"},'
          '{"id":2,"data":"é","at":"2026-01-02T03:04:05.000000Z"},'
          '{"id":1,"data":{"b": 1,  "a":1.50, "a":2},"at":"2026-01-02T03:04:05.678901Z"}]}',
          'posts come newest first, to the byte, in UTC');
select is(json_array_length(ngx_pgq.recent(2)::json -> 'msg'), 2, 'most limits them');
select is(ngx_pgq.recent(1) ::json #>> '{msg,0,id}', '3', 'to the newest');
select is(ngx_pgq.recent(1, 3)::json #>> '{msg,0,id}', '2', 'before begins below an id');
select is(ngx_pgq.recent(5, 1), '{"msg":[]}', 'and can leave nothing');

insert into posts (at, message_id, data) select now(), gen_random_uuid(), '1' from generate_series(1, 200);
select is(json_array_length(ngx_pgq.recent()::json -> 'msg'), 100, '100 if not said');
select * from finish();
rollback;
