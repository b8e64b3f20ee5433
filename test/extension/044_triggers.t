# What people add to posts runs inside the movers: it sees public, it cannot change how the mover works or commits, and
# it does not break the order of ids. Telling readers cannot hold up or undo a batch.

use Pgq;

my $version = Pgq::Host::pg_version();
my $pg      = Pgq::Postgres->new(conf => "track_commit_timestamp = on\n" . ($version >= 17 ? "max_notify_queue_pages = 64\n" : ''))->start;

my $insert = sub { $pg->safe_psql(qq{insert into ngx_pgq.queue (data) select to_json('$_[0] ' || i) from generate_series(1, $_[1]) as i}) };
my $moved  = sub { $pg->poll_query_until(qq{select count(*) from posts where data::text like '"$_[0] %'}, $_[1]) };

# ---- names
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
ok($moved->('named', 5), 'a trigger that names a table of public works');
is($pg->safe_psql('select distinct path from audit'), 'pg_catalog, public', 'its search_path');

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
        create or replace function careless() returns trigger language plpgsql as \$\$
        begin
            set synchronous_commit = off;
            set search_path = nowhere;
            set work_mem = '64kB';
            return new;
        end \$\$;
        create $kind trigger careless after insert on posts $when for each row execute function careless()});
    my $tag = $kind || 'plain';
    $insert->($tag, 20);
    ok($moved->($tag, 20), "$tag trigger: it sets what it likes");
    $pg->safe_psql('drop trigger careless on posts; truncate audit');
    $insert->("after $tag", 1);
    ok($moved->("after $tag", 1), "$tag trigger: the next batch");
    is($pg->safe_psql('select path, commit from audit'), 'pg_catalog, public|on', "$tag trigger: has the mover's settings again");
}

# housekeeping runs what people add as well: removing old posts fires their triggers
for my $kind ('', 'constraint') {
    my $when = $kind ? 'deferrable initially deferred' : '';
    my $tag  = $kind || 'plain';

    $pg->safe_psql("create $kind trigger careless after delete on posts $when for each row execute function careless()");
    $pg->safe_psql('alter system set ngx_pgq.keep_posts = 1');
    $pg->reload;
    ok($pg->poll_query_until('select count(*) from posts', 1), "$tag trigger on delete: posts are removed");
    $pg->safe_psql('alter system reset ngx_pgq.keep_posts');
    $pg->reload;
    $pg->safe_psql('drop trigger careless on posts; truncate audit');
    $insert->("kept $tag", 2);
    ok($moved->("kept $tag", 2), "$tag trigger on delete: the next batch");
    is($pg->safe_psql('select distinct path, commit from audit'), 'pg_catalog, public|on', "$tag trigger on delete: has the mover's settings");
}

# the commit of that very batch waits for its standby
for my $when ('', 'deferrable initially deferred') {
    my $kind = $when ? 'constraint' : '';
    $pg->safe_psql("create $kind trigger careless after insert on posts $when for each row execute function careless()");
    $pg->safe_psql(q{alter system set synchronous_standby_names = 'gone'});
    $pg->reload;
    $pg->poll_query_until('show synchronous_standby_names', 'gone');
    $pg->psql(qq{set synchronous_commit = local; insert into ngx_pgq.queue (data) values ('"waits$when 1"')});
    ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where wait_event = 'SyncRep' and backend_type = 'ngx_pgq mover'}, 1),
        "a trigger ($when) that turns synchronous_commit off: the batch waits for the standby all the same");

    # and meanwhile it is in nobody's way
    my ($status) = $pg->psql(q{set synchronous_commit = local; set statement_timeout = '20s'; notify others}, database => 'postgres');
    is($status, 0, 'NOTIFY of others does not wait for the batch');
    $pg->safe_psql('alter system reset synchronous_standby_names');
    $pg->reload;
    ok($moved->("waits$when", 1), 'it is committed when there is nothing to wait for');
    $pg->safe_psql('drop trigger careless on posts');
}

# ---- a rule
$pg->safe_psql('create table copies (data json); grant insert on copies to ngx_pgq_owner; create rule copy as on insert to posts do also insert into copies values (new.data)');
$insert->('ruled', 10);
ok($moved->('ruled', 10), 'posts with a rule');
is($pg->safe_psql(q{select count(*) from copies where data::text like '"ruled %'}), 10, 'which was followed');
$pg->safe_psql('drop rule copy on posts; drop table copies; drop trigger note on posts');

# ---- a sequence that hands out ids in stocks
$pg->safe_psql('alter system set ngx_pgq.movers = 4; alter system set ngx_pgq.batch_size = 5; alter sequence posts_id_seq cache 100; truncate posts; create table seen (id bigint, at timestamptz default clock_timestamp())');
$pg->reload;
$pg->poll_query_until('select count(*) from ngx_pgq.status where pid is not null', 4);
$pg->safe_psql('select ngx_pgq.pause()');
$insert->('stock', 1200);
$pg->safe_psql('select ngx_pgq.resume()');
ok($moved->('stock', 1200), 'four movers and a sequence with a cache');
is($pg->safe_psql(q{select count(*) from posts as a join posts as b on b.id > a.id and pg_xact_commit_timestamp(b.xmin) < pg_xact_commit_timestamp(a.xmin)}), 0, 'ids go up in commit order');

# ---- readers
my $reader = $pg->session;
$reader->query('listen ngx_pgq_posts');
$insert->('told', 1);
ok($moved->('told', 1), 'a post');
ok((poll_until { $reader->query('select 1'); $reader->notified } 10), 'of which a reader is told') if $reader->can('notified');
$reader->quit;

if ($version >= 17) {
    my $holder = $pg->session;
    $holder->query('listen ngx_pgq_posts; begin; select 1');
    $pg->psql(q{do $$ begin for i in 1..200 loop perform pg_notify('x', repeat('x', 7900) || i); end loop; end $$}) for 1 .. 3;
    $insert->('full', 5);
    ok($moved->('full', 5), 'messages become posts while the queue of notifications is full');
    $holder->quit;
    ok($pg->wait_for_log(qr/too many notifications in the NOTIFY queue/), 'which is said');
    $insert->('again', 1);
    $moved->('again', 1);
}

# ---- who the mover is
$pg->safe_psql(q{create role boss superuser login; alter system set ngx_pgq.role = 'boss'});
$pg->allow(qr/FATAL:  ngx_pgq mover/);
$pg->reload;
ok($pg->poll_query_until(q{select last_error from ngx_pgq.status where mover = 1}, 'role "boss" (setting ngx_pgq.role) is a superuser'), 'a superuser is refused, and the status says so');
$insert->('refused', 1);
is($pg->safe_psql(q{select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover' and usename = 'boss' and state = 'active'}), 0, 'it moves nothing');
$pg->safe_psql(q{alter system reset ngx_pgq.role});
$pg->reload;
ok($moved->('refused', 1), 'with the right role all goes on');

# one that becomes a superuser while its mover runs
$pg->safe_psql(q{create table was (super boolean);
    create function note_super() returns trigger language plpgsql as 'begin insert into public.was select rolsuper from pg_roles where rolname = current_user; return null; end';
    grant insert on was to ngx_pgq_mover;
    create trigger note_super after insert on posts for each row execute function note_super();
    alter role ngx_pgq_mover superuser});
$insert->('promoted', 1);
ok($pg->poll_query_until(q{select last_error from ngx_pgq.status where mover = 1}, 'role "ngx_pgq_mover" (setting ngx_pgq.role) is a superuser'), 'a role that becomes a superuser is refused');
is($pg->safe_psql('select count(*) from was'), 0, 'and no trigger has run as superuser');
$pg->safe_psql('alter role ngx_pgq_mover nosuperuser');
$pg->reload;
ok($moved->('promoted', 1), 'when it is none any more, the message is moved');
is($pg->safe_psql('select distinct super from was'), 'f', 'without its rights');

done_testing;
