# P4: a message that fails while others are committed is refused with 400, with any SQLSTATE, and the other messages of its
# batch are accepted. When every message fails, none is refused: they are answered with 503 or 504.

use Pgq;

use IO::Select;
use Time::HiRes qw(time);

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=2', timeout => '2s')->start;

# Sends these messages in one batch and returns their clients.
sub together {
    my (@messages) = @_;
    my ($first, @clients) = $nginx->post_in_one_batch(@messages);
    is($first->answer->{status}, 202, 'the message before the batch is accepted');
    return @clients;
}

# Posts other messages until these clients are answered.
sub post_until_answered {
    my (@clients) = @_;
    my $end = time + timeout(15);

    while (time < $end && (() = IO::Select->new(map { $_->{socket} } @clients)->can_read(0)) < @clients) {
        Pgq::Client->new($nginx)->post('/post', '"another"');
    }

    return;
}

my $refuse = sub {
    my ($code, $condition) = @_;
    $pg->safe_psql(qq{create or replace function refuse() returns trigger language plpgsql as \$\$
        begin if $condition then raise exception 'not taken' using errcode = '$code'; end if; return new; end \$\$});
    $pg->safe_psql('create or replace trigger refuse before insert on ngx_pgq.queue for each row execute function refuse()');
};

# Returns how many of these clients are answered with 503, or with 504 if the outcome is unknown at the timeout.
sub unavailable { return scalar grep { $_->answer->{status} =~ /^50[34]$/ } @_ }

# ---- every message fails, and none was accepted before, as it happens near transaction ID wraparound
$refuse->('54000', 'true');
is(unavailable(map { Pgq::Client->new($nginx)->send_post('/post', '"not now"') } 1 .. 10), 10, 'no message is refused with 400 while the database accepts no transactions');
$pg->safe_psql('drop trigger refuse on ngx_pgq.queue');
is(Pgq::Client->new($nginx)->post('/post', '"now"')->{status}, 202, 'a message is accepted when the database accepts transactions again');
ok($pg->poll_query_until(q{select string_agg(distinct data::text, ' ') from posts}, '"now"'), 'a message that is accepted after the recovery is a post');
$nginx->configure(pool => 'lanes=1', timeout => timeout(20) . 's');
$nginx->reload;

# ---- one message fails with an error that may be the server's
for my $code ('check', qw(54000 42601 0A000 53400 XX000 ZZ001 23502 2200H)) {
    if ($code eq 'check') {
        $pg->safe_psql(q{alter table ngx_pgq.queue add constraint path check ((data->>'path') is null or (data->>'path')::jsonpath is not null)});
    } else {
        $refuse->($code, q{new.data->>'path' is not null});
    }

    my $start   = time;
    my %bad     = map { $_ => 1 } 3, 11, 17;
    my @clients = together(map { $bad{$_} ? "{\"path\": \"\$.[[$_\"}" : "{\"$code\": $_}" } 1 .. 20);
    post_until_answered(@clients);
    is(join(' ', map { $_->answer->{status} } @clients), join(' ', map { $bad{$_} ? 400 : 202 } 1 .. 20), "$code: three messages are refused, the other messages of the batch are accepted");
    cmp_ok(time - $start, '>=', 10, "$code, which may be a failure of the server: messages are refused after some time") if $code =~ /^(?:53|58|XX)/;

    $pg->safe_psql('alter table ngx_pgq.queue drop constraint if exists path; drop trigger if exists refuse on ngx_pgq.queue');
    $pg->wait_until_moved;
    is($pg->safe_psql("select count(*), count(distinct message_id) from posts where data->>'$code' is not null"), '17|17', "$code: each accepted message is a post once");
}
is($pg->safe_psql("select count(*) from posts where data->>'path' is not null"), 0, 'no refused message is a post');

# ---- one message fails with a transient error
for my $code (qw(55P03 57014 40001)) {
    $refuse->($code, q{new.data->>'path' is not null});
    $nginx->configure(pool => 'lanes=1', timeout => '8s');
    $nginx->reload;
    my @clients = together(map { $_ == 7 ? '{"path": 7}' : "{\"moment $code\": $_}" } 1 .. 20);
    post_until_answered(@clients);
    is(join(' ', map { $_->answer->{status} } @clients), join(' ', map { $_ == 7 ? 503 : 202 } 1 .. 20), "$code: one message is answered with 503, the other messages of the batch are accepted");
    $pg->safe_psql('drop trigger refuse on ngx_pgq.queue');
    $pg->wait_until_moved;
    is($pg->safe_psql("select count(*), count(distinct message_id) from posts where data->>'moment $code' is not null"), '19|19', "$code: each accepted message of the batch is a post once");
}

# ---- many messages fail with a transient error
for my $lanes (1, 2) {
    $refuse->('55P03', q{new.data->>'path' is not null});
    $nginx->configure(pool => "lanes=$lanes", timeout => '8s');
    $nginx->reload;
    my $position = $nginx->log_position;
    my @bad      = map { Pgq::Client->new($nginx)->send_post('/post', "{\"path\": $_}") } 1 .. 12;

    # This message may be in a batch with the twelve while no other message is accepted.
    is(Pgq::Client->new($nginx)->post('/post', '"behind them"')->{status}, 202, "$lanes lanes: a message after twelve with a transient error is accepted");

    my $slowest = 0;
    my $end     = time + 3;
    my %status;
    while (time < $end) {
        my $start = time;
        $status{ Pgq::Client->new($nginx)->post('/post', '"in the middle"')->{status} }++;
        $slowest = time - $start if time - $start > $slowest;
    }
    is(join(' ', keys %status), '202', "$lanes lanes: messages are accepted while others fail with a transient error");
    cmp_ok($slowest, '<', timeout(1), "$lanes lanes: messages are accepted without delay while others fail with a transient error") or diag("the slowest after $slowest s");
    like($nginx->log_since($position), qr/pgq batch: could not enqueue \d+ messages: 55P03/, "$lanes lanes: the log has the transient error");
    unlike($nginx->log_since($position), qr/pgq lane: (?:lost|could not connect)/, "$lanes lanes: a transient error does not close the lanes");
    is(join(' ', map { $_->answer->{status} } @bad), join(' ', (503) x @bad), "$lanes lanes: the messages with a transient error are answered with 503");
    $pg->safe_psql('drop trigger refuse on ngx_pgq.queue');
}

# ---- every message fails
for my $lanes (1, 2) {
    $nginx->configure(pool => "lanes=$lanes", timeout => '3s');
    $nginx->reload;

    for my $code (qw(54000 42601 XX000 ZZ001)) {
        is(Pgq::Client->new($nginx)->post('/post', '"before"')->{status}, 202, "$code, $lanes lanes: a message is accepted before all fail");
        $refuse->($code, 'true');
        my $position = $nginx->log_position;
        my $errors   = $pg->log_position;
        is(unavailable(map { Pgq::Client->new($nginx)->send_post('/post', "{\"all\": $_}") } 1 .. 60), 60, "$code, $lanes lanes: no message is refused with 400 while all fail");
        cmp_ok(scalar(() = $pg->log_since($errors) =~ /not taken/g), '<', 240, "$code, $lanes lanes: the number of attempts is limited while all messages fail");
        like($nginx->log_since($position), qr/pgq batch: could not enqueue \d+ messages: 54000/, "$code, $lanes lanes: the log has the error of all messages") if $code eq '54000';
        unlike($nginx->log_since($position), qr/pgq lane: (?:lost|could not connect)/, "$code, $lanes lanes: the lanes stay connected while all messages fail") if $code ne 'XX000';
        $pg->safe_psql('drop trigger refuse on ngx_pgq.queue');
        is(Pgq::Client->new($nginx)->post('/post', '"after"')->{status}, 202, "$code, $lanes lanes: a message is accepted after all failed");
    }
}
is($pg->safe_psql("select count(*) from posts where data->>'all' is not null"), 0, 'no message of those that all failed is a post');

# ---- the table of the queue was altered
$refuse->('P0001', 'false');
for my $case (
    [ 'a new column that is not null', 'alter table ngx_pgq.queue add column more integer not null', 'alter table ngx_pgq.queue drop column more' ],
    [ 'a sequence that has reached its end', q{create sequence few maxvalue 2; grant usage on sequence few to ngx_pgq_owner; select setval('few', 2);
        alter table ngx_pgq.queue add column more integer; alter table ngx_pgq.queue alter more set default nextval('few')}, 'alter table ngx_pgq.queue drop column more' ],
    [ 'detached partitions', (map { my $do = $_; join ';', map { "alter table ngx_pgq.queue $do partition ngx_pgq.queue_$_" . ($do eq 'attach' ? " for values in ($_)" : '') } 0 .. 3 } qw(detach attach)) ],
) {
    my ($name, $do, $undo) = @$case;
    $pg->safe_psql($do);
    is(Pgq::Client->new($nginx)->post('/post', '{"altered": 1}')->{status}, 503, "$name: a message is answered with 503");
    $pg->safe_psql($undo);
    is(Pgq::Client->new($nginx)->post('/post', '"after"')->{status}, 202, "$name: a message is accepted after the change was reverted");
}
$pg->safe_psql('drop trigger refuse on ngx_pgq.queue');
is($pg->safe_psql("select count(*) from posts where data->>'altered' is not null"), 0, 'no message that failed because of an altered queue is a post');

# ---- many messages are refused
for my $lanes (1, 2) {
    $nginx->configure(pool => "lanes=$lanes", timeout => timeout(20) . 's');
    $nginx->reload;
    $refuse->('42601', q{new.data->>'path' is not null});
    my @bad     = map { Pgq::Client->new($nginx)->send_post('/post', "{\"path\": $_}") } 1 .. 300;
    my $slowest = 0;
    my $end     = time + timeout(15);
    my %status;

    while (time < $end && (() = IO::Select->new(map { $_->{socket} } @bad)->can_read(0)) < @bad) {
        my $start = time;
        $status{ Pgq::Client->new($nginx)->post('/post', '"in the middle"')->{status} }++;
        $slowest = time - $start if time - $start > $slowest;
    }
    is(join(' ', keys %status), 202, "$lanes lanes: messages are accepted while 300 others are refused");
    cmp_ok($slowest, '<', timeout(2), "$lanes lanes: messages are accepted without delay while 300 others are refused") or diag("the slowest after $slowest s");
    %status = ();
    $status{ $_->answer->{status} }++ for @bad;
    is(join(' ', %status), '400 300', "$lanes lanes: 300 messages are refused");
    $pg->safe_psql('drop trigger refuse on ngx_pgq.queue');
}

# ---- a single message fails while no other is posted
$refuse->('54000', q{new.data->>'path' is not null});
is(Pgq::Client->new($nginx)->post('/post', '{"path": 1}')->{status}, 503, 'a message that fails while no other is posted is answered with 503');
is(Pgq::Client->new($nginx)->post('/post', '"good"')->{status}, 202, 'a message is accepted after another one failed alone');

# ---- the client of a refused message closes its connection
$nginx->configure(pool => 'lanes=1', timeout => timeout(20) . 's');
$nginx->reload;
for my $code (qw(23514 54000)) {
    $refuse->($code, q{new.data->>'path' is not null and pg_advisory_xact_lock(7) is not null});
    my $gate = $pg->session;
    $gate->query('select pg_advisory_lock(7)');
    my ($bad, $good) = together('{"path": 1}', qq({"left": "$code"}));
    ok($pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'advisory'", 1), "$code: a batch of two messages is in flight");
    my $position = $nginx->log_position;
    $bad->close;
    $nginx->wait_for_log(qr/client prematurely closed connection/, $position);
    $gate->query('select pg_advisory_unlock(7)');
    is($good->answer->{status}, 202, "$code: a message is not refused for another one of its batch whose client has left");
    ok($pg->poll_query_until("select count(*) from posts where data->>'left' = '$code'", 1), "$code: the message that was in a batch with a refused one is a post once");
    is($pg->safe_psql("select count(*) from posts where data->>'path' is not null"), 0, "$code: the refused message whose client has left is not a post");
}

done_testing;
