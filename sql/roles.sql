-- The roles. They have no passwords: pg_hba.conf and the operator decide how a role may log in.
--
--   ngx_pgq_owner     owns the tables; cannot log in
--   ngx_pgq_mover     movers connect as this role (setting ngx_pgq.role)
--   ngx_pgq_web       nginx connects as this role
--   ngx_pgq_producer  a group for applications that insert into the queue
--   ngx_pgq_consumer  a group for applications that consume posts by subscriptions

do $$
declare
    wanted record;
begin
    for wanted in
        select * from (values ('ngx_pgq_owner', 'nologin'),
                              ('ngx_pgq_mover', 'login'),
                              ('ngx_pgq_web', 'login'),
                              ('ngx_pgq_producer', 'nologin'),
                              ('ngx_pgq_consumer', 'nologin')) as role (name, login)
    loop
        -- an installation in another database may create the same roles at the same time
        begin
            execute format('create role %I %s', wanted.name, wanted.login);
        exception
            when duplicate_object or unique_violation then null;
        end;
    end loop;
end
$$;

-- Acknowledged messages, and posts that readers have seen, must be on the synchronous standby.
alter role ngx_pgq_web set synchronous_commit = on;
alter role ngx_pgq_mover set synchronous_commit = on;

-- Parameters of nginx's statements are messages and must not be logged, for example by log_min_duration_statement.
alter role ngx_pgq_web set log_parameter_max_length = 0;
alter role ngx_pgq_web set log_parameter_max_length_on_error = 0;

-- From PostgreSQL 16 on, auto_explain logs parameters, those of the movers' statements too.
select format('alter role %I set auto_explain.log_parameter_max_length = 0', role)
  from unnest(array['ngx_pgq_web', 'ngx_pgq_mover']) as role
 where current_setting('server_version_num')::integer >= 160000
\gexec

-- nginx keeps idle connections.
alter role ngx_pgq_web set idle_session_timeout = 0;
