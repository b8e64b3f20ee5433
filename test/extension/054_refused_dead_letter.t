# When a trigger, index or CHECK of ngx_pgq.dead_letter refuses a dead letter, its message stays in the queue and other
# messages are moved.

use Pgq;

my $pg   = Pgq::Postgres->new(conf => "ngx_pgq.movers = 1\nngx_pgq.idle_interval = '1s'\n")->start;
my $more = 0;

sub others_pass {
    my ($name) = @_;
    my ($first, $last) = ($more + 1, $more + 300);

    $more = $last;
    $pg->safe_psql("insert into ngx_pgq.queue (data) select to_json(i) from generate_series($first, $last) i");
    ok($pg->poll_query_until("select count(*) from posts where data::text ~ '^[0-9]+\$' and data::text::int between $first and $last", 300), "$name: 300 other messages become posts");

    return;
}

sub restart_movers {
    my $movers = q{select count(*) from pg_stat_activity where backend_type ~ '^ngx_pgq mover'};

    for my $setting ('set ngx_pgq.movers = 0', 'reset ngx_pgq.movers') {
        $pg->safe_psql("alter system $setting; select pg_reload_conf()");
        ok($pg->poll_query_until($movers, $setting =~ /0/ ? 0 : 1), 'the number of movers is that of the setting');
    }

    return;
}

for my $case (
    [ 'a unique index', 'create unique index one on ngx_pgq.dead_letter (message_id)', 'drop index ngx_pgq.one', '23505, constraint one' ],
    [ 'a CHECK that cannot be computed', q{alter table ngx_pgq.dead_letter add constraint one check ((data #>> '{}')::jsonpath is null)},
        'alter table ngx_pgq.dead_letter drop constraint one', '42601' ],
    [ 'a trigger', q{create function alert() returns trigger language plpgsql as $$ begin raise 'card %', new.data; end $$;
        create trigger one before insert on ngx_pgq.dead_letter for each row execute function alert()}, 'drop function alert cascade', 'P0001' ],
    [ 'a deferred trigger', q{create function alert() returns trigger language plpgsql as $$ begin raise 'card %', new.data; end $$;
        create constraint trigger one after insert on ngx_pgq.dead_letter deferrable initially deferred for each row execute function alert()},
        'drop function alert cascade', 'P0001' ],
) {
    my ($name, $add, $drop, $reason) = @$case;

    $pg->safe_psql('alter table posts add constraint known unique (message_id)');
    $pg->safe_psql($add);
    my $id   = $pg->safe_psql('select gen_random_uuid()');
    my $refused = $name =~ /index/ ? 10 : 11;    # of 12 messages with one id, those that neither posts nor dead_letter accepts
    $pg->safe_psql("insert into ngx_pgq.queue (message_id, data) select '$id', '\"[[4111\"' from generate_series(1, 12)");
    others_pass($name);
    ok($pg->poll_query_until(q{select count(*) from ngx_pgq.queue}, $refused), "$name: the refused messages stay in the queue");
    is($pg->safe_psql("select count(*) from posts where message_id = '$id'"), 1, "$name: one message with the id is a post");
    is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 11 - $refused, "$name: only the accepted dead letters are in the table");
    like($pg->safe_psql("select last_error from ngx_pgq.status where last_error is not null"),
        qr/^ngx_pgq\.dead_letter refuses a message that posts refuses, and it stays in the queue \(SQLSTATE $reason\)/, "$name: the status has the reason");
    others_pass($name);

    $pg->safe_psql($drop);
    restart_movers() if $name ne 'a unique index';    # new movers retry the messages that the old ones skipped
    ok($pg->poll_query_until('select count(*) from ngx_pgq.dead_letter', 11, 60), "$name: all refused messages become dead letters when the table accepts them");
    ok($pg->wait_until_moved, "$name: no message stays in the queue when the table accepts dead letters");
    $pg->safe_psql('truncate ngx_pgq.dead_letter; alter table posts drop constraint known');
}

unlike($pg->log_since(0) =~ s/^.*STATEMENT.*$//gmr, qr/card|4111/, 'the log does not show a message');

# four movers, and more messages than a mover tries at once
$pg->set('ngx_pgq.movers' => 4);
$pg->safe_psql(q{alter table posts add check (data::text <> '"bad"'); alter table ngx_pgq.dead_letter add constraint one check (data::text <> '"bad"')});
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select '"bad"' from generate_series(1, 100)});
others_pass('four movers');
is($pg->safe_psql('select count(*) from ngx_pgq.queue'), 100, 'four movers: the refused messages stay in the queue');
$pg->safe_psql('alter table ngx_pgq.dead_letter drop constraint one');
ok($pg->poll_query_until('select count(*) from ngx_pgq.dead_letter', 100, 60), 'four movers: the messages become dead letters when the table accepts them');

done_testing;
