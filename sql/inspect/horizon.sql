-- What keeps vacuum from removing dead rows, the oldest first, and the command that ends it.

select holder, pid, name, role, holds, age, since, duration, state, query,
       case holder
           when 'session' then format('select pg_terminate_backend(%s)', pid)
           when 'prepared transaction' then format('rollback prepared %L', name)
           when 'replication slot' then format('select pg_drop_replication_slot(%L)', name)
           else 'see what runs on the standby'
       end as remedy
  from ngx_pgq.horizon
 limit 20;
