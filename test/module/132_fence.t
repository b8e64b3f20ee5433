# P2: an attempt of unknown outcome is followed by one that is refused as a whole. The refusal applies to the second attempt
# only: the batch is fenced before it is answered or halved, so that the first attempt cannot be committed later. If it was
# committed already, its messages are accepted.

use Pgq;
use Pgq::Wire;

my $pg      = Pgq::Postgres->new->start;
my $wire    = Pgq::Wire->new($pg)->start;
my $nginx   = Pgq::Nginx->new(pg => $pg, conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=2', timeout => '60s',
    locations => 'location = /status { pgq_status; }')->start;
my @clients = map { Pgq::Client->new($nginx) } 1 .. 4;
my $refusal = Pgq::Wire->error('23514', 'not today') . Pgq::Wire->ready;
my $count   = 0;

# A trigger refuses messages while it is switched on by refuse().
$pg->safe_psql(q{create table public.refuses (active boolean); insert into public.refuses values (false);
    grant select on public.refuses to ngx_pgq_owner;
    create function public.refuse() returns trigger language plpgsql as
        $$ begin if (select active from public.refuses) and new.data::text like '"bad%' then raise exception 'refused'; end if; return new; end $$});
$pg->safe_psql("create trigger refuse before insert on ngx_pgq.queue_$_ for each row execute function public.refuse()") for 0 .. 3;

sub refuse { return $pg->safe_psql("update public.refuses set active = $_[0]") }

# Posts the messages in one batch, while no lane is connected. Then sets the plan. Returns the statuses.
sub post_all {
    my ($messages, @plan) = @_;
    $wire->plan({ in => 'connect', before => 'ReadyForQuery', do => 'hold', times => 0 });
    $wire->cut;
    poll_until { Pgq::Client->new($nginx)->get('/status')->{status} == 503 } 10;
    $clients[$_]->send_post('/post', $messages->[$_]) for 0 .. $#$messages;
    $nginx->wait_until_received;
    $wire->plan(@plan);
    $wire->cut;
    return join ' ', map { $clients[$_]->answer(timeout => 60)->{status} } 0 .. $#$messages;
}

# Checks a batch whose first attempt reaches the server after the second one was refused.
sub late {
    my ($name, $expected, $messages, @more) = @_;
    refuse('true');
    my $from = -s $pg->log;
    is(post_all($messages, { in => 'enqueue', before => 'Bind', do => 'leave', for => 300 }, @more), $expected, "$name: the messages are answered with $expected");
    refuse('false');
    ok($wire->happened, "$name: the first attempt was delayed");
    $wire->plan;    # this releases the first attempt
    ok((poll_until { $pg->log_contains(qr/batch was fenced/, $from) } 10), "$name: the first attempt arrives and is rejected by the fence");
    ok((poll_until { !$wire->left } 10), "$name: the connection of the first attempt is closed");
    my @status = split / /, $expected;
    is($pg->count_posts($messages->[$_]), $status[$_] == 202 ? 1 : 0, "$name: $messages->[$_] is a post if it was accepted") for 0 .. $#$messages;
}

late('a refused message alone', '400', ['"bad 1"']);
late('a refused message with others', '202 202 400 202', [ '"a"', '"b"', '"bad 2"', '"c"' ]);
late('two refused messages', '400 202 400 202', [ '"bad 3"', '"d"', '"bad 4"', '"e"' ]);

for my $place ([ before => 'Bind' ], [ after => 'Sync' ], [ before => 'CommandComplete' ], [ before => 'ReadyForQuery' ]) {
    late("the fence is cut @$place", '202 400', [ '"f' . ++$count . '"', "\"bad f$count\"" ], { in => 'fence', @$place, do => 'cut' });
}

# The first attempt was committed, and the second one is refused before it reaches the batch table.
my @committed = ({ in => 'enqueue', before => 'ReadyForQuery', do => 'cut' }, { in => 'enqueue', before => 'Bind', nth => 2, do => 'answer', bytes => $refusal });
is(post_all([ '"g"', '"h"' ], @committed), '202 202', 'a batch that was committed is accepted although its second attempt is refused');
ok($wire->happened, 'the second attempt of the committed batch was refused');
is($pg->count_posts('"g"') . $pg->count_posts('"h"'), '11', 'each message of the committed batch is a post once');
$wire->plan;

# The database refuses one message in the first attempt, and again later.
$pg->safe_psql("alter role ngx_pgq_web set max_stack_depth = '200kB'");
my $deep = '[' x 400 . ']' x 400;
is(post_all([ '"i"', $deep, '"j"' ], @committed), '202 400 202', 'a batch that was committed without its refused message is answered as in its first attempt');
is($pg->count_posts('"i"') . $pg->count_posts('"j"') . $pg->count_posts($deep), '110', 'each accepted message of the batch is a post once, the refused one is not');
$wire->plan;

# If the fence is refused as well, the outcome remains unknown.
refuse('true');
is(post_all([ '"bad k"' ], { in => 'enqueue', before => 'Bind', do => 'cut' }, { in => 'fence', before => 'Bind', do => 'answer', times => 0, bytes => $refusal }), '504', 'a message whose fence is refused is answered with 504');
cmp_ok($pg->count_posts('"bad k"'), '<=', 1, 'a message whose fence is refused is a post at most once');
$wire->plan;
refuse('false');

is(post_all([ '"l"', '"bad m"' ]), '202 202', 'messages are accepted when nothing is refused');
is($pg->safe_psql('select count(*) from (select from posts group by message_id having count(*) > 1) as twice'), 0, 'no message is a post twice');

done_testing;
