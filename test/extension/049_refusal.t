# When the queue refuses a message with an error that quotes it, the log does not show the message. The sender gets the
# text that a trigger raises, and no other text that can contain the message.

use Pgq;

my $pg           = Pgq::Postgres->new(conf => "log_error_verbosity = verbose\nngx_pgq.movers = 0\n")->start;
my $card         = '4111-1111-1111-1111';
my $general_text = qr/a check, trigger or index of ngx_pgq\.queue rejects a message/;
my $keys         = 0;
my @calls        = (
    [ enqueue       => sub { "select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array[$_[0]])" } ],
    [ enqueue_keyed => sub { "select * from ngx_pgq.enqueue_keyed(gen_random_uuid(), array[gen_random_uuid()], array[$_[0]], array['k" . $keys++ . "'])" } ],
    [ enqueue_all   => sub { "select * from ngx_pgq.enqueue_all(gen_random_uuid(), gen_random_uuid(), array[$_[0]], null)" } ],
);

# Checks error and log of each function. nginx sends a message as a parameter; here it is in a setting, so that the
# statement, which is logged, does not contain it.
sub refused {
    my ($name, $sqlstate, $expected, $data) = @_;
    $data //= "[[$card <& ";

    for my $call (@calls) {
        my ($function, $sql) = @$call;
        my $position = length $pg->log_since(0);
        my ($status, $out, $err) = $pg->psql("\\set VERBOSITY verbose\n" . $sql->(q{current_setting('test.message')}) . ';',
            user => 'ngx_pgq_web', env => { PGOPTIONS => "-c test.message=" . (qq{"$data"} =~ s/([\\ ])/\\$1/gr) });

        like($err, qr/ERROR:  $sqlstate: /, "$name, $function: the error has SQLSTATE $sqlstate");
        like($err, $expected, "$name, $function: the sender gets the expected error text");
        unlike($err, qr/4111-1111/, "$name, $function: the sender does not get the message") if $expected eq $general_text;
        like($err, qr/^CONTEXT:  PL\/pgSQL function (?:public\.)?quoting\(\) line \d+ at [A-Za-z ]+$/m, "$name, $function: the context names the function of the trigger")
            if $name =~ /RAISE|EXECUTE|a cast/;
        my $log = substr $pg->log_since(0), $position;
        like($log, qr/$sqlstate/, "$name, $function: the log has the SQLSTATE");
        unlike($log, qr/4111-1111/, "$name, $function: the log does not show the message");
    }

    return;
}

sub trigger {
    my ($body, $how) = @_;

    $pg->safe_psql("create or replace function quoting() returns trigger language plpgsql as \$\$ $body \$\$;
        drop trigger if exists quoting on ngx_pgq.queue;
        create " . ($how // 'trigger quoting before insert on ngx_pgq.queue') . ' for each row execute function quoting()');
}

for my $sqlstate (qw(P0001 23514 42501 53100 55000 57014 XX000 0A000 40001 22023 ZZ001)) {
    trigger("begin raise exception 'card %', new.data::text using errcode = '$sqlstate', hint = new.data::text, detail = new.data::text; end");
    refused("RAISE with $sqlstate", $sqlstate, qr/card "\[\[4111-1111-1111-1111 <& "$/m);
}

trigger(q{begin raise exception 'card %', new.data::text; end},
    'constraint trigger quoting after insert on ngx_pgq.queue deferrable initially deferred');
refused('RAISE of a deferred trigger', 'P0001', qr/card "/);

for my $case (
    [ 'EXECUTE of a name',         q{begin execute format('select * from %I', new.data::text); end}, '42P01' ],
    [ 'a syntax error of EXECUTE', q{begin execute 'select ' || (new.data::text); end},             '42703' ],
    [ 'a cast',                    q{begin perform (new.data::text)::int; end},                     '22P02' ],
    [ 'a cast that is caught and raised again', q{begin perform (new.data::text)::int; exception when others then raise; end}, '22P02' ],
) {
    my ($name, $body, $sqlstate) = @$case;
    trigger($body);
    refused($name, $sqlstate, $general_text);
}

$pg->safe_psql('drop trigger quoting on ngx_pgq.queue');

for my $check ([ 'jsonpath', '42601' ], [ 'regclass', '42P01', $card ], [ 'tsquery', '42601' ], [ 'inet', '22P02' ], [ 'regrole', '42704', $card ]) {
    my ($type, $sqlstate, $data) = @$check;
    $pg->safe_psql(qq{alter table ngx_pgq.queue add constraint cast_check check ((data #>> '{}')::$type is not null)});
    refused("a check that casts to $type", $sqlstate, $general_text, $data);
    $pg->safe_psql('alter table ngx_pgq.queue drop constraint cast_check');
}

# errors that contain names only, and errors of the server, keep their text
$pg->safe_psql(q{alter table ngx_pgq.queue add constraint no_card check (data::text !~ '4111')});
refused('a check', '23514', qr/violates check constraint "no_card"/);
$pg->safe_psql('alter table ngx_pgq.queue drop constraint no_card');
trigger('begin return new; end');
$pg->safe_psql('revoke insert on ngx_pgq.queue from ngx_pgq_owner');
refused('a missing right', '42501', qr/permission denied for table queue/);
$pg->safe_psql('grant insert on ngx_pgq.queue to ngx_pgq_owner; drop trigger quoting on ngx_pgq.queue');
my ($status, $out, $err) = $pg->psql($calls[0][1]->("'1'"), user => 'ngx_pgq_web');
is("$status$err", '0', 'enqueue() accepts a message without the trigger');

done_testing;
