-- Warns if no movers serve this database, as messages would wait in the queue.

do $$
begin
    if not exists (select from ngx_pgq.status where database = current_database()) then
        raise warning 'no movers serve database %', quote_ident(current_database())
            using hint = 'Add it to ngx_pgq.databases, and reload the configuration.';
    end if;
exception
    when object_not_in_prerequisite_state then
        raise warning 'no movers serve database %', quote_ident(current_database())
            using hint = 'Load ngx_pgq via shared_preload_libraries, and add the database to ngx_pgq.databases.';
end
$$;
