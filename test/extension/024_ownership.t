# sql/install.sql, run by a superuser, takes nothing over that somebody else has laid, and neither it nor a function of
# ngx_pgq that a superuser calls runs code of the database's owner or of ngx_pgq_owner as superuser. What a default
# PostgreSQL grants to PUBLIC is not taken for granted.

use Pgq;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.databases = 'posts, other'\n")->start;

$pg->safe_psql('create role mallory createrole login; create role app login', database => 'postgres');

sub other   { return $pg->safe_psql($_[0], database => 'other', @_[1 .. $#_]) }
sub install { return $pg->psql(undef, database => 'other', file => Pgq::Host::top() . '/sql/install.sql') }

# A database of mallory's, with what he has laid there.
sub laid {
    my ($sql, $user) = @_;
    $pg->safe_psql($_, database => 'postgres') for 'drop database if exists other with (force)', 'create database other owner mallory';
    other('alter schema public owner to mallory');
    other($sql, user => $user // 'mallory');
}

# ---- refused
my $trigger = q{create function evil() returns trigger language plpgsql as 'begin alter role mallory superuser; return new; end'; create trigger evil before insert or delete on %s for each row execute function evil();};

for my $case (
    [ 'a schema', 'create schema ngx_pgq', qr/schema ngx_pgq exists and belongs to role mallory/ ],
    [ 'a queue with a trigger', 'create schema ngx_pgq; create table ngx_pgq.queue (at timestamptz, message_id uuid, slot smallint, data json) partition by list (slot); ' . sprintf($trigger, 'ngx_pgq.queue'), qr/ngx_pgq exists and belongs to role mallory/ ],
    [ 'posts', 'create table public.posts (id serial primary key, at timestamptz default now(), data jsonb, author text not null)', qr/relation public.posts exists and belongs to role mallory/ ],
    [ 'posts of a superuser', 'create table public.posts (id bigint, text text)', qr/relation public.posts exists and belongs to role postgres/, 'postgres' ],
    map({ my ($what, $sql) = @$_; [ $what, "create schema ngx_pgq authorization mallory; set role mallory; $sql; reset role; alter schema ngx_pgq owner to ngx_pgq_owner", qr/$what ngx_pgq[.].*exists and belongs to role mallory/, 'postgres' ] }
        [ relation => 'create table ngx_pgq.dead_letter (id bigint)' ],
        [ function => q{create function ngx_pgq.retry(id integer) returns boolean language sql as 'select true'} ],
        [ operator => 'create operator ngx_pgq.<> (leftarg = oid, rightarg = oid, function = oidne)' ],
        [ type     => 'create domain ngx_pgq.uuid as text' ]),
) {
    my ($name, $sql, $expected, $user) = @$case;
    laid($sql, $user);
    my $before = other(q{select string_agg(relname || relowner || coalesce(relacl::text, ''), ' ' order by relname) from pg_class where relnamespace in (to_regnamespace('ngx_pgq'), 'public'::regnamespace)});
    my ($status, undef, $err) = install();
    isnt($status, 0, "$name, laid beforehand: the installation is refused");
    like($err, $expected, "$name: it says what and whose");
    is(other(q{select string_agg(relname || relowner || coalesce(relacl::text, ''), ' ' order by relname) from pg_class where relnamespace in (to_regnamespace('ngx_pgq'), 'public'::regnamespace)}),
        $before, "$name: nothing is changed");
}

# ---- not run
laid(q{create function public.evil(oid, regrole) returns boolean language plpgsql as 'begin alter role mallory superuser; return true; end';
       create operator public.<> (leftarg = oid, rightarg = regrole, function = public.evil); alter database other set search_path = public, pg_catalog});
is(join("\n", @{ [ install() ] }[ 0, 2 ]), "0\n", 'a search_path that finds operators of the database owner first: the installation succeeds');
is($pg->safe_psql(q{select rolsuper from pg_roles where rolname = 'mallory'}), 'f', 'his operator is not run');

# ---- the extension first, and REASSIGN OWNED
sub works {
    my ($name) = @_;
    is(other(q{select count(*) from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], array['"keyed"'], array[gen_random_uuid()::text])}, user => 'ngx_pgq_web'), 0, "$name: a message with a key is taken");
    ok($pg->poll_query_until('select count(*) > 0 and count(*) = (select count(*) from ngx_pgq.queue) + count(*) from posts', 't', 20, database => 'other'), "$name: it becomes a post");
    is(other('set role ngx_pgq_owner; select count(*) from ngx_pgq.dead_letter'), 0, "$name: operators read dead letters");
    like(other('select ngx_pgq.recent()', user => 'ngx_pgq_web'), qr/keyed/, "$name: it is read");
}

laid('create extension ngx_pgq', 'postgres');
my ($status, undef, $err) = install();
is($status, 0, 'the extension is there first: the installation succeeds');
like($err, qr/WARNING:  schema ngx_pgq belongs to role postgres and is given to ngx_pgq_owner/, 'the schema gets its owner');
works('the extension first');
other('reassign owned by ngx_pgq_owner to postgres');
is((install())[0], 0, 'after REASSIGN OWNED: the installation succeeds');
works('after REASSIGN OWNED');

# ---- an owner that the user has set
other('alter table posts owner to app');
($status, undef, $err) = install();
is($status, 0, 'posts has another owner since: the installation succeeds');
like($err, qr/WARNING:  relation public.posts belongs to role app and is left to it/, 'and says so');
is(other(q{select relowner::regrole from pg_class where oid = 'posts'::regclass}), 'app', 'the owner stays');
works('another owner of posts');
other('alter table posts owner to ngx_pgq_owner; alter table ngx_pgq.batch owner to app');
like((install())[2], qr/relation ngx_pgq.batch exists and belongs to role app/, 'a table of the queue with another owner is refused');

# ---- nothing for PUBLIC
laid('revoke all on schema public from public; revoke connect on database other from public');
is((install())[0], 0, 'nothing is granted to PUBLIC: the installation succeeds');
works('nothing for PUBLIC');

# ---- whose triggers run as whom
$pg->safe_psql(q{
    create table ngx_pgq.who (op text, name text);
    alter table ngx_pgq.who owner to ngx_pgq_owner;
    create function ngx_pgq.note() returns trigger language plpgsql as $$ begin insert into ngx_pgq.who values (tg_argv[0], current_user); return coalesce(new, old); end $$;
    grant execute on function ngx_pgq.note() to public;
    alter table posts add constraint never check (data::text = '5');
    insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 5) as n;
    set role ngx_pgq_owner;
    create trigger note before delete on ngx_pgq.dead_letter for each row execute function ngx_pgq.note('row');
    create constraint trigger later after delete on ngx_pgq.dead_letter deferrable initially deferred for each row execute function ngx_pgq.note('later');
    create trigger note before insert on ngx_pgq.queue for each row execute function ngx_pgq.note('queue')});
ok($pg->poll_query_until('select count(*) from ngx_pgq.dead_letter', 4), 'four dead letters');
$pg->safe_psql('alter table posts drop constraint never; truncate ngx_pgq.who');
is($pg->safe_psql('select ngx_pgq.discard(min(id)) from ngx_pgq.dead_letter'), 't', 'a superuser discards one');
is($pg->safe_psql('select ngx_pgq.retry(min(id)) from ngx_pgq.dead_letter'), 't', 'and has one tried again');
is($pg->safe_psql('select ngx_pgq.retry_all()'), 2, 'and all');
is($pg->safe_psql(q{select string_agg(op || ' ' || name || ' ' || n, ', ' order by op) from (select op, name, count(*) as n from ngx_pgq.who group by op, name) as who}),
    'later ngx_pgq_owner 4, queue ngx_pgq_owner 3, row ngx_pgq_owner 4', "all triggers run as the tables' owner");
ok($pg->poll_query_until('select count(*) from posts', 4), 'what was tried again is posted');

$pg->safe_psql(q{set role ngx_pgq_owner; create constraint trigger later after insert on ngx_pgq.queue deferrable initially deferred for each row execute function ngx_pgq.note('queue later')});
my $enqueue = q{select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"deferred"'])};
like(($pg->psql($enqueue))[2], qr/cannot fire deferred trigger within security-restricted operation/, 'a deferred trigger of the queue is not run for a superuser');
is(($pg->psql($enqueue, user => 'ngx_pgq_web'))[0], 3, 'nginx has no rights on what it writes to');
$pg->safe_psql('grant insert on ngx_pgq.who to ngx_pgq_web');
is(($pg->psql($enqueue, user => 'ngx_pgq_web'))[0], 0, 'with them, nginx enqueues');
is($pg->safe_psql(q{select name from ngx_pgq.who where op = 'queue later'}), 'ngx_pgq_web', 'and its deferred trigger runs as it');

for my $name (qw(retry retry_all discard)) {
    is($pg->safe_psql(qq{select prosecdef, proconfig from pg_proc where oid = 'ngx_pgq.$name'::regproc}), 't|{"search_path=pg_catalog, pg_temp"}', "$name() has the owner's rights and a search_path of its own");
}

done_testing;
