# P4, whose fault is an error? A message that fails while others are committed is refused with 400, whatever the SQLSTATE,
# and its neighbours get their 202; where everything fails, nobody is refused: 503, or 504.

use Pgq;

use IO::Select;
use Time::HiRes qw(time);

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', timeout => '20s')->start;

sub post_later {
    my ($client, $message) = @_;
    $client->send($client->request('POST', '/post', body => $message, headers => { 'Content-Type' => 'application/json' }));
    return $client;
}

# Sends these messages so that they travel in one batch: the only lane is held up until they wait. Then others pass by.
sub together {
    my (@messages) = @_;
    my $lock = $pg->session;
    $lock->query('begin; lock table ngx_pgq.batch');
    my $first = post_later(Pgq::Client->new($nginx), '"first"');
    $pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
    my @clients = map { post_later(Pgq::Client->new($nginx), $_) } @messages;
    Pgq::Client->new($nginx)->get('/nowhere');
    $lock->query('commit');
    $lock->quit;
    $first->answer;
    return @clients;
}

sub pass_by {
    my (@clients) = @_;
    my $end    = time + timeout(15);
    my $passed = 0;

    while (time < $end && (() = IO::Select->new(map { $_->{socket} } @clients)->can_read(0)) < @clients) {
        $passed += Pgq::Client->new($nginx)->post('/post', '"passes by"')->{status} == 202;
    }
    return $passed;
}

my $picky = sub {
    my ($code, $condition) = @_;
    $pg->safe_psql(qq{create or replace function picky() returns trigger language plpgsql as \$\$
        begin if $condition then raise exception 'not taken' using errcode = '$code'; end if; return new; end \$\$});
    $pg->safe_psql('create or replace trigger picky before insert on ngx_pgq.queue for each row execute function picky()');
};

# ---- a message's fault that looks like the database's
for my $code ('check', qw(54000 42601 0A000 53400 XX000 ZZ001 23502 2200H)) {
    if ($code eq 'check') {
        $pg->safe_psql(q{alter table ngx_pgq.queue add constraint path check ((data->>'path') is null or (data->>'path')::jsonpath is not null)});
    } else {
        $picky->($code, q{new.data->>'path' is not null});
    }

    my $start   = time;
    my %bad     = map { $_ => 1 } 3, 11, 17;
    my @clients = together(map { $bad{$_} ? "{\"path\": \"\$.[[$_\"}" : "{\"$code\": $_}" } 1 .. 20);
    pass_by(@clients);
    is(join(' ', map { $_->answer->{status} } @clients), join(' ', map { $bad{$_} ? 400 : 202 } 1 .. 20), "$code: each gets its own answer");
    cmp_ok(time - $start, '>=', 10, "$code, which may be the server's: after some time") if $code =~ /^(?:53|58|XX)/;

    $pg->safe_psql('alter table ngx_pgq.queue drop constraint if exists path; drop trigger if exists picky on ngx_pgq.queue');
    $pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
    is($pg->safe_psql("select count(*), count(distinct message_id) from posts where data->>'$code' is not null"), '17|17', "$code: what was accepted is there, once");
}
is($pg->safe_psql("select count(*) from posts where data->>'path' is not null"), 0, 'what was refused is not');

# ---- an error of the moment: nobody is refused, and the neighbours do not wait for it
for my $code (qw(55P03 57014 40001)) {
    $picky->($code, q{new.data->>'path' is not null});
    $nginx->configure(pool => 'lanes=1', timeout => '8s');
    $nginx->reload;
    my @clients = together(map { $_ == 7 ? '{"path": 7}' : "{\"moment $code\": $_}" } 1 .. 20);
    pass_by(@clients);
    is(join(' ', map { $_->answer->{status} } @clients), join(' ', map { $_ == 7 ? 503 : 202 } 1 .. 20), "$code: one is told to come again, its neighbours are taken");
    $pg->safe_psql('drop trigger picky on ngx_pgq.queue');
    $pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
    is($pg->safe_psql("select count(*), count(distinct message_id) from posts where data->>'moment $code' is not null"), '19|19', "$code: once");
}

# ---- nor do others, whatever the lanes
for my $lanes (1, 2) {
    $picky->('55P03', q{new.data->>'path' is not null});
    $nginx->configure(pool => "lanes=$lanes", timeout => '8s');
    $nginx->reload;
    my $position = $nginx->log_position;
    my @bad      = map { post_later(Pgq::Client->new($nginx), "{\"path\": $_}") } 1 .. 12;

    # it may be in one batch with them, and no other message is accepted meanwhile
    is(Pgq::Client->new($nginx)->post('/post', '"behind them"')->{status}, 202, "$lanes lanes: a message behind twelve with an error of the moment is accepted");

    my $slowest = 0;
    my $end     = time + 3;
    my %status;
    while (time < $end) {
        my $start = time;
        $status{ Pgq::Client->new($nginx)->post('/post', '"in the middle"')->{status} }++;
        $slowest = time - $start if time - $start > $slowest;
    }
    is(join(' ', keys %status), '202', "$lanes lanes: the next messages are accepted");
    cmp_ok($slowest, '<', timeout(1), "$lanes lanes: without delay") or diag("the slowest after $slowest s");
    like($nginx->log_since($position), qr/pgq batch: could not enqueue \d+ messages: 55P03/, "$lanes lanes: the log says so");
    unlike($nginx->log_since($position), qr/pgq lane: (?:lost|could not connect)/, "$lanes lanes: connections are kept");
    is(join(' ', map { $_->answer->{status} } @bad), join(' ', (503) x @bad), "$lanes lanes: those are told to come again");
    $pg->safe_psql('drop trigger picky on ngx_pgq.queue');
}

# ---- what everything meets is nobody's fault
for my $lanes (1, 2) {
    $nginx->configure(pool => "lanes=$lanes", timeout => '3s');
    $nginx->reload;

    for my $code (qw(54000 42601 XX000 ZZ001)) {
        is(Pgq::Client->new($nginx)->post('/post', '"before"')->{status}, 202, "$code, $lanes lanes: a message is taken");
        $picky->($code, 'true');
        my $position = $nginx->log_position;
        my $errors   = $pg->log_position;
        my @clients  = map { post_later(Pgq::Client->new($nginx), "{\"all\": $_}") } 1 .. 60;
        my %status;
        $status{ $_->answer->{status} }++ for @clients;
        # 504 is for what is on its way when its time is over
        is(($status{503} // 0) + ($status{504} // 0), 60, "$code, $lanes lanes: all are told to come again") or diag(explain(\%status));
        cmp_ok(scalar(() = $pg->log_since($errors) =~ /not taken/g), '<', 240, "$code, $lanes lanes: the database is not flooded");
        like($nginx->log_since($position), qr/pgq batch: could not enqueue \d+ messages: 54000/, "$code, $lanes lanes: the log says so") if $code eq '54000';
        unlike($nginx->log_since($position), qr/pgq lane: (?:lost|could not connect)/, "$code, $lanes lanes: connections are kept") if $code ne 'XX000';
        $pg->safe_psql('drop trigger picky on ngx_pgq.queue');
        is(Pgq::Client->new($nginx)->post('/post', '"after"')->{status}, 202, "$code, $lanes lanes: it goes on");
    }
}
is($pg->safe_psql("select count(*) from posts where data->>'all' is not null"), 0, 'nothing of that was taken');

# ---- nor is what somebody has done to the queue
$picky->('P0001', 'false');
for my $case (
    [ 'a column that is not null', 'alter table ngx_pgq.queue add column more integer not null', 'alter table ngx_pgq.queue drop column more' ],
    [ 'a sequence that has run out', q{create sequence few maxvalue 2; grant usage on sequence few to ngx_pgq_owner; select setval('few', 2);
        alter table ngx_pgq.queue add column more integer; alter table ngx_pgq.queue alter more set default nextval('few')}, 'alter table ngx_pgq.queue drop column more' ],
    [ 'leaves that were detached', (map { my $do = $_; join ';', map { "alter table ngx_pgq.queue $do partition ngx_pgq.queue_$_" . ($do eq 'attach' ? " for values in ($_)" : '') } 0 .. 3 } qw(detach attach)) ],
) {
    my ($name, $do, $undo) = @$case;
    $pg->safe_psql($do);
    is(Pgq::Client->new($nginx)->post('/post', '{"altered": 1}')->{status}, 503, "$name: a message is told to come again");
    $pg->safe_psql($undo);
    is(Pgq::Client->new($nginx)->post('/post', '"after"')->{status}, 202, "$name: undone, it goes on");
}
$pg->safe_psql('drop trigger picky on ngx_pgq.queue');
is($pg->safe_psql("select count(*) from posts where data->>'altered' is not null"), 0, 'nothing of that was taken');

# ---- many such messages do not hold up the others
for my $lanes (1, 2) {
    $nginx->configure(pool => "lanes=$lanes", timeout => '20s');
    $nginx->reload;
    $picky->('42601', q{new.data->>'path' is not null});
    my @bad     = map { post_later(Pgq::Client->new($nginx), "{\"path\": $_}") } 1 .. 300;
    my $slowest = 0;
    my $end     = time + timeout(15);
    my %status;

    while (time < $end && (() = IO::Select->new(map { $_->{socket} } @bad)->can_read(0)) < @bad) {
        my $start = time;
        $status{ Pgq::Client->new($nginx)->post('/post', '"in the middle"')->{status} }++;
        $slowest = time - $start if time - $start > $slowest;
    }
    is(join(' ', keys %status), 202, "$lanes lanes: good messages are accepted while 300 bad ones are tried");
    cmp_ok($slowest, '<', timeout(2), "$lanes lanes: without delay") or diag("the slowest after $slowest s");
    %status = ();
    $status{ $_->answer->{status} }++ for @bad;
    is(join(' ', %status), '400 300', "$lanes lanes: the bad ones are refused");
    $pg->safe_psql('drop trigger picky on ngx_pgq.queue');
}

# ---- one message alone, and nothing to compare it with
$picky->('54000', q{new.data->>'path' is not null});
is(Pgq::Client->new($nginx)->post('/post', '{"path": 1}')->{status}, 503, 'a message that fails alone, while nothing passes, is not refused');
is(Pgq::Client->new($nginx)->post('/post', '"good"')->{status}, 202, 'the next one passes');

# ---- a refusal is of what was sent: whoever is left of the batch is not refused for one who has gone
$nginx->configure(pool => 'lanes=1', timeout => '20s');
$nginx->reload;
for my $code (qw(23514 54000)) {
    $picky->($code, q{new.data->>'path' is not null and pg_advisory_xact_lock(7) is not null});
    my $gate = $pg->session;
    $gate->query('select pg_advisory_lock(7)');
    my ($bad, $good) = together('{"path": 1}', '"good"');
    ok($pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event = 'advisory'", 1), "$code: a batch of two is under way");
    $bad->close;
    Pgq::Client->new($nginx)->get('/nowhere') for 1 .. 3;
    $gate->query('select pg_advisory_unlock(7)');
    is($good->answer->{status}, 202, "$code: the client of the bad message leaves, and the other message is taken");
}

done_testing;
