# An error text of the database is one line of nginx's log, without control characters and without the content of a message.

use Pgq;
use Pgq::Wire;

my $pg     = Pgq::Postgres->new->start;
my $secret = 'card 4111-1111-1111-1111';
my $forged = '2026/01/01 00:00:00 [alert] 1#1: forged';
my $text   = "first\n$forged\e[2J\x{7f}";

# Checks that each line of nginx's log begins with nginx's prefix and has no control character.
sub one_line_each {
    my ($nginx, $position, $what) = @_;
    my @other = grep { !m{^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[\w+\] \d+#\d+: } || /\#\d+: forged|forged.*forged/ || /[^\n -~]/ }
        split /\n/, $nginx->log_since($position);
    is(join("\n", @other), '', "$what: each log line was written by nginx");
    unlike($nginx->log_since($position), qr/4111/, "$what: the log does not contain the message");
    return;
}

# ---- errors of a trigger that contain the message
my $nginx  = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', timeout => '1s')->start;
my $client = Pgq::Client->new($nginx);
my $say    = sub {
    my ($how) = @_;
    $pg->safe_psql(qq{create or replace function say() returns trigger language plpgsql as \$\$
        begin raise $how; return new; end \$\$});
    $pg->safe_psql('create or replace trigger say before insert on ngx_pgq.queue for each row execute function say()');
};

# The status is 504, not 503, if the time is over while the batch is in flight.
for my $case (
    [ 'a WARNING',               q{warning using message = TEXT},                                  202, qr/ warns: .* \(01000\)/ ],
    [ 'a refusal',               q{exception using message = TEXT, errcode = '23514'},             400, qr/refused by the database: 23514/ ],
    [ 'a data exception',        q{exception using message = TEXT, errcode = '22023'},             400, qr/refused by the database: 22023/ ],
    [ 'a failure of the server', q{exception using message = TEXT, errcode = '53100'},             '50[34]', qr/could not enqueue 1 messages: 53100/ ],
    [ 'a session that is ended', q{exception using message = TEXT, errcode = '57P01'},             '50[34]', qr/lost .*\(57P01/ ],
) {
    my ($what, $how, $status, $line) = @$case;
    my $position = $nginx->log_position;
    $how =~ s/TEXT/new.data::text || E'\\n$forged ' || new.data::text/;
    $say->($how);
    like($client->post('/post', "\"$secret\"")->status, qr/^$status$/, "$what: a message is answered with $status");
    like($nginx->log_since($position), $line, "$what: the log has the error");
    one_line_each($nginx, $position, $what);
    $pg->safe_psql('drop function say() cascade');
    ok((poll_until { $client->post('/post', '"recovered"')->status == 202 }), "$what: a message is accepted afterwards");
}
$nginx->stop;

# ---- errors of the server
my $wire = Pgq::Wire->new($pg)->start;
$nginx = Pgq::Nginx->new(conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=1', timeout => '1s')->start;
$client = Pgq::Client->new($nginx);
is($client->post('/post', '1')->status, 202, 'a message is accepted through the proxy');

my $position = $nginx->log_position;
$wire->plan({ in => 'enqueue', before => 'CommandComplete', do => 'insert', bytes => Pgq::Wire->warning('01000', $text) });
is($client->post('/post', '1')->status, 202, 'a message is accepted although the server sends a WARNING');
like($nginx->log_since($position), qr/ warns: first \(01000\), pool "main"$/m, 'the first line of a WARNING is logged');
one_line_each($nginx, $position, 'a WARNING of the server');

$position = $nginx->log_position;
$wire->plan({ in => 'enqueue', before => 'Bind', do => 'answer', bytes => Pgq::Wire->error('57000', "\e[2J$text") . Pgq::Wire->ready });
is($client->post('/post', '1')->status, 202, 'a message is sent again after an error of the server');
like($nginx->log_since($position), qr/lost .*: \\x1b\[2Jfirst \(57000/, 'control characters of an error are escaped in the log');
one_line_each($nginx, $position, 'an error of the server');
$nginx->stop;
$wire->stop;

# ---- errors of the server during the connection's start
$nginx = Pgq::Nginx->new(conninfo => $pg->conninfo(user => 'ngx_pgq_web') . " dbname='first\n$forged'", pool => 'lanes=1', timeout => '100ms')->start;
is(Pgq::Client->new($nginx)->post('/post', '1')->status, 503, 'a message is refused if the database does not exist');
ok($nginx->wait_for_log(qr/retry in \d+ ms: .*first/), 'the log has the error of a database that does not exist');
one_line_each($nginx, 0, 'a database that does not exist');

done_testing;
