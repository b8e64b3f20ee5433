-- What posts refuses becomes a dead letter, and its neighbours become posts.

\ir helper.psql

select plan(16);

alter table posts add constraint no_thirteen check (data::text <> '"row 13"');

insert into ngx_pgq.queue (data) select to_json('row ' || n) from generate_series(1, 25) as n;
select ok(pg_temp.wait_for($$select count(*) = 1 from ngx_pgq.dead_letter where data::text = '"row 13"'$$), 'a CHECK makes a dead letter');
select ok(pg_temp.wait_for($$select count(*) = 24 from posts where data::text like '"row %'$$),
          'its neighbours pass');
select is((select sqlstate from ngx_pgq.dead_letter where data::text = '"row 13"'), '23514', 'with the SQLSTATE');
select matches((select problem from ngx_pgq.dead_letter where data::text = '"row 13"'), 'no_thirteen', 'and the reason');
select is((select array_agg(data::text order by id) from posts where data::text like '"row %'),
          (select array_agg(to_json('row ' || n)::text order by n) from generate_series(1, 25) as n where n <> 13), 'in their order');
select ok(pg_temp.wait_for($$select sum(dead_letters) >= 1 and sum(errors) >= 1 from ngx_pgq.status$$), 'the status counts it');
select is((select bool_or(last_error ~ 'row 13') from ngx_pgq.status), false, 'and does not tell the message');
alter table posts drop constraint no_thirteen;

-- a trigger, then the same one deferred to the commit
create function public.test_refuse() returns trigger language plpgsql as $$
begin
    if new.data::text = '"refuse"' then
        raise exception 'no, thank you';
    end if;
    return new;
end
$$;

create trigger refuse before insert on posts for each row execute function public.test_refuse();
insert into ngx_pgq.queue (data) values ('"beside 1"'), ('"refuse"'), ('"beside 2"');
select ok(pg_temp.wait_for($$select count(*) = 1 from ngx_pgq.dead_letter where data::text = '"refuse"'$$), 'so does a trigger');
select ok(pg_temp.wait_for($$select count(*) = 2 from posts where data::text like '"beside%'$$), 'its neighbours pass');
select is((select array[sqlstate, problem] from ngx_pgq.dead_letter where data::text = '"refuse"'), array['P0001', 'no, thank you'], 'for its own reason');
drop trigger refuse on posts;

create constraint trigger refuse after insert on posts deferrable initially deferred for each row execute function public.test_refuse();
insert into ngx_pgq.queue (data) values ('"beside 3"'), ('"refuse"'), ('"beside 4"');
select ok(pg_temp.wait_for($$select count(*) = 2 from ngx_pgq.dead_letter where data::text = '"refuse"'$$), 'so does what is checked at commit');
select ok(pg_temp.wait_for($$select count(*) = 4 from posts where data::text like '"beside%'$$), 'its neighbours pass');
drop trigger refuse on posts;
drop function public.test_refuse();

-- a posts table somebody has extended is served all the same
alter table posts add column seen boolean not null default false;
insert into ngx_pgq.queue (data) values ('"extended"');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"extended"' and not seen)$$), 'a column with a default is filled');
alter table posts drop column seen;

-- what is not the message's fault waits
revoke insert on posts from ngx_pgq_mover;
insert into ngx_pgq.queue (data) values ('"patient"');
select ok(pg_temp.wait_for($$select bool_or(state = 'backing off' and last_error ~ '42501') from ngx_pgq.status$$), 'a missing right makes a mover wait');
grant insert on posts to ngx_pgq_mover;
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"patient"')$$), 'until it is granted');
select is((select count(*) from ngx_pgq.dead_letter where data::text = '"patient"'), 0::bigint, 'and kills no message');

select * from finish();
