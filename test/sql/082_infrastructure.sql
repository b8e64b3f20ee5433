-- An error that is the server's state and not the message's fault is waited out: no message dies of it.

\ir helper.psql

select plan(13);

create function public.test_raise() returns trigger language plpgsql as $$
begin
    raise exception using errcode = tg_argv[0], message = 'the world is to blame';
end
$$;

-- Posts raise this; true when a mover has met it twice, the second time with its messages still all together.
create procedure pg_temp.raise(code text) language plpgsql as $$
declare
    errors bigint;
begin
    execute format('create trigger blame before insert on posts for each row execute function public.test_raise(%L)', code);
    insert into ngx_pgq.queue (data) select to_json(code || ' ' || n) from generate_series(1, 20) as n;
    commit;
end
$$;
create function pg_temp.met(code text) returns text language sql as $$
    select format('select bool_or(state = ''backing off'' and last_error ~ ''%s; retry in [2-9]00 ms'') from ngx_pgq.status', code)
$$;

\set code 40001
call pg_temp.raise(:'code');
select ok(pg_temp.wait_for(pg_temp.met(:'code')), '40001: tried again, and again, ever more slowly');
drop trigger blame on posts;
select ok(pg_temp.wait_for(format($$select count(*) = 20 from posts where data::text like '"%s %%'$$, :'code')), 'then all pass');
\set code 53100
call pg_temp.raise(:'code');
select ok(pg_temp.wait_for(pg_temp.met(:'code')), '53100: the same');
drop trigger blame on posts;
select ok(pg_temp.wait_for(format($$select count(*) = 20 from posts where data::text like '"%s %%'$$, :'code')), 'then all pass');
\set code 55P03
call pg_temp.raise(:'code');
select ok(pg_temp.wait_for(pg_temp.met(:'code')), '55P03: the same');
drop trigger blame on posts;
select ok(pg_temp.wait_for(format($$select count(*) = 20 from posts where data::text like '"%s %%'$$, :'code')), 'then all pass');
\set code 57014
call pg_temp.raise(:'code');
select ok(pg_temp.wait_for(pg_temp.met(:'code')), '57014: the same');
drop trigger blame on posts;
select ok(pg_temp.wait_for(format($$select count(*) = 20 from posts where data::text like '"%s %%'$$, :'code')), 'then all pass');
\set code 25006
call pg_temp.raise(:'code');
select ok(pg_temp.wait_for(pg_temp.met(:'code')), '25006: the same');
drop trigger blame on posts;
select ok(pg_temp.wait_for(format($$select count(*) = 20 from posts where data::text like '"%s %%'$$, :'code')), 'then all pass');

select is((select count(*) from ngx_pgq.dead_letter), 0::bigint, 'no message was blamed');
select is((select count(distinct message_id) from posts), 100::bigint, 'none is lost');
select is((select count(*) from posts), 100::bigint, 'nor there twice');
drop function public.test_raise();

select * from finish();
