# P9: nothing that a message holds appears in a log, whatever is logged and whatever refuses the message.

use Pgq;

my $pg = Pgq::Postgres->new(preload => 'ngx_pgq, auto_explain', conf => <<'END')->start;
log_statement = 'all'
log_min_duration_statement = 0
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
log_error_verbosity = verbose
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
END
my $nginx  = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', timeout => '10s')->start;
my $client = Pgq::Client->new($nginx);

sub post { return $client->post('/post', @_)->{status} }

is(post('{"card": "4111-1"}'), 202, 'a message is accepted while all statements are logged');
is(post('{"card": "4111-2"}', 'Idempotency-Key' => '"a"'), 202, 'and one with a key');
is(post(qq({"card": "4111-3"}\n), 'Content-Type' => 'application/x-ndjson'), 202, 'and a request of NDJSON');
like($pg->log_since(0), qr/duration: .* ngx_pgq[.]enqueue\(/, 'the log has the statement');
like($pg->log_since(0), qr/plan:\n\tQuery Text: .* ngx_pgq[.]enqueue\(/, 'and its plan');

$pg->safe_psql(q{alter table ngx_pgq.queue add constraint card check (data->>'card' !~ '-4')});
is(post('{"card": "4111-4"}'), 400, 'a CHECK of the queue refuses a message');
like($pg->log_since(0), qr/violates check constraint "card"/, 'the log has the name of the constraint');
is(post(qq({"card": "4111-4b"}\n), 'Content-Type' => 'application/x-ndjson'), 400, 'a CHECK refuses a request of NDJSON');

$pg->safe_psql(q{alter table ngx_pgq.queue drop constraint card, add check (data->>'card' is null or (data->>'card')::integer > 0)});
is(post('{"card": "4111-5"}'), 400, 'a value that cannot be converted is refused');

$pg->safe_psql(q{create function refuse() returns trigger language plpgsql as $$
                 begin perform ('[' || new.data::text || '+')::json; return new; end $$;
                 create trigger refuse before insert on ngx_pgq.queue for each row execute function refuse()});
is(post('{"cards": "4111-6"}'), 400, 'a trigger that cannot parse a message refuses it');

$pg->safe_psql(q{alter table ngx_pgq.queue disable trigger all});
is(post('{"cards": "4111-7"}'), 202, 'a message is accepted again');
$pg->safe_psql(q{create function pass() returns trigger language plpgsql as 'begin return new; end';
                 create trigger pass before insert on posts for each row execute function pass();
                 create trigger pass before insert on ngx_pgq.queue for each row execute function pass()});
is(post('{"cards": "4111-8"}'), 202, 'and with triggers that change nothing');
ok($pg->poll_query_until('select count(*) from posts', 5), 'all that were accepted are moved');

unlike($pg->log_since(0), qr{4111-}, 'no message is in the log of the server');
unlike($nginx->log_since(0), qr/4111-/, 'no message is in the log of nginx');

done_testing;
