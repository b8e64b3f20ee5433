-- After an error that does not depend on the message, a mover retries the batch and makes no dead letter.

\ir helper.psql

select plan(13);

create function public.test_raise() returns trigger language plpgsql as $$
begin
    raise exception using errcode = tg_argv[0], message = 'the server cannot do this now';
end
$$;

-- Creates a trigger on posts that raises this error, and inserts 20 messages.
create procedure pg_temp.raise(code text) language plpgsql as $$
begin
    execute format('create trigger raises before insert on posts for each row execute function public.test_raise(%L)', code);
    insert into ngx_pgq.queue (data) select to_json(code || ' ' || n) from generate_series(1, 20) as n;
    commit;
end
$$;

-- Returns a query that is true when a mover has failed with this error at least twice: the first delay is 100 ms.
create function pg_temp.backs_off(code text) returns text language sql as $$
    select format('select bool_or(state = ''backing off'' and last_error ~ ''%s; retry in [2-9]00 ms'') from ngx_pgq.status', code)
$$;
create function pg_temp.posted(code text) returns text language sql as $$
    select format('select count(*) = 20 from posts where data::text like ''"%s %%''', code)
$$;

select format('call pg_temp.raise(%L)', code),
       format('select ok(pg_temp.wait_for(pg_temp.backs_off(%L)), ''%1$s: a mover retries, with growing delays'')', code),
       'drop trigger raises on posts',
       format('select ok(pg_temp.wait_for(pg_temp.posted(%L)), ''%1$s: all messages are posted when the trigger is dropped'')', code)
  from unnest(array['40001', '53100', '55P03', '57014', '25006']) as code \gexec

select is((select count(*) from ngx_pgq.dead_letter), 0::bigint, 'there is no dead letter');
select is((select count(distinct message_id) from posts), 100::bigint, 'no message is lost');
select is((select count(*) from posts), 100::bigint, 'no message is posted twice');
drop function public.test_raise();

select * from finish();
