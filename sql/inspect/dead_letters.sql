-- Dead letters: their number by reason, then the newest. When the cause is removed: ngx_pgq.retry(id), ngx_pgq.retry_all().

select sqlstate, problem, count(*), min(died_at) as first, max(died_at) as last
  from ngx_pgq.dead_letter
 group by sqlstate, problem
 order by count(*) desc
 limit 20;

select id, died_at, message_id, sqlstate, left(data::text, 60) as data
  from ngx_pgq.dead_letter
 order by id desc
 limit 20;
