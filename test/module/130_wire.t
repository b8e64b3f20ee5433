# P1 and P2 on the wire: whatever happens to the connection between nginx and PostgreSQL, at whichever message, what was
# acknowledged is there once, what was refused is not, and what was neither is there at most once.

use Pgq;
use Pgq::Oracle;
use Pgq::Wire;

my $pg      = Pgq::Postgres->new->start;
$pg->safe_psql("alter role ngx_pgq_web set max_stack_depth = '200kB'");
my $wire    = Pgq::Wire->new($pg)->start;
my $nginx   = Pgq::Nginx->new(pg => $pg, conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=2', timeout => '60s')->start;
my @clients = map { Pgq::Client->new($nginx) } 1 .. 4;

my @front   = qw(Bind Describe Execute Sync);
my @back    = qw(BindComplete RowDescription DataRow CommandComplete ReadyForQuery);
my @connect = qw(Startup Authentication ParameterStatus BackendKeyData ReadyForQuery);
my @prepare = qw(Parse Sync ParseComplete ReadyForQuery);

# more levels than the database takes, though not more than nginx does
my $bad = '[' x 400 . ']' x 400;

# each message, and what its client was told
my (%told, %case, $count);

sub send_to {
    my ($client, $message) = @_;

    $client->send($client->request('POST', '/post', body => $message, headers => { 'Content-Type' => 'application/json' }));

    return;
}

# All clients post at once; what they are told. Options: bad (the last message is one that the database refuses).
sub post_all {
    my ($name, $crowd, %option) = @_;
    my @messages = map { '"message ' . ++$count . '"' } @$crowd;
    $messages[-1] = $bad if $option{bad};

    send_to($crowd->[$_], $messages[$_]) for 0 .. $#messages;
    my @status = map { my $answer = $_->answer(timeout => 60); $answer ? $answer->{status} : 'nothing' } @$crowd;
    @told{@messages} = @status;
    @case{@messages} = ($name) x @messages;

    return join ' ', @status;
}

# A plan that comes true, and yet each message is taken.
sub taken {
    my ($name, $step, %option) = @_;

    $wire->plan($step);
    $wire->cut if $option{reconnect};
    my $status = post_all($name, \@clients, %option);
    my $happened = (poll_until { $wire->happened } 10);
    my $expected = $option{bad} ? '202 202 202 400' : '202 202 202 202';

    ok($happened && $status eq $expected, $name) or diag("happened: $happened, answers: $status");

    return;
}

# A message on its own that is sent again, and as the same batch.
sub again {
    my ($name, @steps) = @_;

    $wire->plan(@steps);
    is(post_all($name, [ $clients[0] ]), 202, "$name: taken");
    my @sent = $wire->sent;
    ok(@sent == 2 && $sent[0] eq $sent[1], "$name: sent again under its own id") or diag("sent: @sent");

    return;
}

sub places {
    my ($in, @messages) = @_;

    return map { my $message = $_; map { { in => $in, $_ => $message } } qw(before after) } @messages;
}

sub words {
    my ($step) = @_;
    my ($when) = grep { $step->{$_} } qw(before after);

    return "$step->{do} $when $step->{in}'s $step->{$when}";
}

sub bad_if { return bad => scalar(grep { ($_ // '') eq "DataRow" } @{ $_[0] }{qw(before after)}) }

for my $place (places('enqueue', @front, @back)) {
    for my $do ({ do => 'cut' }, { do => 'leave' }, { do => 'hold', for => 0.05 }) {
        my $step = { %$place, %$do };
        taken(words($step), $step, bad_if($step));
    }
}

for my $message (@front, @back) {
    my $step = { in => 'enqueue', before => $message, do => 'break' };
    taken("the end in the middle of enqueue's $message", $step, bad_if($step));
}

for my $place (places('enqueue', qw(Bind Sync)), { in => 'enqueue', before => 'ReadyForQuery' }) {
    again(words($_), $_) for map { { %$place, do => $_ } } qw(cut leave);
}

# what was sent comes to the server when it has been sent again
for my $place (places('enqueue', @front)) {
    my $step = { %$place, do => 'leave', for => 0.25 };
    taken(words($step) . ' and arrive late', $step);
}

for my $place (places('connect', @connect), places('prepare', @prepare)) {
    for my $do ({ do => 'cut' }, { do => 'hold', for => 0.03 }) {
        my $step = { %$place, %$do };
        taken(words($step), $step, reconnect => 1);
    }
}

for my $first ([ enqueue => 'Bind' ], [ enqueue => 'BindComplete' ], [ prepare => 'Parse' ], [ connect => 'Authentication' ]) {
    my ($in, $message) = @$first;

    for my $size (undef, 1, 7) {
        my $step = { in => $in, before => $message, do => 'gather', size => $size, times => 2 };
        taken(words($step) . ', ' . ($size // 'all') . ' at a time', $step, reconnect => $in ne 'enqueue', bad => $in eq 'enqueue');
    }
}

# ---- what the server may say instead: nothing is committed, and the batch goes again
for my $answer (
    [ 'the server is told to end'                     => Pgq::Wire->error('57P01', 'ended', 'FATAL'), 1 ],
    [ 'the server is told to end, and is ready'       => Pgq::Wire->error('57P01', 'ended') . Pgq::Wire->ready ],
    [ 'a serialization failure'                       => Pgq::Wire->error('40001', 'again') . Pgq::Wire->ready ],
    [ 'the server is a standby'                       => Pgq::Wire->error('25006', 'read-only') . Pgq::Wire->ready ],
    [ 'the server has lost a connection of its own'   => Pgq::Wire->error('08006', 'lost') . Pgq::Wire->ready ],
    [ 'the data are refused, but only as a whole'     => Pgq::Wire->error('23514', 'no') . Pgq::Wire->ready ],
    [ 'an error, and then nothing more'               => Pgq::Wire->error('23514', 'no'), 1 ],
    [ 'an error at the commit, after the completion'  => Pgq::Wire->nothing . Pgq::Wire->error('40001', 'late') . Pgq::Wire->ready ],
    [ 'a completion, and then the end'                => Pgq::Wire->nothing, 1 ],
    [ 'a completion, in a transaction that stays open' => Pgq::Wire->nothing . Pgq::Wire->ready('T') ],
    [ 'a completion, in a transaction that has failed' => Pgq::Wire->nothing . Pgq::Wire->ready('E') ],
) {
    my ($name, $bytes, $end) = @$answer;
    # of a batch that is refused as a whole its halves are taken: there are two messages in it at least
    my $step = { in => 'enqueue', before => 'Bind', do => 'answer', bytes => $bytes, end => $end };

    $name =~ /as a whole/ ? refused_as_a_whole($name, $step) : taken($name, $step);
}

# The first batch holds up the only lane that is left until the others wait together.
sub refused_as_a_whole {
    my ($name, $step) = @_;
    my $lock = $pg->session;

    $lock->query('begin; lock table ngx_pgq.batch');
    my @held = map { Pgq::Client->new($nginx) } 1 .. 2;
    for my $n (1 .. 2) {
        send_to($held[ $n - 1 ], "\"$name, held $n\"");
        $pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", $n);
    }

    my @messages = map { "\"$name $_\"" } 1 .. @clients;
    send_to($clients[$_], $messages[$_]) for 0 .. $#messages;
    Pgq::Client->new($nginx)->get('/nowhere');
    $wire->plan($step);
    $lock->query('commit');
    $lock->quit;

    my @status = map { $_->answer->{status} } @clients, @held;
    is("@status", '202 202 202 202 202 202', $name);
    is($wire->happened, 1, "$name: once");
    @told{ @messages, map { "\"$name, held $_\"" } 1 .. 2 } = @status;

    return;
}

# ---- reading
for my $message (@front, @back) {
    $wire->plan({ in => 'recent', before => $message, do => 'cut' });
    is($clients[0]->get('/get')->{status}, 200, "cut before recent's $message: the posts come all the same");
    ok($wire->happened, 'after it has happened');
}

# ---- a WARNING after the statement's completion: a wait for a replica that was cut short. What comes before it is the
# statement's own, such as a trigger's or that the database needs a vacuum, and the batch is not sent a second time.
my $warning  = Pgq::Wire->warning('01000', 'canceling wait for synchronous replication');
my $position = $nginx->log_position;
my $warned   = time;

sub once {
    my ($name, @steps) = @_;

    $wire->plan(@steps);
    is(post_all($name, [ $clients[0] ]), 202, "$name: taken");
    is($wire->happened, scalar @steps, "$name: after it has happened");
    is(scalar(my @sent = $wire->sent), 1, "$name: sent once");

    return;
}

my @ways = ([ 'as it comes' ],
    map { [ ($_ // 'all') . ' at a time', { in => 'enqueue', before => 'BindComplete', do => 'gather', size => $_ } ] } undef, 1, 7);

for my $way (@ways) {
    my ($words, @gather) = @$way;

    for my $place ({ before => 'RowDescription' }, { before => 'DataRow' }) {
        my $step = { in => 'enqueue', %$place, do => 'insert', bytes => $warning };
        once('a WARNING before the completion: ' . words($step) . ", $words", @gather, $step);
    }

    for my $place ({ after => 'CommandComplete' }, { before => 'ReadyForQuery' }) {
        my $step = { in => 'enqueue', %$place, do => 'insert', bytes => $warning };
        my $name = 'a WARNING after the completion: ' . words($step) . ", $words";

        taken($name, $step);
        again($name, @gather, $step);
    }
}

my $lines = () = $nginx->log_since($position) =~ / warns: canceling wait/g;
cmp_ok($lines, '>', 0, 'WARNINGs are logged');
cmp_ok($lines, '<=', 2 * (1 + int((time - $warned) / 10)), 'a lane logs one in ten seconds');

# ---- several misfortunes in a row
$wire->plan(
    { in => 'enqueue', after  => 'Sync',            do => 'leave', for => 0.1 },
    { in => 'enqueue', before => 'ReadyForQuery',   do => 'cut', times => 3 },
    { in => 'enqueue', before => 'CommandComplete', do => 'insert', bytes => Pgq::Wire->warning('01000', 'not replicated') },
    { in => 'prepare', before => 'ParseComplete',   do => 'cut' },
    { in => 'enqueue', before => 'Bind',            do => 'answer', bytes => Pgq::Wire->error('40001', 'again') . Pgq::Wire->ready },
);
is(post_all('in a row', \@clients), '202 202 202 202', 'one thing after the other: all taken');
cmp_ok($wire->happened, '>=', 3, 'after it has happened');

$wire->plan;
is(post_all('afterwards', \@clients), '202 202 202 202', 'and all is well again');
ok((poll_until { !$wire->left && $wire->clients <= 3 } 10), 'no connection is left over');
is($nginx->leaked_lanes, undef, 'at the server neither');
undef @clients;
$nginx->stop;
$wire->stop;

# ---- a server that gives no answer until the time is over
my $ms       = 500 * ($ENV{PGQ_SLOW} || 1);
my $silent   = Pgq::Wire->new($pg)->start;
my $hurried  = Pgq::Nginx->new(name => 'hurried', pg => $pg, conninfo => $silent->conninfo(user => 'ngx_pgq_web'),
    pool => "lanes=2 connect_timeout=60s", timeout => "${ms}ms")->start;
my @hurried  = map { Pgq::Client->new($hurried) } 1 .. 4;

sub silence {
    my ($status, $name, $plan, %option) = @_;
    my @crowd = @hurried[ 0 .. ($option{crowd} // @hurried) - 1 ];

    $silent->plan(@$plan);
    $silent->cut if $option{reconnect};
    # who came when both lanes were silent was never sent
    my $expected = join ' ', $status, ($status == 504 ? '50[34]' : $status) x (@crowd - 1);
    like(post_all($name, \@crowd), qr/^$expected$/, "$name: $status");
    ok($silent->happened, "$name: it happened");
    $silent->plan;
    $silent->cut;
    # lanes that failed often in a row come back later than these clients would wait
    poll_until { $silent->clients == 2 } 10;
    is(post_all("after $name", \@hurried), '202 202 202 202', "$name: and on it goes");

    return;
}

# both lanes are there
poll_until { $silent->clients == 2 } 10;
is(post_all('in time', \@hurried), '202 202 202 202', 'in time');

for my $place (map { { in => 'enqueue', before => $_ } } qw(Bind Sync BindComplete CommandComplete ReadyForQuery)) {
    my $step = { %$place, do => 'hold', times => 0 };
    silence(504, 'for ever: ' . words($step), [$step]);
}

for my $place (map({ { in => 'connect', before => $_ } } qw(Startup Authentication ReadyForQuery)),
    map { { in => 'prepare', before => $_ } } qw(Parse ParseComplete ReadyForQuery)) {
    my $step = { %$place, do => 'hold', times => 0 };
    silence(503, 'for ever: ' . words($step), [$step], reconnect => 1);
}

my $again = { in => 'enqueue', before => 'Bind', do => 'answer', times => 0, bytes => Pgq::Wire->error('40001', 'again') . Pgq::Wire->ready };
silence(503, 'what is never taken', [$again]);
silence(504, 'what may have been taken, and then is not',
    [ { in => 'enqueue', after => 'Sync', do => 'leave' }, { %$again, nth => 2 } ], crowd => 1);

ok((poll_until { !$silent->left && $silent->clients <= 2 } 10), 'no connection is left over here');

# ---- the comparison
my $oracle = Pgq::Oracle->new(message => qr/(.*)/s);

for my $message (sort keys %told) {
    my $status = $told{$message};
    $oracle->told($message, { 202 => 'accepted', 504 => 'unknown' }->{$status} // 'refused', answer => join q{, }, $status, $case{$message} // ());
}
is(join("\n", $oracle->drain($pg)->read($pg, 'true')->complaints), '', 'acknowledged: there once; refused: not there; unknown: at most once');
cmp_ok(scalar(keys %told), '>', 400, 'of hundreds of messages');

done_testing;
