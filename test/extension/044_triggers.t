# Movers run the triggers and rules of posts. These find the tables of schema public, and cannot change the settings of a
# mover, its commits or the order of ids. A NOTIFY that fails or waits does not stop a batch.

use Pgq;

my $version = Pgq::Host::pg_version();
my $pg      = Pgq::Postgres->new(conf => "track_commit_timestamp = on\n" . ($version >= 17 ? "max_notify_queue_pages = 64\n" : ''))->start;

my $insert = sub { $pg->safe_psql(qq{insert into ngx_pgq.queue (data) select to_json('$_[0] ' || i) from generate_series(1, $_[1]) as i}) };
my $moved  = sub { $pg->poll_query_until(qq{select count(*) from posts where data::text like '"$_[0] %'}, $_[1]) };

# ---- the search_path
$pg->safe_psql(q{
    create table audit (post bigint, path text, commit text);
    grant insert on audit to ngx_pgq_mover;
    create function note() returns trigger language plpgsql as $$
    begin
        insert into audit values (new.id, current_setting('search_path'), current_setting('synchronous_commit'));
        return new;
    end $$;
    create trigger note after insert on posts for each row execute function note()});
$insert->('named', 5);
ok($moved->('named', 5), 'a trigger may name a table of public without its schema');
is($pg->safe_psql('select distinct path from audit'), 'pg_catalog, public', 'the search_path of a trigger is pg_catalog, public');

# ---- settings
$pg->safe_psql(q{create or replace function note() returns trigger language plpgsql as $$
    begin
        insert into public.audit values (new.id, current_setting('search_path'), current_setting('synchronous_commit'));
        return new;
    end $$});
for my $kind ('', 'constraint') {
    my $when = $kind ? 'deferrable initially deferred' : '';
    $pg->safe_psql(qq{
        truncate audit;
        create or replace function change_settings() returns trigger language plpgsql as \$\$
        begin
            set synchronous_commit = off;
            set search_path = nowhere;
            set work_mem = '64kB';
            return new;
        end \$\$;
        create $kind trigger change_settings after insert on posts $when for each row execute function change_settings()});
    my $tag = $kind || 'plain';
    $insert->($tag, 20);
    ok($moved->($tag, 20), "$tag trigger: messages become posts while it changes settings");
    $pg->safe_psql('drop trigger change_settings on posts; truncate audit');
    $insert->("after $tag", 1);
    ok($moved->("after $tag", 1), "$tag trigger: the next message becomes a post");
    is($pg->safe_psql('select path, commit from audit'), 'pg_catalog, public|on', "$tag trigger: the next batch has the settings of the mover");
}

# triggers that fire when retention deletes posts
for my $kind ('', 'constraint') {
    my $when = $kind ? 'deferrable initially deferred' : '';
    my $tag  = $kind || 'plain';

    $pg->safe_psql("create $kind trigger change_settings after delete on posts $when for each row execute function change_settings()");
    $pg->set('ngx_pgq.keep_posts' => 1);
    ok($pg->poll_query_until('select count(*) from posts', 1), "$tag trigger on delete: old posts are deleted");
    $pg->set('ngx_pgq.keep_posts' => undef);
    $pg->safe_psql('drop trigger change_settings on posts; truncate audit');
    $insert->("kept $tag", 2);
    ok($moved->("kept $tag", 2), "$tag trigger on delete: the next messages become posts");
    is($pg->safe_psql('select distinct path, commit from audit'), 'pg_catalog, public|on', "$tag trigger on delete: the next batch has the settings of the mover");
}

# a trigger that would make the commit of its batch asynchronous
for my $kind ('', 'constraint') {
    my $when = $kind ? 'deferrable initially deferred' : '';
    my $tag  = $kind || 'plain';
    $pg->safe_psql("create $kind trigger change_settings after insert on posts $when for each row execute function change_settings()");
    $pg->set(synchronous_standby_names => 'missing');
    $pg->poll_query_until('show synchronous_standby_names', 'missing');
    $pg->psql(qq{set synchronous_commit = local; insert into ngx_pgq.queue (data) values ('"waits $tag 1"')});
    ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where wait_event = 'SyncRep' and backend_type = 'ngx_pgq mover'}, 1),
        "$tag trigger sets synchronous_commit = off: the commit waits for the standby");

    my ($status) = $pg->psql(q{set synchronous_commit = local; set statement_timeout = '20s'; notify others}, database => 'postgres');
    is($status, 0, "$tag trigger sets synchronous_commit = off: NOTIFY of another session does not wait");
    $pg->set(synchronous_standby_names => undef);
    ok($moved->("waits $tag", 1), "$tag trigger sets synchronous_commit = off: the message becomes a post when commits do not wait");
    $pg->safe_psql('drop trigger change_settings on posts');
}

# ---- a rule
$pg->safe_psql('create table copies (data json); grant insert on copies to ngx_pgq_owner; create rule copy as on insert to posts do also insert into copies values (new.data)');
$insert->('ruled', 10);
ok($moved->('ruled', 10), 'messages become posts when posts has a rule');
is($pg->safe_psql(q{select count(*) from copies where data::text like '"ruled %'}), 10, 'the rule is applied to each post');
$pg->safe_psql('drop rule copy on posts; drop table copies; drop trigger note on posts');

# ---- a sequence with a cache
$pg->safe_psql('alter system set ngx_pgq.movers = 4; alter system set ngx_pgq.batch_size = 5; alter sequence posts_id_seq cache 100; truncate posts; create table seen (id bigint, at timestamptz default clock_timestamp()); select pg_reload_conf()');
$pg->poll_query_until('select count(*) from ngx_pgq.status where pid is not null', 4);
$pg->safe_psql('select ngx_pgq.pause()');
$insert->('cached', 1200);
$pg->safe_psql('select ngx_pgq.resume()');
ok($moved->('cached', 1200), 'four movers move messages with a sequence that has a cache');
is($pg->safe_psql(q{select count(*) from posts as a join posts as b on b.id > a.id and pg_xact_commit_timestamp(b.xmin) < pg_xact_commit_timestamp(a.xmin)}), 0, 'ids are in commit order with a sequence that has a cache');

# ---- NOTIFY
my $reader = $pg->session;
$reader->query('listen ngx_pgq_posts');
$insert->('notified', 1);
ok($moved->('notified', 1), 'a message becomes a post while a session listens');
my $heard = '';
ok((poll_until { ($heard .= $reader->query('select 1')) =~ /"ngx_pgq_posts" with payload "(\d+)" received/ } 10), 'a session that listens is notified')
    or diag($heard);
is($heard =~ /payload "(\d+)"/ && $1, $pg->safe_psql('select max(id) from posts'), 'the payload is the id of the newest post');
$reader->quit;

if ($version >= 17) {
    my $holder = $pg->session;
    $holder->query('listen ngx_pgq_posts; begin; select 1');
    $pg->psql(q{do $$ begin for i in 1..200 loop perform pg_notify('x', repeat('x', 7900) || i); end loop; end $$}) for 1 .. 3;
    $insert->('full', 5);
    ok($moved->('full', 5), 'messages become posts while the queue of notifications is full');
    $holder->quit;
    ok($pg->wait_for_log(qr/too many notifications in the NOTIFY queue/), 'the log says that the queue of notifications is full');
    $insert->('again', 1);
    $moved->('again', 1);
}

# ---- the role of a mover
$pg->safe_psql(q{create role boss superuser login; alter system set ngx_pgq.role = 'boss'});
$pg->allow(qr/FATAL:  ngx_pgq mover/);
$pg->reload;
ok($pg->poll_query_until(q{select last_error from ngx_pgq.status where mover = 1}, 'role "boss" (setting ngx_pgq.role) is a superuser'), 'the status says that ngx_pgq.role is a superuser');
$insert->('refused', 1);
is($pg->safe_psql(q{select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover' and usename = 'boss' and state = 'active'}), 0, 'no mover works as a superuser');
$pg->set('ngx_pgq.role' => undef);
ok($moved->('refused', 1), 'the message is posted when ngx_pgq.role is reset');

# a role that becomes a superuser while its mover runs
$pg->safe_psql(q{create table was (super boolean);
    create function note_super() returns trigger language plpgsql as 'begin insert into public.was select rolsuper from pg_roles where rolname = current_user; return null; end';
    grant insert on was to ngx_pgq_mover;
    create trigger note_super after insert on posts for each row execute function note_super();
    alter role ngx_pgq_mover superuser});
$insert->('promoted', 1);
ok($pg->poll_query_until(q{select last_error from ngx_pgq.status where mover = 1}, 'role "ngx_pgq_mover" (setting ngx_pgq.role) is a superuser'), 'the status says that the role has become a superuser');
is($pg->safe_psql('select count(*) from was'), 0, 'no trigger has run as a superuser');
$pg->safe_psql('alter role ngx_pgq_mover nosuperuser');
$pg->reload;
ok($moved->('promoted', 1), 'the message is posted when the role is no superuser');
is($pg->safe_psql('select distinct super from was'), 'f', 'the trigger has run without the rights of a superuser');

done_testing;
