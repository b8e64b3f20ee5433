-- ngx_pgq.removed: the greatest id of the posts that retention has deleted; 0 if there is none.
-- The first mover advances it before the commit of a deletion (settings ngx_pgq.keep_posts and ngx_pgq.keep_posts_for).
-- position() and follow() read it: a reader whose last post is older has missed posts.
--
-- It is a sequence, as that is one page without row versions: advancing it leaves nothing for vacuum, also if a snapshot is
-- held. It is replicated, and is part of a dump.

create sequence if not exists ngx_pgq.removed minvalue 0 start 0;

select format('alter sequence %s owner to ngx_pgq_owner', oid::regclass)
  from pg_class
 where oid = 'ngx_pgq.removed'::regclass and relowner <> 'ngx_pgq_owner'::regrole
\gexec
