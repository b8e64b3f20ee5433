-- A message that posts refuses becomes a dead letter. The other messages of its batch become posts.

\ir helper.psql

select plan(16);

alter table posts add constraint no_thirteen check (data::text <> '"row 13"');

insert into ngx_pgq.queue (data) select to_json('row ' || n) from generate_series(1, 25) as n;
select ok(pg_temp.wait_for($$select count(*) = 1 from ngx_pgq.dead_letter where data::text = '"row 13"'$$), 'a message that violates a CHECK becomes a dead letter');
select ok(pg_temp.wait_for($$select count(*) = 24 from posts where data::text like '"row %'$$),
          'the other messages become posts when one violates a CHECK');
select is((select sqlstate from ngx_pgq.dead_letter where data::text = '"row 13"'), '23514', 'a dead letter has the SQLSTATE of the CHECK');
select matches((select problem from ngx_pgq.dead_letter where data::text = '"row 13"'), 'no_thirteen', 'a dead letter names the constraint');
select is((select array_agg(data::text order by id) from posts where data::text like '"row %'),
          (select array_agg(to_json('row ' || n)::text order by n) from generate_series(1, 25) as n where n <> 13), 'the posts of the other messages are in the order of the queue');
select ok(pg_temp.wait_for($$select sum(dead_letters) >= 1 and sum(errors) >= 1 from ngx_pgq.status$$), 'the status counts dead letters and errors');
select is((select bool_or(last_error ~ 'row 13') from ngx_pgq.status), false, 'the status does not show the message');
alter table posts drop constraint no_thirteen;

-- a trigger, then the same trigger as a deferred one
create function public.test_refuse() returns trigger language plpgsql as $$
begin
    if new.data::text = '"refuse"' then
        raise exception 'refused by a trigger';
    end if;
    return new;
end
$$;

create trigger refuse before insert on posts for each row execute function public.test_refuse();
insert into ngx_pgq.queue (data) values ('"good 1"'), ('"refuse"'), ('"good 2"');
select ok(pg_temp.wait_for($$select count(*) = 1 from ngx_pgq.dead_letter where data::text = '"refuse"'$$), 'a message that a trigger refuses becomes a dead letter');
select ok(pg_temp.wait_for($$select count(*) = 2 from posts where data::text like '"good%'$$), 'the other messages become posts when a trigger refuses one');
select is((select array[sqlstate, problem] from ngx_pgq.dead_letter where data::text = '"refuse"'), array['P0001', 'refused by a trigger'], 'a dead letter has the SQLSTATE and message of the trigger');
drop trigger refuse on posts;

create constraint trigger refuse after insert on posts deferrable initially deferred for each row execute function public.test_refuse();
insert into ngx_pgq.queue (data) values ('"good 3"'), ('"refuse"'), ('"good 4"');
select ok(pg_temp.wait_for($$select count(*) = 2 from ngx_pgq.dead_letter where data::text = '"refuse"'$$), 'a message that a deferred trigger refuses becomes a dead letter');
select ok(pg_temp.wait_for($$select count(*) = 4 from posts where data::text like '"good%'$$), 'the other messages become posts when a deferred trigger refuses one');
drop trigger refuse on posts;
drop function public.test_refuse();

-- a posts table with another column
alter table posts add column seen boolean not null default false;
insert into ngx_pgq.queue (data) values ('"extended"');
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"extended"' and not seen)$$), 'a column that was added to posts gets its default');
alter table posts drop column seen;

-- an error that does not depend on the message
revoke insert on posts from ngx_pgq_mover;
insert into ngx_pgq.queue (data) values ('"retried"');
select ok(pg_temp.wait_for($$select bool_or(state = 'backing off' and last_error ~ '42501') from ngx_pgq.status$$), 'a mover without INSERT on posts backs off');
grant insert on posts to ngx_pgq_mover;
select ok(pg_temp.wait_for($$select exists (select from posts where data::text = '"retried"')$$), 'the message is posted when INSERT on posts is granted');
select is((select count(*) from ngx_pgq.dead_letter where data::text = '"retried"'), 0::bigint, 'a missing right makes no dead letter');

select * from finish();
