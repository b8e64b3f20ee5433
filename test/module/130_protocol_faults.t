# P1 and P2: whenever the connection between nginx and PostgreSQL fails, before or after any message of the protocol, each
# acknowledged message is in posts once, each refused one is not, one of unknown outcome at most once.

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

# With its max_stack_depth the database refuses this message, which nginx accepts.
my $bad = '[' x 400 . ']' x 400;

my $oracle  = Pgq::Oracle->new(message => qr/\A(.*)\z/s);
my %outcome = (202 => 'accepted', 504 => 'unknown');
my $count   = 0;

# Posts a message from each client at the same time. Returns the statuses. Options: bad (the database refuses the last message).
sub post_all {
    my ($name, $group, %option) = @_;
    my @messages = map { '"message ' . ++$count . '"' } @$group;
    $messages[-1] = $bad if $option{bad};

    $group->[$_]->send_post('/post', $messages[$_]) for 0 .. $#messages;
    my @status = map { my $answer = $_->answer(timeout => 60); $answer ? $answer->{status} : 'nothing' } @$group;
    $oracle->told($messages[$_], $outcome{ $status[$_] } // 'refused', answer => "$name: $status[$_]") for 0 .. $#status;

    return join ' ', @status;
}

# Checks that the step is executed, and that each message is accepted.
sub accepted {
    my ($name, $step, %option) = @_;

    $wire->plan($step);
    $wire->cut if $option{reconnect};
    my $status = post_all($name, \@clients, %option);
    my $happened = (poll_until { $wire->happened } 10);
    my $expected = $option{bad} ? '202 202 202 400' : '202 202 202 202';

    ok($happened && $status eq $expected, "$name: each message is answered") or diag("happened: $happened, answers: $status");

    return;
}

# Checks that a single message is sent again in the same batch.
sub sent_again {
    my ($name, @steps) = @_;

    $wire->plan(@steps);
    is(post_all($name, [ $clients[0] ]), 202, "$name: the message is accepted");
    my @sent = $wire->sent;
    ok(@sent == 2 && $sent[0] eq $sent[1], "$name: the batch is sent again under its own id") or diag("sent: @sent");

    return;
}

sub before_and_after {
    my ($in, @messages) = @_;

    return map { my $message = $_; map { { in => $in, $_ => $message } } qw(before after) } @messages;
}

my %done = (
    cut    => 'the connection is cut',
    leave  => "nginx's side of the connection is closed",
    hold   => 'the connection stalls',
    gather => 'bytes are gathered from',
    insert => 'bytes are inserted',
);

sub description {
    my ($step) = @_;
    my ($when) = grep { $step->{$_} } qw(before after);

    return "$done{ $step->{do} } $when $step->{$when} of $step->{in}";
}

sub bad_if { return bad => scalar(grep { ($_ // '') eq "DataRow" } @{ $_[0] }{qw(before after)}) }

for my $place (before_and_after('enqueue', @front, @back)) {
    for my $do ({ do => 'cut' }, { do => 'leave' }, { do => 'hold', for => 0.05 }) {
        my $step = { %$place, %$do };
        accepted(description($step), $step, bad_if($step));
    }
}

for my $message (@front, @back) {
    my $step = { in => 'enqueue', before => $message, do => 'break' };
    accepted("the connection is closed in the middle of $message of enqueue", $step, bad_if($step));
}

for my $place (before_and_after('enqueue', qw(Bind Sync)), { in => 'enqueue', before => 'ReadyForQuery' }) {
    sent_again(description($_), $_) for map { { %$place, do => $_ } } qw(cut leave);
}

# The first attempt arrives at the server after the second one.
for my $place (before_and_after('enqueue', @front)) {
    my $step = { %$place, do => 'leave', for => 0.25 };
    accepted(description($step) . ', and the rest arrives late', $step);
}

for my $place (before_and_after('connect', @connect), before_and_after('prepare', @prepare)) {
    for my $do ({ do => 'cut' }, { do => 'hold', for => 0.03 }) {
        my $step = { %$place, %$do };
        accepted(description($step), $step, reconnect => 1);
    }
}

for my $first ([ enqueue => 'Bind' ], [ enqueue => 'BindComplete' ], [ prepare => 'Parse' ], [ connect => 'Authentication' ]) {
    my ($in, $message) = @$first;

    for my $size (undef, 1, 7) {
        my $step = { in => $in, before => $message, do => 'gather', size => $size, times => 2 };
        accepted(description($step) . ', ' . ($size // 'all') . ' at a time', $step, reconnect => $in ne 'enqueue', bad => $in eq 'enqueue');
    }
}

# ---- other answers of the server: nothing is committed, and the batch is sent again
for my $answer (
    [ 'the server is shut down'                       => Pgq::Wire->error('57P01', 'ended', 'FATAL'), 1 ],
    [ 'the server is shut down, and ready'            => Pgq::Wire->error('57P01', 'ended') . Pgq::Wire->ready ],
    [ 'a serialization failure'                       => Pgq::Wire->error('40001', 'again') . Pgq::Wire->ready ],
    [ 'the server is a standby'                       => Pgq::Wire->error('25006', 'read-only') . Pgq::Wire->ready ],
    [ 'the server has lost another connection'        => Pgq::Wire->error('08006', 'lost') . Pgq::Wire->ready ],
    [ 'the batch is refused as a whole'               => Pgq::Wire->error('23514', 'no') . Pgq::Wire->ready ],
    [ 'an error, then the connection is closed'       => Pgq::Wire->error('23514', 'no'), 1 ],
    [ 'an error of the commit, after CommandComplete' => Pgq::Wire->nothing . Pgq::Wire->error('40001', 'late') . Pgq::Wire->ready ],
    [ 'CommandComplete, then the connection is closed' => Pgq::Wire->nothing, 1 ],
    [ 'CommandComplete in an open transaction' => Pgq::Wire->nothing . Pgq::Wire->ready('T') ],
    [ 'CommandComplete in a failed transaction' => Pgq::Wire->nothing . Pgq::Wire->ready('E') ],
) {
    my ($name, $bytes, $end) = @$answer;
    # When a batch is refused as a whole, its halves are accepted. So it must have at least two messages.
    my $step = { in => 'enqueue', before => 'Bind', do => 'answer', bytes => $bytes, end => $end };

    $name =~ /as a whole/ ? refused_as_a_whole($name, $step) : accepted($name, $step);
}

# Checks that a batch is halved when it is refused as a whole. Two other batches occupy the lanes until its messages wait.
sub refused_as_a_whole {
    my ($name, $step) = @_;
    my $lock = $pg->lock_table;
    my @held = map { Pgq::Client->new($nginx) } 1 .. 2;
    for my $n (1 .. 2) {
        $held[ $n - 1 ]->send_post('/post', "\"$name, held $n\"");
        $pg->wait_for_lock($n);
    }

    my @messages = map { "\"$name $_\"" } 1 .. @clients;
    $clients[$_]->send_post('/post', $messages[$_]) for 0 .. $#messages;
    $nginx->wait_until_received;
    $wire->plan($step);
    $lock->release;

    is(join(' ', map { $_->answer->{status} } @clients, @held), '202 202 202 202 202 202', "$name: all messages are accepted");
    is($wire->happened, 1, "$name: the batch was refused once");
    $oracle->told($_, 'accepted') for @messages, map { "\"$name, held $_\"" } 1 .. 2;

    return;
}

# ---- GET
for my $message (@front, @back) {
    $wire->plan({ in => 'recent', before => $message, do => 'cut' });
    is($clients[0]->get('/get')->{status}, 200, "a GET is answered although the connection is cut before $message");
    ok($wire->happened, "a GET: the connection was cut before $message");
}

# ---- A WARNING after CommandComplete says that the wait for a replica was canceled, and the batch is sent again. A WARNING
# before it is raised by the statement, for example by a trigger, and the batch is not sent again.
my $warning  = Pgq::Wire->warning('01000', 'canceling wait for synchronous replication');
my $position = $nginx->log_position;
my $warned   = time;

sub sent_once {
    my ($name, @steps) = @_;

    $wire->plan(@steps);
    is(post_all($name, [ $clients[0] ]), 202, "$name: the message is accepted");
    is($wire->happened, scalar @steps, "$name: each step was executed");
    is(scalar(my @sent = $wire->sent), 1, "$name: the batch is sent once");

    return;
}

my @ways = ([ 'unchanged' ],
    map { [ ($_ // 'all') . ' at a time', { in => 'enqueue', before => 'BindComplete', do => 'gather', size => $_ } ] } undef, 1, 7);

for my $way (@ways) {
    my ($chunks, @gather) = @$way;

    for my $place ({ before => 'RowDescription' }, { before => 'DataRow' }) {
        my $step = { in => 'enqueue', %$place, do => 'insert', bytes => $warning };
        sent_once('a WARNING before the completion: ' . description($step) . ", $chunks", @gather, $step);
    }

    for my $place ({ after => 'CommandComplete' }, { before => 'ReadyForQuery' }) {
        my $step = { in => 'enqueue', %$place, do => 'insert', bytes => $warning };
        my $name = 'a WARNING after the completion: ' . description($step) . ", $chunks";

        accepted($name, $step);
        sent_again($name, @gather, $step);
    }
}

my $lines = () = $nginx->log_since($position) =~ / warns: canceling wait/g;
cmp_ok($lines, '>', 0, 'WARNINGs after the completion are logged');
cmp_ok($lines, '<=', 2 * (1 + int((time - $warned) / 10)), 'a lane logs at most one WARNING in ten seconds');

# ---- several faults in a row
$wire->plan(
    { in => 'enqueue', after  => 'Sync',            do => 'leave', for => 0.1 },
    { in => 'enqueue', before => 'ReadyForQuery',   do => 'cut', times => 3 },
    { in => 'enqueue', before => 'CommandComplete', do => 'insert', bytes => Pgq::Wire->warning('01000', 'not replicated') },
    { in => 'prepare', before => 'ParseComplete',   do => 'cut' },
    { in => 'enqueue', before => 'Bind',            do => 'answer', bytes => Pgq::Wire->error('40001', 'again') . Pgq::Wire->ready },
);
is(post_all('in a row', \@clients), '202 202 202 202', 'several faults in a row: each message is accepted');
cmp_ok($wire->happened, '>=', 3, 'several faults in a row: at least three of them happened');

$wire->plan;
is(post_all('afterwards', \@clients), '202 202 202 202', 'each message is accepted after the faults');
ok((poll_until { !$wire->left && $wire->clients <= 3 } 10), 'no connection of the proxy remains after the faults');
is($nginx->leaked_lanes, undef, 'no connection to the server remains after the faults');
undef @clients;
$nginx->stop;
$wire->stop;

# ---- a server that does not answer until the timeout
my $ms        = 500 * ($ENV{PGQ_SLOW} || 1);
my $silent    = Pgq::Wire->new($pg)->start;
my $impatient = Pgq::Nginx->new(name => 'impatient', pg => $pg, conninfo => $silent->conninfo(user => 'ngx_pgq_web'),
    pool => "lanes=2 connect_timeout=60s", timeout => "${ms}ms", locations => 'location = /status { pgq_status; }')->start;
my @impatient = map { Pgq::Client->new($impatient) } 1 .. 4;

sub unanswered {
    my ($status, $name, $plan, %option) = @_;
    my @group = @impatient[ 0 .. ($option{clients} // @impatient) - 1 ];

    $silent->plan(@$plan);
    if ($option{reconnect}) {
        $silent->cut;
        # A message that nginx sends on a connection that has just been cut has an unknown outcome.
        poll_until { $impatient[0]->get('/status')->json->{pools}[0]{connected} == 0 } 10;
    }
    # While both lanes wait for answers, further messages are not sent.
    my $expected = join ' ', $status, ($status == 504 ? '50[34]' : $status) x (@group - 1);
    like(post_all($name, \@group), qr/^$expected$/, "$name: each message is answered with $status, or 503 if it was not sent");
    ok($silent->happened, "$name: the step was executed");
    $silent->plan;
    $silent->cut;
    # After several failures the back-off of the lanes is longer than the timeout of the next messages.
    poll_until { $silent->clients == 2 } 10;
    is(post_all("after $name", \@impatient), '202 202 202 202', "$name: messages are accepted afterwards");

    return;
}

# Wait until both lanes are connected.
poll_until { $silent->clients == 2 } 10;
is(post_all('in time', \@impatient), '202 202 202 202', 'messages are accepted before the server stops answering');

for my $place (map { { in => 'enqueue', before => $_ } } qw(Bind Sync BindComplete CommandComplete ReadyForQuery)) {
    my $step = { %$place, do => 'hold', times => 0 };
    unanswered(504, description($step) . ' until the timeout', [$step]);
}

for my $place (map({ { in => 'connect', before => $_ } } qw(Startup Authentication ReadyForQuery)),
    map { { in => 'prepare', before => $_ } } qw(Parse ParseComplete ReadyForQuery)) {
    my $step = { %$place, do => 'hold', times => 0 };
    unanswered(503, description($step) . ' until the timeout', [$step], reconnect => 1);
}

my $again = { in => 'enqueue', before => 'Bind', do => 'answer', times => 0, bytes => Pgq::Wire->error('40001', 'again') . Pgq::Wire->ready };
unanswered(503, 'a transient error each time', [$again]);
unanswered(504, 'an unknown outcome, then a transient error each time',
    [ { in => 'enqueue', after => 'Sync', do => 'leave' }, { %$again, nth => 2 } ], clients => 1);

ok((poll_until { !$silent->left && $silent->clients <= 2 } 10), "no connection of the silent server's proxy remains");

is(join("\n", $oracle->drain($pg)->read($pg, 'true')->complaints), '',
    'each accepted message is in posts once, each refused one is not, each unknown one at most once, and no other');
cmp_ok($oracle->count('unknown'), '>=', 6, 'at least six messages have an unknown outcome');
cmp_ok($oracle->count('accepted') + $oracle->count('refused') + $oracle->count('unknown'), '>', 400, 'more than 400 messages were posted');

done_testing;
