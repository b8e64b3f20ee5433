# sql/install.sql refuses objects of other owners. When a superuser runs it or calls a function of ngx_pgq, code of the
# database owner or of ngx_pgq_owner does not run as a superuser. ngx_pgq needs no grants to PUBLIC.

use Pgq;
use Pgq::Host qw(pg_version);

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.databases = 'posts, other'\n")->start;

$pg->safe_psql('create role mallory createrole login; create role app login', database => 'postgres');

sub other   { return $pg->safe_psql($_[0], database => 'other', @_[1 .. $#_]) }
sub install { return $pg->psql(undef, database => 'other', file => Pgq::Host::top() . '/sql/install.sql') }

# Creates the database again, with role mallory as its owner, and objects in it.
sub create_other {
    my ($sql, $user) = @_;
    $pg->safe_psql($_, database => 'postgres') for 'drop database if exists other with (force)', 'create database other owner mallory';
    other('alter schema public owner to mallory');
    other($sql, user => $user // 'mallory');
}

# ---- the installation is refused
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
    create_other($sql, $user);
    my $before = other(q{select string_agg(relname || relowner || coalesce(relacl::text, ''), ' ' order by relname) from pg_class where relnamespace in (to_regnamespace('ngx_pgq'), 'public'::regnamespace)});
    my ($status, undef, $err) = install();
    isnt($status, 0, "$name exists: the installation is refused");
    like($err, $expected, "$name exists: the error names the object and its owner");
    is(other(q{select string_agg(relname || relowner || coalesce(relacl::text, ''), ' ' order by relname) from pg_class where relnamespace in (to_regnamespace('ngx_pgq'), 'public'::regnamespace)}),
        $before, "$name exists: no table is changed");
}

# ---- an operator in the search_path
create_other(q{create function public.evil(oid, regrole) returns boolean language plpgsql as 'begin alter role mallory superuser; return true; end';
       create operator public.<> (leftarg = oid, rightarg = regrole, function = public.evil); alter database other set search_path = public, pg_catalog});
is(join("\n", @{ [ install() ] }[ 0, 2 ]), "0\n", 'the installation succeeds when the search_path has operators of the database owner');
is($pg->safe_psql(q{select rolsuper from pg_roles where rolname = 'mallory'}), 'f', 'the installation does not run an operator of the database owner');

# ---- CREATE EXTENSION before the installation, and REASSIGN OWNED
sub queue_works {
    my ($name) = @_;
    is(other(q{select count(*) from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], array['"keyed"'], array[gen_random_uuid()::text])}, user => 'ngx_pgq_web'), 0, "$name: a message with a key is enqueued");
    ok($pg->poll_query_until('select count(*) > 0 and count(*) = (select count(*) from ngx_pgq.queue) + count(*) from posts', 't', 20, database => 'other'), "$name: the message becomes a post");
    is(other('set role ngx_pgq_owner; select count(*) from ngx_pgq.dead_letter'), 0, "$name: ngx_pgq_owner reads dead letters");
    like(other('select ngx_pgq.recent()', user => 'ngx_pgq_web'), qr/keyed/, "$name: ngx_pgq_web reads the post");
}

create_other('create extension ngx_pgq', 'postgres');
my ($status, undef, $err) = install();
is($status, 0, 'the installation succeeds after CREATE EXTENSION');
like($err, qr/WARNING:  schema ngx_pgq belongs to role postgres and is given to ngx_pgq_owner/, 'the installation gives the schema of the extension to ngx_pgq_owner');
queue_works('after CREATE EXTENSION');
other('reassign owned by ngx_pgq_owner to postgres');
is((install())[0], 0, 'the installation succeeds after REASSIGN OWNED');
queue_works('after REASSIGN OWNED');

# ---- tables whose owner was changed
other('alter table posts owner to app');
($status, undef, $err) = install();
is($status, 0, 'the installation succeeds when posts has got another owner');
like($err, qr/WARNING:  relation public.posts belongs to role app, which remains its owner/, 'the installation warns that posts has another owner');
is(other(q{select relowner::regrole from pg_class where oid = 'posts'::regclass}), 'app', 'the installation keeps the owner of posts');
queue_works('posts with another owner');
other('alter table posts owner to ngx_pgq_owner; alter table ngx_pgq.batch owner to app');
like((install())[2], qr/relation ngx_pgq.batch exists and belongs to role app/, 'the installation refuses a table of ngx_pgq with another owner');

# ---- no grants to PUBLIC
create_other('revoke all on schema public from public; revoke connect on database other from public');
is((install())[0], 0, 'the installation succeeds without grants to PUBLIC');
queue_works('without grants to PUBLIC');

# ---- the roles as which triggers run
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
ok($pg->poll_query_until('select count(*) from ngx_pgq.dead_letter', 4), 'posts refuses four messages');
$pg->safe_psql('alter table posts drop constraint never; truncate ngx_pgq.who');
is($pg->safe_psql('select ngx_pgq.discard(min(id)) from ngx_pgq.dead_letter'), 't', 'a superuser discards a dead letter');
is($pg->safe_psql('select ngx_pgq.retry(min(id)) from ngx_pgq.dead_letter'), 't', 'a superuser retries a dead letter');
is($pg->safe_psql('select ngx_pgq.retry_all()'), 2, 'a superuser retries all dead letters');
is($pg->safe_psql(q{select string_agg(op || ' ' || name || ' ' || n, ', ' order by op) from (select op, name, count(*) as n from ngx_pgq.who group by op, name) as who}),
    'later ngx_pgq_owner 4, queue ngx_pgq_owner 3, row ngx_pgq_owner 4', "all triggers run as the owner of the tables");
ok($pg->poll_query_until('select count(*) from posts', 4), 'the retried dead letters become posts');

$pg->safe_psql(q{set role ngx_pgq_owner; create constraint trigger later after insert on ngx_pgq.queue deferrable initially deferred for each row execute function ngx_pgq.note('queue later')});
my $enqueue = q{select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"deferred"'])};
like(($pg->psql($enqueue))[2], qr/cannot fire deferred trigger within security-restricted operation/, 'enqueue() of a superuser does not run a deferred trigger of the queue');
# From PostgreSQL 18 on it runs with the rights of the role that has inserted.
my $late = pg_version() < 18 ? 'ngx_pgq_web' : 'ngx_pgq_owner';
is(($pg->psql($enqueue, user => 'ngx_pgq_web'))[0], $late eq 'ngx_pgq_web' ? 3 : 0, 'enqueue() of ngx_pgq_web, without rights on the table of the deferred trigger');
$pg->safe_psql('grant insert on ngx_pgq.who to ngx_pgq_web');
is(($pg->psql($enqueue, user => 'ngx_pgq_web'))[0], 0, 'enqueue() succeeds when ngx_pgq_web has rights on that table');
is($pg->safe_psql(q{select distinct name from ngx_pgq.who where op = 'queue later'}), $late, "the deferred trigger runs as $late");

for my $name (qw(retry retry_all discard)) {
    is($pg->safe_psql(qq{select prosecdef, proconfig from pg_proc where oid = 'ngx_pgq.$name'::regproc}), 't|{"search_path=pg_catalog, pg_temp"}', "$name() is a security definer with a fixed search_path");
}

done_testing;
