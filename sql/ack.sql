-- ngx_pgq.ack(name, upto, generation, part, release, first): acknowledges the posts of a part of a subscription, and renews
-- its lease. A consumer that calls it in the transaction of its own effects processes each post exactly once.
-- It runs with the rights of ngx_pgq_owner. It waits for another transaction that has changed the part, and then fails if
-- that was another consumer.
--
--   upto        all posts up to this id are acknowledged; if a later one is already, none
--   generation  the generation that fetch() returned. If another consumer has taken the part since, it fails
--   part        the part that fetch() returned
--   release     true: the lease ends, and another consumer may take the part at once
--   first       the first post that was processed. If it is acknowledged already, it fails. A consumer that continues with
--               the same generation although the outcome of a commit is unknown could otherwise process posts twice

create or replace function ngx_pgq.ack(
    name text, upto bigint, generation bigint, part integer default 1, release boolean default false,
    first bigint default null)
returns void
language plpgsql
volatile
parallel unsafe
security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    newest  bigint := (select place.newest from ngx_pgq.position(0) as place);
    state   ngx_pgq.progress;
begin
    if upto is null or upto not between 0 and newest then
        raise exception 'upto must be between 0 and the newest post, %', newest using errcode = 'invalid_parameter_value';
    elsif generation is null or release is null then
        raise exception 'generation and release must not be null' using errcode = 'invalid_parameter_value';
    end if;

    -- turn may be greater in the version that another transaction has committed while this one waited.
    update ngx_pgq.progress
       set turn = progress.turn + 1,
           upto = greatest(progress.upto, ack.upto),
           until = case when not release then clock_timestamp() + progress.lease end
     where progress.name = ack.name and progress.part = ack.part
       and progress.turn >= (select last.turn
                               from ngx_pgq.progress as last
                              where last.name = ack.name and last.part = ack.part
                              order by last.turn desc
                              limit 1)
       and progress.generation = ack.generation
       and (first is null or progress.upto < first);
    if not found then
        select * into state
          from ngx_pgq.progress
         where progress.name = ack.name and progress.part = ack.part
         order by progress.turn desc
         limit 1;
        if not found then
            raise exception 'subscription "%" or its part % does not exist', name, part using errcode = 'PQ404';
        elsif state.generation <> generation then
            raise exception 'part % of subscription "%" was taken by another consumer', part, name using errcode = 'PQ410';
        else
            raise exception 'post % of subscription "%" is acknowledged already', first, name using errcode = 'PQ412';
        end if;
    end if;
end
$$;

comment on function ngx_pgq.ack(text, bigint, bigint, integer, boolean, bigint) is
'acknowledge posts of a subscription';

alter function ngx_pgq.ack(text, bigint, bigint, integer, boolean, bigint) owner to ngx_pgq_owner;
