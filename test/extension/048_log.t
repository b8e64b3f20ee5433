# What a message holds is neither in the server's log nor in the status, whatever raises the error that quotes it.

use Pgq;

my $pg     = Pgq::Postgres->new(conf => "ngx_pgq.movers = 1\nlog_error_verbosity = verbose\n")->start;
my $card   = '4111-1111-1111-1111';
my $errors = sub { $pg->safe_psql('select sum(errors) from ngx_pgq.status') };

for my $case (
    (map { [ "RAISE with $_", qq{begin raise exception 'card %', new.data::text using errcode = '$_'; end}, $_ ] }
            qw(P0001 23514 42501 53100 55000 57014 XX000 0A000 40001 58030 ZZ001)),
    [ 'EXECUTE of a name',         q{begin execute format('select * from %I', new.data::text); end}, '42P01' ],
    [ 'a syntax error of EXECUTE', q{begin execute 'select ' || (new.data::text); end},             '42' ],
    [ 'a cast',                    q{begin perform (new.data::text)::int; end},                     '22P02' ],
) {
    my ($name, $body, $code) = @$case;

    $pg->safe_psql("create or replace function quoting() returns trigger language plpgsql as \$\$ $body \$\$");
    $pg->safe_psql('create or replace trigger quoting before insert on posts for each row execute function quoting()');
    my $before = $errors->();
    $pg->safe_psql(qq{insert into ngx_pgq.queue (data) values ('"$card"')});
    ok($pg->poll_query_until("select bool_or(last_error ~ 'SQLSTATE $code') and sum(errors) > $before or (select count(*) from ngx_pgq.dead_letter) > 0 from ngx_pgq.status", 't'), "$name: it is reported");
    unlike($pg->safe_psql('table ngx_pgq.status'), qr/4111-1111/, "$name: without the message");
    $pg->safe_psql('drop trigger quoting on posts');
    $pg->safe_psql('select ngx_pgq.wait_until_drained()');
    $pg->safe_psql('truncate ngx_pgq.dead_letter, posts');
}

for my $check ([ 'jsonpath', '42601' ], [ 'regclass', '42' ], [ 'tsquery', '42601' ], [ 'inet', '22P02' ], [ 'regrole', '42' ]) {
    my ($type, $code) = @$check;
    $pg->safe_psql(qq{alter table posts add constraint cast_check check ((data #>> '{}')::$type is not null)});
    my $before = $errors->();
    $pg->safe_psql(qq{insert into ngx_pgq.queue (data) values ('"[[$card <& "')});
    ok($pg->poll_query_until("select bool_or(last_error ~ 'SQLSTATE $code') and sum(errors) > $before or (select count(*) from ngx_pgq.dead_letter) > 0 from ngx_pgq.status", 't'), "a check that casts to $type: it is reported");
    unlike($pg->safe_psql('table ngx_pgq.status'), qr/4111-1111/, "a check that casts to $type: without the message");
    $pg->safe_psql('alter table posts drop constraint cast_check');
    $pg->safe_psql('select ngx_pgq.wait_until_drained()');
    $pg->safe_psql('truncate ngx_pgq.dead_letter, posts');
}

unlike(join('', grep { !/STATEMENT|insert into ngx_pgq\.queue \(data\) values/ } split /^/, $pg->log_since(0)), qr/4111-1111/, 'the log has nothing of it either');

# what the server says about itself is told
$pg->safe_psql('revoke insert on posts from ngx_pgq_owner, ngx_pgq_mover');
$pg->safe_psql(q{insert into ngx_pgq.queue (data) values ('1')});
ok($pg->poll_query_until(q{select bool_or(last_error ~ 'permission denied for table posts, SQLSTATE 42501') from ngx_pgq.status}, 't'), 'a missing right is told in words');

# a chore that fails is named by what it is (a TRUNCATE is no post that is not let go)
$pg->safe_psql('grant insert on posts to ngx_pgq_owner, ngx_pgq_mover');
$pg->safe_psql(qq{create function kept() returns trigger language plpgsql as \$\$ begin raise 'card $card'; end \$\$});
$pg->safe_psql("create trigger kept before truncate on ngx_pgq.queue_$_ execute function kept()") for 0 .. 3;
$pg->safe_psql('alter system set ngx_pgq.rotate_size = 128');
$pg->safe_psql('alter system set ngx_pgq.snapshot_grace = 0');
$pg->reload;
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(repeat('x', 1000)) from generate_series(1, 1000)}) for 1 .. 2;
ok($pg->poll_query_until(q{select bool_or(last_error ~ '^housekeeping: failed at .*, SQLSTATE P0001$') from ngx_pgq.status}, 't'), 'a TRUNCATE that fails is told as one')
    or diag($pg->safe_psql('table ngx_pgq.status'));
unlike(join('', grep { !/STATEMENT|create function/ } split /^/, $pg->log_since(0)) =~ s/insert into ngx_pgq\.queue \(data\) values.*//gr, qr/4111-1111/, 'without the words of the trigger');

done_testing;
