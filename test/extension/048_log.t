# When posts refuses a message with an error that quotes it, neither the log nor the status shows the message.

use Pgq;

my $pg     = Pgq::Postgres->new(conf => "ngx_pgq.movers = 1\nlog_error_verbosity = verbose\n")->start;
my $card   = '4111-1111-1111-1111';
my $errors = sub { $pg->safe_psql('select sum(errors) from ngx_pgq.status') };

sub trigger {
    my ($body) = @_;

    return "create or replace function quoting() returns trigger language plpgsql as \$\$ $body \$\$;
        create or replace trigger quoting before insert on posts for each row execute function quoting()";
}

for my $case (
    (map { [ "RAISE with $_", trigger("begin raise exception 'card %', new.data::text using errcode = '$_'; end"), $_ ] }
            qw(P0001 23514 42501 53100 55000 57014 XX000 0A000 40001 58030 ZZ001)),
    [ 'EXECUTE of a name',         trigger(q{begin execute format('select * from %I', new.data::text); end}), '42P01' ],
    [ 'a syntax error of EXECUTE', trigger(q{begin execute 'select ' || (new.data::text); end}),             '42' ],
    [ 'a cast',                    trigger(q{begin perform (new.data::text)::int; end}),                     '22P02' ],
    (map { [ "a check that casts to $_->[0]", "alter table posts add constraint cast_check check ((data #>> '{}')::$_->[0] is not null)", $_->[1] ] }
            [ 'jsonpath', '42601' ], [ 'regclass', '42' ], [ 'tsquery', '42601' ], [ 'inet', '22P02' ], [ 'regrole', '42' ]),
) {
    my ($name, $add, $code) = @$case;
    my $before = $errors->();

    $pg->safe_psql($_) for $add, qq{insert into ngx_pgq.queue (data) values ('"[[$card <& "')};
    ok($pg->poll_query_until("select bool_or(last_error ~ 'SQLSTATE $code') and sum(errors) > $before or (select count(*) from ngx_pgq.dead_letter) > 0 from ngx_pgq.status", 't'),
        "$name: the status has the SQLSTATE, or there is a dead letter");
    unlike($pg->safe_psql('table ngx_pgq.status'), qr/4111-1111/, "$name: the status does not show the message");
    $pg->safe_psql($_) for 'drop trigger if exists quoting on posts', 'alter table posts drop constraint if exists cast_check',
        'select ngx_pgq.wait_until_drained()', 'truncate ngx_pgq.dead_letter, posts';
}

unlike(join('', grep { !/STATEMENT|insert into ngx_pgq\.queue \(data\) values/ } split /^/, $pg->log_since(0)), qr/4111-1111/, 'the log does not show the message');

# errors of the server keep their text
$pg->safe_psql('revoke insert on posts from ngx_pgq_owner, ngx_pgq_mover');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('1')});
ok($pg->poll_query_until(q{select bool_or(last_error ~ 'permission denied for table posts, SQLSTATE 42501') from ngx_pgq.status}, 't'), 'the status has the text of a missing right');

# an error of housekeeping names the step that failed
$pg->safe_psql('grant insert on posts to ngx_pgq_owner, ngx_pgq_mover');
$pg->safe_psql(qq{create function kept() returns trigger language plpgsql as \$\$ begin raise 'card $card'; end \$\$});
$pg->safe_psql("create trigger kept before truncate on ngx_pgq.queue_$_ execute function kept()") for 0 .. 3;
$pg->safe_psql('alter system set ngx_pgq.rotate_size = 128');
$pg->set('ngx_pgq.snapshot_grace' => 0);
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(repeat('x', 1000)) from generate_series(1, 1000)}) for 1 .. 2;
ok($pg->poll_query_until(q{select bool_or(last_error ~ '^housekeeping: failed while .*, SQLSTATE P0001$') from ngx_pgq.status}, 't'), 'the status says that a TRUNCATE failed')
    or diag($pg->safe_psql('table ngx_pgq.status'));
unlike(join('', grep { !/STATEMENT|create function/ } split /^/, $pg->log_since(0)) =~ s/insert into ngx_pgq\.queue \(data\) values.*//gr, qr/4111-1111/, 'the log does not show the text that a trigger raises');

done_testing;
