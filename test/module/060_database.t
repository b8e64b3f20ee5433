# A database that is not there, or not as it should be: requests wait, are answered 503 with Retry-After when their
# time is over, one clear line of the log says why, and all goes on by itself when it is mended.

use Pgq;
use Time::HiRes qw(time);

my $pg     = Pgq::Postgres->new;
my $nginx  = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', timeout => '1s')->start;
my $client = Pgq::Client->new($nginx);

# While it is broken: 503, nginx goes on with other things, and the log says so once.
sub broken {
    my ($name, $line) = @_;
    my $position = $nginx->log_position;
    my $start    = time;
    my $other    = Pgq::Client->new($nginx);

    $client->send($client->request('POST', '/post', body => "\"$name\"", headers => { 'Content-Type' => 'application/json' }));
    is($other->get('/nowhere')->{status}, 404, "$name: nginx is not blocked");
    cmp_ok(time - $start, '<', timeout(0.9), "$name: not for a moment");

    my $answer = $client->answer;
    is($answer->{status}, 503, "$name: a message is refused in time");
    like($answer->{headers}{'retry-after'}, qr/^[1-9]$/, "$name: with Retry-After");
    is($answer->json->{code}, 'no_database', "$name: as a problem");
    is($other->get('/get')->{status}, 503, "$name: reading, too");

    $nginx->wait_for_log($line);
    like($nginx->log_since(0), $line, "$name: the log says why");
    cmp_ok(scalar(() = $nginx->log_since($position) =~ /pgq lane: (?:lost|could not connect)/g), '<=', 2, "$name: and says it once");
    unlike($nginx->log_since(0), qr/password=|user=/, "$name: no conninfo is in the log");
}

sub mended {
    my ($name) = @_;

    $nginx->configure(pool => 'lanes=1', timeout => '20s');
    $nginx->reload;
    $client = Pgq::Client->new($nginx);
    is($client->post('/post', '"mended"')->{status}, 202, "$name: mended, it goes on");
    $nginx->configure(pool => 'lanes=1', timeout => '1s');
    $nginx->reload;
    $client = Pgq::Client->new($nginx);
}

broken('absent at start', qr/pgq lane: could not connect to .*, retry in \d+ ms: .*(?:No such file|refused)/);
$pg->start;
mended('absent at start');

my $position = $nginx->log_position;
$pg->stop('immediate');
$nginx->wait_for_log(qr/pgq lane: lost/, $position);
broken('absent later', qr/pgq lane: (?:lost|could not connect to) .*, retry in \d+ ms/);
$pg->start;
mended('absent later');

$pg->safe_psql('alter system set default_transaction_read_only = on; select pg_reload_conf()');
$pg->poll_query_until('show default_transaction_read_only', 'on');
$position = $nginx->log_position;
$pg->safe_psql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ngx_pgq_web'");
$nginx->wait_for_log(qr/pgq lane: lost/, $position);
broken('read-only', qr/pgq lane: (?:lost|could not connect to) .*read-only/);
$pg->safe_psql('alter system reset default_transaction_read_only; select pg_reload_conf()');
mended('read-only');

$pg->safe_psql('revoke execute on function ngx_pgq.enqueue from ngx_pgq_web; revoke execute on function ngx_pgq.recent from ngx_pgq_web');
broken('a missing grant', qr/pgq lane: (?:lost|could not connect to) .*permission denied for function enqueue/);
$pg->safe_psql('grant execute on function ngx_pgq.enqueue to ngx_pgq_web; grant execute on function ngx_pgq.recent to ngx_pgq_web');
mended('a missing grant');

$pg->safe_psql('drop extension ngx_pgq cascade');
broken('a missing extension', qr/pgq lane: (?:lost|could not connect to) .*function ngx_pgq\.enqueue.* does not exist/);
$pg->install;
mended('a missing extension');

$pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
is($pg->safe_psql(q{select string_agg(distinct data::text, ' ') from posts}), '"mended"', 'nothing that was refused is kept');

# (nginx waits for a client that has asked for nothing yet)
undef $client;
$nginx->stop;

# SCRAM over TCP, with a wrong password and the right one
my $password = $pg->set_password('ngx_pgq_web');
$nginx = Pgq::Nginx->new(pool => 'lanes=1', timeout => '1s',
    conninfo => $pg->conninfo(user => 'ngx_pgq_web', tcp => 1, password => 'hush-hush'))->start;
$client = Pgq::Client->new($nginx);
broken('a wrong password', qr/pgq lane: could not connect to .*password authentication failed/);
unlike($nginx->log_since(0), qr/hush-hush/, 'the password is not in the log');
$nginx->configure(conninfo => $pg->conninfo(user => 'ngx_pgq_web', tcp => 1, password => $password));
mended('a wrong password');
undef $client;

done_testing;
