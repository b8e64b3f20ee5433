# P2 where an attempt of unknown outcome is followed by one that is refused as a whole: the refusal is of the second
# attempt only. The batch is fenced before it is answered or halved, so that the first attempt cannot come after all;
# or it has come, and then it counts.

use Pgq;
use Pgq::Wire;

my $pg      = Pgq::Postgres->new->start;
my $wire    = Pgq::Wire->new($pg)->start;
my $nginx   = Pgq::Nginx->new(pg => $pg, conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=2', timeout => '60s',
    locations => 'location = /status { pgq_status; }')->start;
my @clients = map { Pgq::Client->new($nginx) } 1 .. 4;
my $refusal = Pgq::Wire->error('23514', 'not today') . Pgq::Wire->ready;
my $count   = 0;

# refuses whole batches, for as long as it likes
$pg->safe_psql(q{create table public.mood (bad boolean); insert into public.mood values (false);
    grant select on public.mood to ngx_pgq_owner;
    create function public.moody() returns trigger language plpgsql as
        $$ begin if (select bad from public.mood) and new.data::text like '"moody%' then raise exception 'in a bad mood'; end if; return new; end $$});
$pg->safe_psql("create trigger moody before insert on ngx_pgq.queue_$_ for each row execute function public.moody()") for 0 .. 3;

sub mood { return $pg->safe_psql("update public.mood set bad = $_[0]") }

sub posts {
    my ($data) = @_;
    $pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
    return $pg->safe_psql("select count(*) from posts where data::text = \$\$$data\$\$");
}

# All in one batch, since they came while there was no lane; what they are told. The plan is for when there is one.
sub post_all {
    my ($messages, @plan) = @_;
    $wire->plan({ in => 'connect', before => 'ReadyForQuery', do => 'hold', times => 0 });
    $wire->cut;
    poll_until { Pgq::Client->new($nginx)->get('/status')->{status} == 503 } 10;
    $clients[$_]->send($clients[$_]->request('POST', '/post', body => $messages->[$_], headers => { 'Content-Type' => 'application/json' })) for 0 .. $#$messages;
    Pgq::Client->new($nginx)->get('/nowhere');
    $wire->plan(@plan);
    $wire->cut;
    return join ' ', map { $clients[$_]->answer(timeout => 60)->{status} } 0 .. $#$messages;
}

# the first attempt reaches the server when the second one has been refused
sub late {
    my ($name, $expected, $messages, @more) = @_;
    mood('true');
    my $from = -s $pg->log;
    is(post_all($messages, { in => 'enqueue', before => 'Bind', do => 'leave', for => 300 }, @more), $expected, "$name: $expected");
    mood('false');
    ok($wire->happened, "$name: it happened");
    $wire->plan;    # which lets the first attempt go
    ok((poll_until { $pg->log_contains(qr/batch was fenced/, $from) } 10), "$name: the first attempt comes, and meets the fence");
    ok((poll_until { !$wire->left } 10), "$name: and is gone");
    my @status = split / /, $expected;
    is(posts($messages->[$_]), $status[$_] == 202 ? 1 : 0, "$name: $messages->[$_] is there as it was told") for 0 .. $#$messages;
}

late('a message alone', '400', ['"moody 1"']);
late('with others', '202 202 400 202', [ '"a"', '"b"', '"moody 2"', '"c"' ]);
late('two bad ones', '400 202 400 202', [ '"moody 3"', '"d"', '"moody 4"', '"e"' ]);

for my $place ([ before => 'Bind' ], [ after => 'Sync' ], [ before => 'CommandComplete' ], [ before => 'ReadyForQuery' ]) {
    late("the fence is cut @$place", '202 400', [ '"f' . ++$count . '"', "\"moody f$count\"" ], { in => 'fence', @$place, do => 'cut' });
}

# the first attempt was committed, and the second one refused before it met the ledger
my @committed = ({ in => 'enqueue', before => 'ReadyForQuery', do => 'cut' }, { in => 'enqueue', before => 'Bind', nth => 2, do => 'answer', bytes => $refusal });
is(post_all([ '"g"', '"h"' ], @committed), '202 202', 'committed already: accepted');
ok($wire->happened, 'although the second attempt was refused');
is(posts('"g"') . posts('"h"'), '11', 'each is there once');
$wire->plan;

# with what the database refuses by itself, which it says again
$pg->safe_psql("alter role ngx_pgq_web set max_stack_depth = '200kB'");
my $deep = '[' x 400 . ']' x 400;
is(post_all([ '"i"', $deep, '"j"' ], @committed), '202 400 202', 'committed already, but for one');
is(posts('"i"') . posts('"j"') . posts($deep), '110', 'as it was told');
$wire->plan;

# not even a fence is taken: nobody knows
mood('true');
is(post_all([ '"moody k"' ], { in => 'enqueue', before => 'Bind', do => 'cut' }, { in => 'fence', before => 'Bind', do => 'answer', times => 0, bytes => $refusal }), '504', 'a fence that is refused: the outcome stays unknown');
cmp_ok(posts('"moody k"'), '<=', 1, 'at most once');
$wire->plan;
mood('false');

is(post_all([ '"l"', '"moody m"' ]), '202 202', 'and on it goes');
is($pg->safe_psql('select count(*) from (select from posts group by message_id having count(*) > 1) as twice'), 0, 'nothing is there twice');

done_testing;
