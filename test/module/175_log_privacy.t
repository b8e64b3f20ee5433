# P9: no content of a message appears in a log, with any logging settings and any error.

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
is(post('{"card": "4111-2"}', 'Idempotency-Key' => '"a"'), 202, 'a message with a key is accepted while all statements are logged');
is(post(qq({"card": "4111-3"}\n), 'Content-Type' => 'application/x-ndjson'), 202, 'NDJSON is accepted while all statements are logged');
like($pg->log_since(0), qr/duration: .* ngx_pgq[.]enqueue\(/, "the server's log has the statement");
like($pg->log_since(0), qr/plan:\n\tQuery Text: .* ngx_pgq[.]enqueue\(/, "the server's log has the plan of the statement");

$pg->safe_psql(q{alter table ngx_pgq.queue add constraint card check (data->>'card' !~ '-4')});
is(post('{"card": "4111-4"}'), 400, 'a CHECK of the queue refuses a message');
like($pg->log_since(0), qr/violates check constraint "card"/, "the server's log has the name of the violated constraint");
is(post(qq({"card": "4111-4b"}\n), 'Content-Type' => 'application/x-ndjson'), 400, 'a CHECK refuses a request of NDJSON');

$pg->safe_psql(q{alter table ngx_pgq.queue drop constraint card, add check (data->>'card' is null or (data->>'card')::integer > 0)});
is(post('{"card": "4111-5"}'), 400, 'a value that cannot be converted is refused');

$pg->safe_psql(q{create function refuse() returns trigger language plpgsql as $$
                 begin perform ('[' || new.data::text || '+')::json; return new; end $$;
                 create trigger refuse before insert on ngx_pgq.queue for each row execute function refuse()});
is(post('{"cards": "4111-6"}'), 400, 'a trigger that cannot parse a message refuses it');

$pg->safe_psql(q{alter table ngx_pgq.queue disable trigger all});
is(post('{"cards": "4111-7"}'), 202, 'a message is accepted while the trigger is disabled');
$pg->safe_psql(q{create function pass() returns trigger language plpgsql as 'begin return new; end';
                 create trigger pass before insert on posts for each row execute function pass();
                 create trigger pass before insert on ngx_pgq.queue for each row execute function pass()});
is(post('{"cards": "4111-8"}'), 202, 'a message is accepted with triggers that change nothing');
ok($pg->poll_query_until('select count(*) from posts', 5), 'each accepted message is a post');

unlike($pg->log_since(0), qr{4111-}, "the server's log contains no message");
unlike($nginx->log_since(0), qr/4111-/, "nginx's log contains no message");

done_testing;
