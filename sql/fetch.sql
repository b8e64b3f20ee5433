-- ngx_pgq.fetch(name, most, lease, part, generation): the next posts of a part of a subscription, in the order of ids, and a
-- lease of the part. A fetch without a post does not take the part, and one by the holder of the lease does not renew it.
-- It never waits for another consumer. It runs with the rights of ngx_pgq_owner: a consumer needs no rights on posts.
--
--   most        the maximum number of posts, up to 10000
--   lease       the length of the lease, up to a day of 24 hours, if this call takes the part
--   part        the part; null: one that is free and has posts, chosen at random so that none is left out
--   generation  the generation that an earlier call returned; null: the part is taken if no lease of it is valid
--
--   part, generation               with each post; for ack() and the next call
--   id, at, message_id, topic, data  as in posts
--
-- Of posts that do not belong to the part a call passes at most 100000, so there may be no row although there is a post.
-- They are not passed again: upto is moved behind them if they are 1000 or more, if the first is a minute old, or together
-- with a lease. So the lag of a subscription whose consumers have nothing to do is less than that.
-- Posts that retention has deleted are not scanned, also if vacuum cannot remove them. About plans: follow.sql.

create or replace function ngx_pgq.fetch(
    name text, most integer default 100, lease interval default '30 s',
    inout part integer default null, inout generation bigint default null,
    out id bigint, out at timestamptz, out message_id uuid, out topic text, out data json)
returns setof record
language plpgsql
volatile
parallel unsafe
security definer
rows 100
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
    subscribed ngx_pgq.subscription;
    state      ngx_pgq.progress;
    post       record;
    start      integer;
    number     integer;         -- the part
    leased     boolean;
    first      bigint;          -- the first post of the part
    passed     bigint;          -- the last post before it
    count      integer;         -- of posts that were passed
    since      timestamptz;     -- when the first of them came
    budget     integer := 100000;
begin
    if most is null or most not between 1 and 10000 then
        raise exception 'most must be between 1 and 10000' using errcode = 'invalid_parameter_value';
    elsif lease is null or lease not between '1 ms' and '1 day' then
        raise exception 'lease must be between 1 ms and 1 day' using errcode = 'invalid_parameter_value';
    end if;
    select * into subscribed from ngx_pgq.subscription where subscription.name = "fetch".name;
    if not found then
        raise exception 'subscription "%" does not exist', name using errcode = 'PQ404';
    end if;
    part := coalesce(part, case subscribed.parts when 1 then 1 end);
    if part not between 1 and subscribed.parts or part is null and generation is not null then
        raise exception 'part must be between 1 and %', subscribed.parts using errcode = 'invalid_parameter_value';
    end if;

    start := floor(random() * subscribed.parts);
    for n in 1 .. case when part is null then subscribed.parts else 1 end loop
        number := coalesce(part, (start + n) % subscribed.parts + 1);
        select * into state
          from ngx_pgq.progress
         where progress.name = "fetch".name and progress.part = number
         order by progress.turn desc
         limit 1;
        if state.generation <> generation then
            raise exception 'part % of subscription "%" was taken by another consumer', number, name using errcode = 'PQ410';
        end if;
        leased := coalesce(state.until - clock_timestamp() between '1 us' and state.lease, false);
        continue when leased and generation is null;

        first := null;
        count := 0;
        since := null;
        passed := greatest(state.upto, (select removed.last_value from ngx_pgq.removed));
        for post in
            select posts.id,
                   posts.at,
                   (subscribed.topics is null or posts.topic = any (subscribed.topics))
                   and (subscribed.parts = 1 or ngx_pgq.part(posts.topic, subscribed.parts) = number) as fits
              from public.posts
             where posts.id > passed
             order by posts.id
             limit budget
        loop
            if post.fits then
                first := post.id;
                exit;
            end if;
            passed := post.id;
            count := count + 1;
            since := coalesce(since, post.at);
        end loop;
        budget := budget - count;
        continue when first is null and count < 1000 and coalesce(since > clock_timestamp() - interval '1 min', true);

        -- Another transaction has locked or changed the row: it is acknowledging posts, or has taken the part.
        if first is null or not leased then
            perform from ngx_pgq.progress
              where progress.name = "fetch".name and progress.part = number and progress.turn = state.turn
                for update skip locked;
            continue when not found;
        end if;

        if first is not null then
            if generation is null then
                state.generation := ('x' || right(gen_random_uuid()::text, 12))::bit(48)::bigint;
            end if;
            return query
            select number, state.generation, next.id, next.at, next.message_id, next.topic, next.data
              from (select posts.id, posts.at, posts.message_id, posts.topic, posts.data
                      from public.posts
                     where posts.id >= first
                     order by posts.id
                     limit 10000) as next
             where (subscribed.topics is null or next.topic = any (subscribed.topics))
               and (subscribed.parts = 1 or ngx_pgq.part(next.topic, subscribed.parts) = number)
             order by next.id
             limit most;
            exit when leased;
            continue when not found;
            state.lease := make_interval(secs => extract(epoch from lease));    -- no day, which may have 23 or 25 hours
            state.until := clock_timestamp() + state.lease;
        end if;
        update ngx_pgq.progress
           set turn = progress.turn + 1, upto = passed, generation = state.generation, until = state.until, lease = state.lease
         where progress.name = "fetch".name and progress.part = number and progress.turn = state.turn;
        exit when first is not null;
    end loop;
end
$$;

comment on function ngx_pgq.fetch(text, integer, interval, integer, bigint) is
'the next posts of a subscription, with a lease';

alter function ngx_pgq.fetch(text, integer, interval, integer, bigint) owner to ngx_pgq_owner;
