# P4: a bad message harms nobody. What the database alone refuses gets its own 400, its batch-mates their 202.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', locations => 'location = /details { pgq_post main; pgq_details on; }')->start;

# Sends these messages so that they wait together: the lane is held up by a lock that the first one meets.
sub together {
    my (@messages) = @_;
    my $lock = $pg->session;
    $lock->query('begin; lock table ngx_pgq.batch');

    my @clients = map { Pgq::Client->new($nginx) } 0 .. @messages;
    my $send    = sub {
        my ($client, $message) = @_;
        $client->send($client->request('POST', '/post', body => $message, headers => { 'Content-Type' => 'application/json' }));
    };

    $send->($clients[0], '"first"');
    $pg->poll_query_until("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'", 1);
    $send->($clients[$_ + 1], $messages[$_]) for 0 .. $#messages;

    # who came last is known to wait when a later request has been answered
    Pgq::Client->new($nginx)->get('/nowhere');
    $lock->query('commit');
    $lock->quit;

    return (map { $_->answer } @clients)[ 1 .. @messages ];
}

my $batches = sub { $pg->safe_psql('select count(*) from ngx_pgq.batch') };

my $before  = $batches->();
my @answers = together(map { "{\"n\":$_}" } 1 .. 50);
is((grep { $_->{status} == 202 } @answers), 50, 'messages that wait together are accepted together');
is($batches->() - $before, 2, 'in one batch');

$pg->safe_psql(q{
    create function refuse() returns trigger language plpgsql as $$
    begin
        if new.data::text like '%bad%' then
            raise exception 'no bad words' using errcode = 'check_violation';
        end if;
        return new;
    end $$;
    create trigger refuse before insert on ngx_pgq.queue for each row execute function refuse();
});

for my $bad ([13], [1], [50], [ 7, 8, 40 ], [ 1 .. 50 ]) {
    my %bad = map { $_ => 1 } @$bad;
    @answers = together(map { $bad{$_} ? "{\"bad\":$_}" : "{\"good\":$_}" } 1 .. 50);

    is(join(' ', map { $_->{status} } @answers), join(' ', map { $bad{$_} ? 400 : 202 } 1 .. 50),
        @$bad . ' bad among 50: each gets its own answer');
    my $problem = $answers[ $bad->[0] - 1 ]->json;
    is($problem->{code}, 'refused', 'a problem');
    is($problem->{detail}, 'The message violates a constraint of the database. (SQLSTATE 23514)', 'that says what is wrong');
}

# ---- names of tables and constraints are the operator's, unless he gives them away
my $position = $nginx->log_position;
my $client   = Pgq::Client->new($nginx);
my $detail   = sub { return $client->post($_[0], $_[1])->json->{detail} };
is($detail->('/details', '{"bad":0}'), 'The message violates a constraint of the database. (SQLSTATE 23514): no bad words',
    'pgq_details on: with what the database said');
like($nginx->log_since($position), qr/pgq enqueue: refused by the database: 23514, client:/, 'the log has the SQLSTATE');
$pg->safe_psql(q{alter table ngx_pgq.queue add constraint secret_name check (data->>'salary' is null)});
is($detail->('/post', '{"salary":0}'), 'The message violates a constraint of the database. (SQLSTATE 23514)', 'a CHECK: no name of it');
like($detail->('/details', '{"salary":0}'), qr/secret_name/, 'but with pgq_details on');
$pg->safe_psql('alter table ngx_pgq.queue drop constraint secret_name');
for my $case ([ 'P0001', 'The database refuses the message. (SQLSTATE P0001)' ], [ '22003', 'The message has a value that the database cannot store. (SQLSTATE 22003)' ]) {
    $pg->safe_psql(qq{create function other() returns trigger language plpgsql as \$\$
        begin if new.data::text like '%other%' then raise exception 'in table secret_name' using errcode = '$case->[0]'; end if; return new; end \$\$;
        create trigger other before insert on ngx_pgq.queue for each row execute function other()});
    is($detail->('/post', '"other"'), $case->[1], "SQLSTATE $case->[0]: a sentence of nginx's");
    $pg->safe_psql('drop function other() cascade');
}

$pg->safe_psql('drop trigger refuse on ngx_pgq.queue');
$pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
is($pg->safe_psql(q{select count(*) from posts where data::text like '%bad%'}), 0, 'nothing refused is there');
is($pg->safe_psql(q{select count(*), count(distinct message_id) from posts where data::text like '%good%'}),
    '194|194', 'everything accepted is, once');

# messages beyond what one batch may hold
$nginx->configure(pool => 'lanes=1 batch=8 batch_size=1k');
$nginx->reload;
@answers = together(map { '"' . 'x' x (100 * $_) . '"' } 1 .. 40);
is((grep { $_->{status} == 202 } @answers), 40, 'more than a batch holds goes in several, and a big message alone');

done_testing;
