-- The state of the movers, and what their processes wait for.

select status.database, status.mover, status.pid, status.state, activity.wait_event, status.batches, status.messages, status.rate,
       round(status.messages::numeric / nullif(status.batches, 0), 1) as per_batch,
       status.dead_letters, status.errors, clock_timestamp() - status.last_move_at as since_last_move, status.last_error
  from ngx_pgq.status
  left join pg_stat_activity as activity using (pid)
 where status.mover is not null
 order by status.database, status.mover;
