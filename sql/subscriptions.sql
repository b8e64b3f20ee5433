-- ngx_pgq.subscriptions: the state of each part of each subscription. For operators and monitoring.
--
--   name, part      the part of a subscription
--   topics          only posts with one of these topics; null: all
--   upto            all posts up to this id are acknowledged
--   lag             how many ids follow, up to the newest post, those left out that retention has deleted. Posts of other
--                   topics and parts are counted
--   oldest_seconds  the age of the first of these posts; 0 if there is none
--   generation      changes whenever a consumer takes the part; 0: none has taken it
--   leased_until    the end of the lease; null if no lease is valid

create or replace view ngx_pgq.subscriptions as
select name, part, topics, upto, lag, oldest_seconds, generation, leased_until from ngx_pgq.subscription_rows();

comment on view ngx_pgq.subscriptions is
'the state of each part of each subscription';

alter view ngx_pgq.subscriptions owner to ngx_pgq_owner;
