# target_session_attrs: which servers are taken, and that a lane leaves a server at once that ends or changes its role,
# with a statement under way or without.

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

# Where the lanes of POSTs are, once both are there and have prepared their last statement; by the server's name.
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

    $pg->safe_psql("alter system set default_transaction_read_only = $value");
    $pg->reload;
    $pg->poll_query_until('show default_transaction_read_only', $value);
}

my @both = ($standby, $pg);

for my $case (['' => 'postgres'], ['read-write' => 'postgres'], ['primary' => 'postgres'], ['any' => 'standby'],
    ['standby' => 'standby'], ['read-only' => 'standby'], ['prefer-standby' => 'standby'])
{
    my ($attrs, $expected) = @$case;

    my $nginx = nginx($attrs, @both);
    is(lanes_at(@both), $expected, ($attrs || 'no setting') . ": of a standby and a primary the $expected");
    is(Pgq::Client->new($nginx)->get('/get')->status, 200, ($attrs || 'no setting') . ': and it answers');
    $nginx->stop;

    next if !$attrs || $attrs eq 'any';
    $nginx = nginx($attrs, reverse @both);
    is(lanes_at(@both), $expected, "$attrs: in whatever order");
    $nginx->stop;
}

my $nginx = nginx('prefer-standby', $pg);
is(lanes_at($pg), 'postgres', 'prefer-standby: the primary where there is no standby');
$nginx->stop;

subtest 'an idle lane' => sub {
    my $nginx = nginx('', $pg);
    lanes_at($pg);

    my $position = $nginx->log_position;
    $pg->safe_psql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ngx_pgq_web'");
    ok($nginx->wait_for_log(qr/pgq lane: lost .*: terminating connection due to administrator command \(57P01, 0 requests/, $position),
        'leaves a server that says goodbye, and says why');
    is(Pgq::Client->new($nginx)->post('/post', '"after"')->status, 202, 'the next request does not notice');
    $nginx->stop;
};

subtest 'a server that becomes read-only' => sub {
    my $nginx  = nginx('', $pg, $standby);
    my $client = Pgq::Client->new($nginx);
    is($client->post('/post', '"writable"')->status, 202, 'it is written to');
    is($client->get('/get')->status, 200, 'and read');

    # (a server says it with the end of the next statement, which is the one of GET)
    my $position = $nginx->log_position;
    read_only($pg, 'on');
    is($client->get('/get')->status, 200, 'reading goes on');
    ok($nginx->wait_for_log(qr/pgq lane: lost .*: the server's role has changed \(role, /, $position), 'its lane leaves it');

    $client->send($client->request('POST', '/post', body => '"patient"', headers => { 'Content-Type' => 'application/json' }));
    ok($nginx->wait_for_log(qr/pgq lane: could not connect to .*read-only/, $position), 'and does not come back');
    read_only($pg, 'off');
    is($client->answer->status, 202, 'until it is writable');
    undef $client;
    $nginx->stop;
};

subtest 'read-only is wanted' => sub {
    my $nginx  = nginx('read-only', $pg);
    my $client = Pgq::Client->new($nginx);

    $nginx->wait_for_log(qr/pgq lane: could not connect to .*session is not read-only/);
    read_only($pg, 'on');
    is($client->get('/get')->status, 200, 'a server that is set so is taken');
    my $position = $nginx->log_position;
    read_only($pg, 'off');
    is($client->get('/get')->status, 200, 'it becomes writable');
    ok($nginx->wait_for_log(qr/pgq lane: lost .*: the server's role has changed/, $position), 'and is left');
    undef $client;
    $nginx->stop;
};

subtest 'a standby that is promoted' => sub {
    my $nginx  = nginx('standby', $standby);
    my $writer = nginx('', @both);
    my $reader = Pgq::Client->new($nginx);
    my $client = Pgq::Client->new($writer);

    is($reader->get('/get')->status, 200, 'it is read from');
    is($client->post('/post', '"before"')->status, 202, 'and the primary written to');

    $pg->poll_query_until(q{select count(*) from posts where data::text = '"before"'}, 1);
    my $end = $pg->safe_psql('select pg_current_wal_insert_lsn()');
    $standby->poll_query_until("select pg_last_wal_replay_lsn() >= '$end'");

    my $position = $nginx->log_position;
    $pg->stop('immediate');
    $standby->promote;

    is($client->post('/post', '"then"')->status, 202, 'who writes finds it');
    is($reader->get('/get')->status, 200, 'who reads is answered');
    ok($nginx->wait_for_log(qr/pgq lane: lost .*: the server's role has changed/, $position), 'and leaves it');
    ok($nginx->wait_for_log(qr/pgq lane: could not connect to .*server is not in hot standby mode/, $position), 'for it is no standby any more');

    # the former primary comes back as a standby of the other
    Pgq::Host::spew("$pg->{data}/standby.signal", '');
    $pg->own("$pg->{data}/standby.signal");
    $pg->start;
    is($client->post('/post', '"still"')->status, 202, 'writing stays with the new primary');
    undef $reader;
    undef $client;
    $_->stop for $nginx, $writer;
};

done_testing;
