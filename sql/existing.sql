-- Checks existing objects. A superuser runs this script and must not run or keep code that another role has created.
--
--   schema ngx_pgq  it and its objects must belong to ngx_pgq_owner. Those of a superuser are given to ngx_pgq_owner, with
--                   a warning. Members of the extension are not changed
--   public.posts    must belong to ngx_pgq_owner when the queue is created. Later it may have another owner, and keeps it

do $$
declare
    installed boolean := to_regclass('ngx_pgq.queue') is not null;
    found     record;
begin
    for found in
        with object (class, id, name, owner) as (
            select 'pg_namespace'::regclass, oid, 'schema ' || oid::regnamespace, nspowner from pg_namespace where nspname = 'ngx_pgq'
            union all
            select 'pg_class'::regclass, oid, 'relation ' || oid::regclass, relowner from pg_class
             where relnamespace = to_regnamespace('ngx_pgq') and relkind in ('r', 'p', 'v', 'm', 'f', 'S')
            union all
            select 'pg_proc'::regclass, oid, 'function ' || oid::regprocedure, proowner from pg_proc
             where pronamespace = to_regnamespace('ngx_pgq')
            union all
            select 'pg_operator'::regclass, oid, 'operator ' || oid::regoperator, oprowner from pg_operator
             where oprnamespace = to_regnamespace('ngx_pgq')
            union all
            select 'pg_type'::regclass, oid, 'type ' || oid::regtype, typowner from pg_type
             where typnamespace = to_regnamespace('ngx_pgq') and typrelid = 0 and typelem = 0
        )
        select name, owner::regrole, rolsuper as take, false as keep
          from object
          join pg_roles on pg_roles.oid = owner
         where not exists (select from pg_depend where classid = class and objid = id and deptype = 'e')
        union all
        select 'relation ' || oid::regclass, relowner::regrole, false, installed
          from pg_class
         where oid = to_regclass('public.posts')
    loop
        if found.owner = 'ngx_pgq_owner'::regrole then
            continue;
        elsif found.keep then
            raise warning '% belongs to role %, which remains its owner', found.name, found.owner;
        elsif found.take then
            raise warning '% belongs to role % and is given to ngx_pgq_owner', found.name, found.owner;
        else
            raise exception '% exists and belongs to role %', found.name, found.owner
                using errcode = 'duplicate_object',
                      hint = 'Rename it. Or, if it is meant for ngx_pgq, look at its triggers, rules and policies, and make ngx_pgq_owner its owner.';
        end if;
    end loop;
end
$$;
