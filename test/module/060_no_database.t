# While the database is down or misconfigured, requests wait until their timeout and are then answered with 503 and
# Retry-After. One log line names the cause, and requests are accepted again when the database is available.

use Pgq;
use Time::HiRes qw(time);

my $pg     = Pgq::Postgres->new;
my $nginx  = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', timeout => '1s')->start;
my $client = Pgq::Client->new($nginx);

# Checks that a message is refused with 503, that nginx serves other requests, and that the log names the cause once.
sub broken {
    my ($name, $line) = @_;
    my $position = $nginx->log_position;
    my $other    = Pgq::Client->new($nginx);

    $client->send_post('/post', "\"$name\"");
    not_blocked($nginx, $name, 0.9);

    my $answer = $client->answer;
    is_problem($answer, 503, 'no_database', "$name: a message whose timeout is reached");
    like($answer->{headers}{'retry-after'}, qr/^[1-9]$/, "$name: a refused message is answered with Retry-After");
    is($other->get('/get')->{status}, 503, "$name: a read is refused, too");

    $nginx->wait_for_log($line);
    like($nginx->log_since(0), $line, "$name: the log names the cause");
    cmp_ok(scalar(() = $nginx->log_since($position) =~ /pgq lane: (?:lost|could not connect)/g), '<=', 2, "$name: the cause is logged once");
    unlike($nginx->log_since(0), qr/password=|user=/, "$name: the log contains no conninfo");
}

sub recovered {
    my ($name) = @_;

    $nginx->configure(pool => 'lanes=1', timeout => '20s');
    $nginx->reload;
    $client = Pgq::Client->new($nginx);
    is($client->post('/post', '"recovered"')->{status}, 202, "$name: a message is accepted after recovery");
    $nginx->configure(pool => 'lanes=1', timeout => '1s');
    $nginx->reload;
    $client = Pgq::Client->new($nginx);
}

broken('database down at start', qr/pgq lane: could not connect to .*, retry in \d+ ms: .*(?:No such file|refused)/);
$pg->start;
recovered('database down at start');

my $position = $nginx->log_position;
$pg->stop('immediate');
$nginx->wait_for_log(qr/pgq lane: lost/, $position);
broken('database stopped', qr/pgq lane: (?:lost|could not connect to) .*, retry in \d+ ms/);
$pg->start;
recovered('database stopped');

$pg->set(default_transaction_read_only => 'on');
$pg->poll_query_until('show default_transaction_read_only', 'on');
$position = $nginx->log_position;
$pg->terminate_web_sessions;
$nginx->wait_for_log(qr/pgq lane: lost/, $position);
broken('database read-only', qr/pgq lane: (?:lost|could not connect to) .*read-only/);
$pg->set(default_transaction_read_only => undef);
recovered('database read-only');

$pg->safe_psql('revoke execute on function ngx_pgq.enqueue from ngx_pgq_web; revoke execute on function ngx_pgq.recent from ngx_pgq_web');
broken('a missing grant', qr/pgq lane: (?:lost|could not connect to) .*permission denied for function enqueue/);
$pg->safe_psql('grant execute on function ngx_pgq.enqueue to ngx_pgq_web; grant execute on function ngx_pgq.recent to ngx_pgq_web');
recovered('a missing grant');

$pg->safe_psql('drop extension ngx_pgq cascade');
broken('a missing extension', qr/pgq lane: (?:lost|could not connect to) .*function ngx_pgq\.enqueue.* does not exist/);
$pg->install;
recovered('a missing extension');

$pg->wait_until_moved;
is($pg->safe_psql(q{select string_agg(distinct data::text, ' ') from posts}), '"recovered"', 'no refused message is a post');

# nginx does not quit while a client that has sent no request keeps its connection open.
undef $client;
$nginx->stop;

# SCRAM over TCP, first with a wrong password, then with the right one.
my $password = $pg->set_password('ngx_pgq_web');
$nginx = Pgq::Nginx->new(pool => 'lanes=1', timeout => '1s',
    conninfo => $pg->conninfo(user => 'ngx_pgq_web', tcp => 1, password => 'hush-hush'))->start;
$client = Pgq::Client->new($nginx);
broken('a wrong password', qr/pgq lane: could not connect to .*password authentication failed/);
unlike($nginx->log_since(0), qr/hush-hush/, 'the password is not in the log');
$nginx->configure(conninfo => $pg->conninfo(user => 'ngx_pgq_web', tcp => 1, password => $password));
recovered('a wrong password');
undef $client;

done_testing;
