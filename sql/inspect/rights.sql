-- All rights, as the catalogs have them.

select coalesce(nullif(acl.grantee, 0)::regrole::text, 'public') as role, object.kind, object.name,
       string_agg(lower(acl.privilege_type), ', ' order by acl.privilege_type) as may
  from (select 'table' as kind, pg_class.oid::regclass::text as name, coalesce(relacl, acldefault('r', relowner)) as acl, relowner as owner
          from pg_class
         where relkind in ('r', 'p', 'v')
           and (relnamespace = 'ngx_pgq'::regnamespace or pg_class.oid = 'public.posts'::regclass)
        union all
        select 'function', pg_proc.oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)), proowner
          from pg_proc
         where pronamespace = 'ngx_pgq'::regnamespace
        union all
        select 'schema', nspname, coalesce(nspacl, acldefault('n', nspowner)), nspowner
          from pg_namespace
         where nspname in ('ngx_pgq', 'public')) as object,
       aclexplode(object.acl) as acl
 where acl.grantee <> object.owner
 group by 1, 2, 3
 order by 1, 2, 3;
