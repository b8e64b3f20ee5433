-- The roles. No password is set here and none is kept: how a role may log in is for pg_hba.conf and the operator.
--
--   ngx_pgq_owner     owns the tables; nobody logs in as it
--   ngx_pgq_mover     the movers, which the server itself starts (setting ngx_pgq.role)
--   ngx_pgq_web       nginx
--   ngx_pgq_producer  a group for applications that insert into the queue from their own transactions

do $$
declare
    wanted record;
begin
    for wanted in
        select * from (values ('ngx_pgq_owner', 'nologin'),
                              ('ngx_pgq_mover', 'login'),
                              ('ngx_pgq_web', 'login'),
                              ('ngx_pgq_producer', 'nologin')) as role (name, login)
    loop
        -- two databases may be installed at the same time: roles are shared by all
        begin
            execute format('create role %I %s', wanted.name, wanted.login);
        exception
            when duplicate_object or unique_violation then null;
        end;
    end loop;
end
$$;

-- An answered request must be on the synchronous standby too; and a post once seen must never vanish.
alter role ngx_pgq_web set synchronous_commit = on;
alter role ngx_pgq_mover set synchronous_commit = on;

-- The parameters of nginx's statements are messages: log_min_duration_statement and log_statement do not log them.
alter role ngx_pgq_web set log_parameter_max_length = 0;
alter role ngx_pgq_web set log_parameter_max_length_on_error = 0;

-- So does not auto_explain, which shows parameters from PostgreSQL 16 on, and those of the movers' statements, too.
select format('alter role %I set auto_explain.log_parameter_max_length = 0', role)
  from unnest(array['ngx_pgq_web', 'ngx_pgq_mover']) as role
 where current_setting('server_version_num')::integer >= 160000
\gexec

-- nginx keeps its connections while nobody posts.
alter role ngx_pgq_web set idle_session_timeout = 0;
