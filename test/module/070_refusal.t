# P4: a message that the database refuses is answered with 400, the other messages of its batch with 202.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', locations => 'location = /details { pgq_post main; pgq_details on; }')->start;

# Sends these messages in one batch and returns their answers.
sub together {
    my ($first, @clients) = $nginx->post_in_one_batch(@_);

    return map { $_->answer } @clients;
}

my $batches = sub { $pg->safe_psql('select count(*) from ngx_pgq.batch') };

my $before  = $batches->();
my @answers = together(map { "{\"n\":$_}" } 1 .. 50);
is((grep { $_->{status} == 202 } @answers), 50, 'messages that wait together are accepted');
is($batches->() - $before, 2, 'messages that wait together are sent in one batch');

$pg->safe_psql(q{create function refuse() returns trigger language plpgsql as $$
        begin if new.data::text like '%bad%' then raise exception 'no bad words' using errcode = 'check_violation'; end if; return new; end $$;
    create trigger refuse before insert on ngx_pgq.queue for each row execute function refuse()});

for my $bad ([13], [1], [50], [ 7, 8, 40 ], [ 1 .. 50 ]) {
    my %bad = map { $_ => 1 } @$bad;
    @answers = together(map { $bad{$_} ? "{\"bad\":$_}" : "{\"good\":$_}" } 1 .. 50);

    is(join(' ', map { $_->{status} } @answers), join(' ', map { $bad{$_} ? 400 : 202 } 1 .. 50),
        @$bad . ' of 50 messages are refused, the others are accepted');
    my $problem = $answers[ $bad->[0] - 1 ]->json;
    is($problem->{code}, 'refused', @$bad . ' refused messages have the code refused');
    is($problem->{detail}, 'The message violates a constraint of the database. (SQLSTATE 23514)', @$bad . ' refused messages: the detail describes the refusal');
}

# ---- names of tables and constraints are shown only with pgq_details
my $position = $nginx->log_position;
my $client   = Pgq::Client->new($nginx);
my $detail   = sub { return $client->post($_[0], $_[1])->json->{detail} };
is($detail->('/details', '{"bad":0}'), 'The message violates a constraint of the database. (SQLSTATE 23514): no bad words',
    'pgq_details on: the detail has the message of the database');
like($nginx->log_since($position), qr/pgq enqueue: refused by the database: 23514, client:/, 'the log has the SQLSTATE of a refusal');
$pg->safe_psql(q{alter table ngx_pgq.queue add constraint secret_name check (data->>'salary' is null)});
is($detail->('/post', '{"salary":0}'), 'The message violates a constraint of the database. (SQLSTATE 23514)', "the detail of a CHECK violation does not contain the constraint's name");
like($detail->('/details', '{"salary":0}'), qr/secret_name/, "pgq_details on: the detail of a CHECK violation contains the constraint's name");
$pg->safe_psql('alter table ngx_pgq.queue drop constraint secret_name');
for my $case ([ 'P0001', 'The database refuses the message. (SQLSTATE P0001)' ], [ '22003', 'The message has a value that the database cannot store. (SQLSTATE 22003)' ]) {
    $pg->safe_psql(qq{create function other() returns trigger language plpgsql as \$\$
        begin if new.data::text like '%other%' then raise exception 'in table secret_name' using errcode = '$case->[0]'; end if; return new; end \$\$;
        create trigger other before insert on ngx_pgq.queue for each row execute function other()});
    is($detail->('/post', '"other"'), $case->[1], "the detail of SQLSTATE $case->[0] is a text of the module");
    $pg->safe_psql('drop function other() cascade');
}

$pg->safe_psql('drop trigger refuse on ngx_pgq.queue');
is($pg->count_posts('%bad%'), 0, 'no refused message is a post');
is($pg->safe_psql(q{select count(*), count(distinct message_id) from posts where data::text like '%good%'}),
    '194|194', 'each accepted message is a post once');

# ---- the limits of a batch
$nginx->configure(pool => 'lanes=1 batch=8 batch_size=1k');
$nginx->reload;
@answers = together(map { '"' . 'x' x (100 * $_) . '"' } 1 .. 40);
is((grep { $_->{status} == 202 } @answers), 40, 'messages that exceed the limits of a batch are accepted in several batches');

done_testing;
