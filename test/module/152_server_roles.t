# target_session_attrs selects the servers that are used. A lane closes its connection when the server shuts down or changes
# its role, with and without a statement in flight.

use Pgq;
use Time::HiRes qw(time);

my $pg       = Pgq::Postgres->new->start;
my $standby  = Pgq::Postgres->new(name => 'standby', backup_of => $pg)->start;
my $password = $pg->set_password('ngx_pgq_web');

$standby->poll_query_until(q{select rolpassword is not null from pg_authid where rolname = 'ngx_pgq_web'});

sub nginx {
    my ($attrs, @servers) = @_;

    return Pgq::Nginx->new(
        conninfo => 'host=' . join(',', ('127.0.0.1') x @servers) . ' port=' . join(',', map { $_->port } @servers)
            . " dbname=posts user=ngx_pgq_web password=$password" . ($attrs ? " target_session_attrs=$attrs" : ''),
        pool     => 'lanes=2', timeout => '20s',
    )->start;
}

# Returns the name of the server to which both lanes of POSTs are connected, after they have prepared their last statement.
sub lanes_at {
    my (@servers) = @_;

    my $where = poll_until {
        my %count = map {
            $_->name => $_->safe_psql(q{select count(*) from pg_stat_activity where usename = 'ngx_pgq_web'
                and state = 'idle' and query ~ 'fence'})
        } @servers;
        my ($all) = grep { $count{$_} == 2 } keys %count;
        return $all // '';
    } 15;

    return $where || 'nowhere';
}

sub read_only {
    my ($pg, $value) = @_;

    $pg->set(default_transaction_read_only => $value);
    $pg->poll_query_until('show default_transaction_read_only', $value);
}

my @both = ($standby, $pg);

for my $case (['' => 'postgres'], ['read-write' => 'postgres'], ['primary' => 'postgres'], ['any' => 'standby'],
    ['standby' => 'standby'], ['read-only' => 'standby'], ['prefer-standby' => 'standby'])
{
    my ($attrs, $expected) = @$case;

    my $nginx = nginx($attrs, @both);
    is(lanes_at(@both), $expected, ($attrs || 'no setting') . ": the lanes use the $expected");
    is(Pgq::Client->new($nginx)->get('/get')->status, 200, ($attrs || 'no setting') . ': a GET is answered');
    $nginx->stop;

    next if !$attrs || $attrs eq 'any';
    $nginx = nginx($attrs, reverse @both);
    is(lanes_at(@both), $expected, "$attrs: the order of the hosts does not matter");
    $nginx->stop;
}

my $nginx = nginx('prefer-standby', $pg);
is(lanes_at($pg), 'postgres', 'prefer-standby: the primary is used if there is no standby');
$nginx->stop;

subtest 'an idle lane is closed with its session' => sub {
    my $nginx = nginx('', $pg);
    lanes_at($pg);

    my $position = $nginx->log_position;
    $pg->terminate_web_sessions;
    ok($nginx->wait_for_log(qr/pgq lane: lost .*: terminating connection due to administrator command \(57P01, 0 requests/, $position),
        'the FATAL message is logged');
    is(Pgq::Client->new($nginx)->post('/post', '"after"')->status, 202, 'the next message is accepted');
    $nginx->stop;
};

subtest 'a server that becomes read-only is not used' => sub {
    my $nginx  = nginx('', $pg, $standby);
    my $client = Pgq::Client->new($nginx);
    is($client->post('/post', '"writable"')->status, 202, 'a message is accepted by the server');
    is($client->get('/get')->status, 200, 'a GET is answered by the server');

    # The server reports the change after the next statement, which is that of a GET.
    my $position = $nginx->log_position;
    read_only($pg, 'on');
    is($client->get('/get')->status, 200, 'a GET is answered while the server becomes read-only');
    ok($nginx->wait_for_log(qr/pgq lane: lost .*: the server's role has changed \(role, /, $position), 'the lane is closed because the role has changed');

    $client->send_post('/post', '"waiting"');
    ok($nginx->wait_for_log(qr/pgq lane: could not connect to .*read-only/, $position), 'the read-only server is not used');
    read_only($pg, 'off');
    is($client->answer->status, 202, 'a waiting message is accepted when the server is writable again');
    $nginx->stop;
};

subtest 'read-only: a server that becomes writable is not used' => sub {
    my $nginx  = nginx('read-only', $pg);
    my $client = Pgq::Client->new($nginx);

    $nginx->wait_for_log(qr/pgq lane: could not connect to .*session is not read-only/);
    read_only($pg, 'on');
    is($client->get('/get')->status, 200, 'a read-only server is used');
    my $position = $nginx->log_position;
    read_only($pg, 'off');
    is($client->get('/get')->status, 200, 'a GET is answered while the server becomes writable');
    ok($nginx->wait_for_log(qr/pgq lane: lost .*: the server's role has changed/, $position), 'the lane is closed because the role has changed');
    $nginx->stop;
};

subtest 'standby: a server that is promoted is not used' => sub {
    my $nginx  = nginx('standby', $standby);
    my $writer = nginx('', @both);
    my $reader = Pgq::Client->new($nginx);
    my $client = Pgq::Client->new($writer);

    is($reader->get('/get')->status, 200, 'a GET is answered by the standby');
    is($client->post('/post', '"before"')->status, 202, 'a message is accepted by the primary');

    $pg->poll_query_until(q{select count(*) from posts where data::text = '"before"'}, 1);
    my $end = $pg->safe_psql('select pg_current_wal_insert_lsn()');
    $standby->poll_query_until("select pg_last_wal_replay_lsn() >= '$end'");

    my $position = $nginx->log_position;
    $pg->stop('immediate');
    $standby->promote;

    is($client->post('/post', '"then"')->status, 202, 'a message is accepted by the promoted server');
    is($reader->get('/get')->status, 200, 'a GET is answered after the promotion');
    ok($nginx->wait_for_log(qr/pgq lane: lost .*: the server's role has changed/, $position), 'the lane of the reader is closed because the role has changed');
    ok($nginx->wait_for_log(qr/pgq lane: could not connect to .*server is not in hot standby mode/, $position), 'the promoted server is not used as a standby');

    # The former primary is started as a standby.
    Pgq::Host::spew("$pg->{data}/standby.signal", '');
    $pg->own("$pg->{data}/standby.signal");
    $pg->start;
    is($client->post('/post', '"still"')->status, 202, 'a message is accepted by the new primary when the old one is a standby');
    $_->stop for $nginx, $writer;
};

done_testing;
