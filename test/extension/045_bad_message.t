# A message that fails while others are posted becomes a dead letter, even if the SQLSTATE is that of a server error. When
# all messages fail, they are retried and do not become dead letters, even if the SQLSTATE is that of a bad message.

use Pgq;

my $pg = Pgq::Postgres->new->start;

my $insert           = sub { $pg->safe_psql("insert into ngx_pgq.queue (data) values $_[0]") };
my $posted           = sub { $pg->poll_query_until("select count(*) from posts where data::text in ($_[0])", $_[1], 60) };
my $dead_letters_are = sub { $pg->poll_query_until("select coalesce(string_agg(sqlstate, ' ' order by id), '') from ngx_pgq.dead_letter", $_[0], 60) };
my $status_has       = sub { $pg->poll_query_until("select bool_or(last_error ~ '$_[0]') from ngx_pgq.status", 't') };
my $truncate         = sub { $pg->safe_psql('truncate posts, ngx_pgq.dead_letter') };
my $set_movers       = sub {
    $pg->safe_psql($_) for "alter system set ngx_pgq.movers = $_[0]", "alter system set ngx_pgq.batch_size = $_[1]";
    $pg->reload;
    $pg->poll_query_until('select count(*) from ngx_pgq.status where pid is not null', $_[0]);
};

# ---- a bad message with the SQLSTATE of a server error
for my $setting ([ 1, 1000 ], [ 4, 1000 ], [ 1, 1 ], [ 4, 2 ]) {
    my $name = "$setting->[0] movers, batches of $setting->[1]";

    $set_movers->(@$setting);
    $pg->safe_psql(q{alter table posts add constraint path check ((data->>'path') is null or (data->>'path')::jsonpath is not null)});
    $insert->(q{('{"path": "$.[[["}'), ('{"ok": 1}')});
    ok($posted->(q{'{"ok": 1}'}, 1), "$name: the message after one that raises a syntax error is posted");
    # Another mover may have posted the good message before the bad one was tried, so more good messages are inserted.
    ok((poll_until { $insert->(q{('{"ok": 2}')}); $pg->safe_psql('select count(*) from ngx_pgq.dead_letter') } 60), "$name: the message that raises a syntax error becomes a dead letter");
    is($pg->safe_psql('select string_agg(sqlstate, $$ $$) from ngx_pgq.dead_letter'), '42601', "$name: no other message becomes a dead letter");
    $pg->safe_psql('alter table posts drop constraint path');
    $truncate->();
}

$set_movers->(1, 1000);
for my $code (qw(0A000 25006 42501 53400 57014 XX000)) {
    $pg->safe_psql(qq{create or replace function refuse() returns trigger language plpgsql as \$\$
        begin if new.data::text = '"odd"' then raise exception 'odd' using errcode = '$code'; end if; return new; end \$\$});
    $pg->safe_psql('create or replace trigger refuse before insert on posts for each row execute function refuse()');
    $insert->(q{('"odd"')});
    ok($status_has->($code), "$code, alone: the status has the SQLSTATE");
    is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, "$code, alone: the message does not become a dead letter");
    $insert->(q{('"even 1"'), ('"even 2"')});
    ok($posted->(q{'"even 1"', '"even 2"'}, 2), "$code: other messages are posted");
    ok($dead_letters_are->($code), "$code: the message becomes a dead letter when others have been posted");
    $truncate->();
}
$pg->safe_psql('drop trigger refuse on posts');

# ---- a batch that is too large for a limit
$pg->safe_psql(q{create or replace function limit_rows() returns trigger language plpgsql as $$
    begin if (select count(*) from fresh) > 100 then raise exception 'too much at a time' using errcode = '53400'; end if; return null; end $$});
$pg->safe_psql('create trigger limit_rows after insert on posts referencing new table as fresh for each statement execute function limit_rows()');
$pg->safe_psql('select ngx_pgq.pause()');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json('bulk ' || i) from generate_series(1, 1000) as i});
$pg->safe_psql('select ngx_pgq.resume()');
ok($pg->poll_query_until(q{select count(*) from posts where data::text like '"bulk %'}, 1000, 120), 'the messages of a batch that is too large are moved in smaller batches');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'a batch that is too large makes no dead letter');
$pg->safe_psql('drop trigger limit_rows on posts');
$truncate->();

# ---- an error of the table with the SQLSTATE of a bad message
my @table = (
    [ 'the sequence is at its end', 'alter table posts alter column id type bigint; alter sequence posts_id_seq maxvalue 100000; select setval($$posts_id_seq$$, 100000)',
        'alter sequence posts_id_seq no maxvalue', '2200H', 0 ],
    [ 'the next ids are taken', 'insert into posts (id, at, message_id, data) select last_value + i, now(), gen_random_uuid(), $$0$$ from posts_id_seq, generate_series(2, 2000) as i',
        'delete from posts where data::text = $$0$$', '23505', 0 ],
    [ 'a column without a default', 'truncate posts; alter table posts add column author text; alter table posts add constraint author check (author is not null)', 'alter table posts drop column author', '23514', 20 ],
    [ 'a column that is not null', 'truncate posts; alter table posts add column author text not null', 'alter table posts drop column author', '23502', 0 ],
);

for my $case (@table) {
    my ($name, $break, $repair, $code, $limit) = @$case;

    $insert->(q{('"before"')});
    $posted->(q{'"before"'}, 1);
    $pg->safe_psql($break);
    $pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json('all ' || i) from generate_series(1, 50) as i});
    ok($status_has->($code), "$name: the status has the SQLSTATE");
    my $errors = $pg->safe_psql('select sum(errors) from ngx_pgq.status');
    $pg->poll_query_until("select sum(errors) > $errors + 2 from ngx_pgq.status", 't', 60);
    cmp_ok($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), '<=', $limit, "$name: at most $limit messages become dead letters");
    $pg->safe_psql($repair);
    $pg->safe_psql('select ngx_pgq.retry_all()');
    ok($pg->poll_query_until(q{select count(*) from posts where data::text like '"all %'}, 50, 60), "$name: all messages are posted when the table is repaired");
    $truncate->();
}

# ---- many bad messages do not stop the queue
$pg->safe_psql(q{alter table posts add constraint bad check (data::text not like '"bad%')});
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json('bad ' || i) from generate_series(1, 300) as i});
$insert->(q{('"good"')});
ok($posted->(q{'"good"'}, 1), 'a message after 300 bad ones is posted');
ok($pg->poll_query_until('select count(*) from ngx_pgq.dead_letter', 300, 60), '300 bad messages become dead letters');

done_testing;
