# nginx's resolver resolves the database's host names before each attempt to connect, without blocking. All addresses are
# tried, and the last known addresses are used while DNS fails.

use Pgq;
use Pgq::Dns;
use Time::HiRes qw(time);

my $pg       = Pgq::Postgres->new(conf => "listen_addresses = '127.0.0.1,127.0.0.2,::1'")->start;
my $password = $pg->set_password('ngx_pgq_web');
my $dns      = Pgq::Dns->new->start;
my $port     = $pg->port;

Pgq::Host::spew("$pg->{data}/pg_hba.conf", Pgq::Host::slurp("$pg->{data}/pg_hba.conf"),
    "host all all 127.0.0.2/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n");
$pg->reload;

sub nginx {
    my ($host, %option) = @_;
    my $pool = delete $option{pool} // 'lanes=2 connect_timeout=1s';

    return Pgq::Nginx->new(
        conninfo => "host=$host port=$port dbname=posts user=ngx_pgq_web password=$password",
        pool     => "$pool verify=off",
        timeout  => $option{timeout} // '20s',
        ring     => $option{ring},
        http     => "resolver @{[ $dns->address ]}; resolver_timeout @{[ $option{resolver_timeout} // '5s' ]};",
    );
}

# Terminates nginx's sessions and waits until they have ended.
sub terminate {
    my $pids = join(', ', $pg->web_sessions) || 0;

    $pg->terminate_web_sessions;
    $pg->poll_query_until("select count(*) from pg_stat_activity where pid in ($pids)", 0);

    return;
}

subtest 'a name that is unknown at start is resolved later' => sub {
    my $nginx    = nginx('db.test')->start;
    my $client   = Pgq::Client->new($nginx);
    my $position = 0;

    ok($nginx->wait_for_log(qr/\[error\].* pgq lane: could not connect to db\.test:$port, retry in \d+ ms: its name has no address: Host not found/),
        'the log has an error about the unknown name');
    $client->send_post('/post', '"early"');
    not_blocked($nginx, 'an unknown name');
    is(scalar(() = $nginx->log_since(0) =~ /pgq lane: (?:lost|could not connect to)/g), 2, 'the error about the unknown name is logged once for each lane');

    $dns->say('db.test' => { a => ['127.0.0.1'] });
    is($client->answer->status, 202, 'a waiting request is accepted after the name becomes known');
    ok($nginx->wait_for_log(qr/pgq resolve: "db\.test" is 127\.0\.0\.1\n/), 'the log has the address of the name');
    $nginx->stop;
};

subtest 'a changed address is used without a reload' => sub {
    $dns->say('db.test' => { a => ['127.0.0.1'] });
    my $nginx  = nginx('db.test')->start;
    my $client = Pgq::Client->new($nginx);

    is($client->post('/post', '"first"')->status, 202, 'the first address is used');

    # The TTL is one second, and the server no longer listens on the old address.
    $dns->say('db.test' => { a => ['127.0.0.2'] });
    $pg->append_conf("listen_addresses = '127.0.0.2,::1'");
    $pg->restart;
    is($client->post('/post', '"second"')->status, 202, 'the new address is used');
    like($nginx->log_since(0), qr/pgq resolve: "db\.test" is 127\.0\.0\.2\n/, 'the log has the new address');

    SKIP: {
        skip 'this machine has no IPv6', 2 if Pgq::Host::slurp('/proc/net/if_inet6') !~ /^0{31}1 /m;
        $dns->say('db.test' => { aaaa => ['::1'] });
        $pg->append_conf("listen_addresses = '::1'");
        $pg->restart;
        is($client->post('/post', '"third"')->status, 202, 'a new IPv6 address is used');
        like($nginx->log_since(0), qr/pgq resolve: "db\.test" is ::1\n/, 'the log has the new IPv6 address');
    }

    $pg->append_conf("listen_addresses = '127.0.0.1,127.0.0.2,::1'");
    $pg->restart;
    $nginx->stop;
};

subtest 'all addresses of a name are tried' => sub {
    $dns->say('many.test' => { a => [ map { "127.0.0.$_" } 3 .. 8, 2 ], aaaa => ['fd00::1'], ttl => 600 });
    my $nginx = nginx('many.test', pool => 'lanes=1')->start;
    my $start = time;

    is(Pgq::Client->new($nginx)->post('/post', '"many"')->status, 202, 'the addresses are tried until one answers');
    cmp_ok(time - $start, '<', timeout(1.4), 'the addresses are tried without delay');
    my $asked = $dns->asked('many.test');
    cmp_ok($asked, '<=', 2, 'the addresses are resolved once for each type');
    terminate();
    is(Pgq::Client->new($nginx)->post('/post', '"again"')->status, 202, 'a lost connection is replaced');
    is($dns->asked('many.test'), $asked, 'a lost connection is replaced without a query while the TTL lasts');
    $nginx->stop;
};

for my $failure ([ 'no answer' => { silent => 1 } ], [ 'no such name' => { code => 3 } ], [ 'a failure' => { code => 2 } ]) {
    my ($name, $answer) = @$failure;

    subtest "the last addresses are used when DNS fails later: $name" => sub {
        $dns->say('db.test' => { a => ['127.0.0.1'] });
        my $nginx  = nginx('db.test', resolver_timeout => '2s')->start;
        my $client = Pgq::Client->new($nginx);
        is($client->post('/post', '"known"')->status, 202, 'the address is used');

        $dns->say('db.test' => $answer);
        my $position = $nginx->log_position;
        my $asked    = $dns->asked('db.test');
        ok((poll_until { terminate(); $dns->asked('db.test') > $asked }), 'the name is resolved again after its TTL');
        not_blocked($nginx, $name);
        is($client->post('/post', '"still"')->status, 202, 'a message is accepted over the last known address');
        ok($nginx->wait_for_log(qr/\[warn\].* pgq resolve: "db\.test": .*, keeping its last addresses/, $position),
            'the log has a warning that the last addresses are used');

        for (1 .. 3) {
            terminate();
            is($client->post('/post', '"and again"')->status, 202, 'a message is accepted again over the last known address');
        }

        is(scalar(() = $nginx->log_since($position) =~ /pgq resolve/g), 1, 'the warning is logged once');
        $nginx->stop;
    };
}

subtest 'nginx waits for a slow DNS answer' => sub {
    $dns->say('slow.test' => { a => ['127.0.0.1'], slow => 0.7 });
    my $nginx  = nginx('slow.test', pool => 'lanes=2 connect_timeout=10s')->start;
    my $client = Pgq::Client->new($nginx);

    $client->send_post('/post', '"slow"');
    not_blocked($nginx, 'a slow DNS answer');
    is($client->answer->status, 202, 'a message waits for the DNS answer');
    unlike($nginx->log_since(0), qr/pgq lane: (?:lost|could not connect)/, 'no error is logged while nginx waits for the DNS answer');
    $nginx->stop;

    # An answer after the connect timeout is used by a later attempt.
    $dns->say('slower.test' => { a => ['127.0.0.1'], slow => 2 });
    $nginx  = nginx('slower.test', pool => 'lanes=1 connect_timeout=100ms', timeout => '20s')->start;
    $client = Pgq::Client->new($nginx);
    is($client->post('/post', '"slower"')->status, 202, 'a DNS answer after the connect timeout is used');
    like($nginx->log_since(0), qr/pgq lane: could not connect to slower\.test:$port.*its name has no address: no answer yet/, 'an attempt without a DNS answer is logged');
    $nginx->stop;
};

subtest 'all lanes of a worker wait for one DNS answer' => sub {
    $dns->say('shared.test' => { a => ['127.0.0.1'], slow => 1, ttl => 600 });
    my $nginx = nginx('shared.test', pool => 'lanes=2 connect_timeout=60s', timeout => '10s', ring => '');
    $nginx->start;
    my ($poster, $reader) = map { Pgq::Client->new($nginx) } 1 .. 2;

    $reader->send("GET /get HTTP/1.1\r\nHost: localhost\r\n\r\n");
    is($poster->post('/post', '"shared"')->status, 202, 'a POST does not wait longer because the follower and a GET use the same name');
    is($reader->answer->status, 200, '... and neither does the GET');
    ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where query like '%ngx_pgq.follow(%' and pid <> pg_backend_pid()}, 1),
        '... and neither does the follower');
    is($dns->asked('shared.test'), 2, 'the name is resolved once for each type');
    $nginx->stop;
};

subtest 'a name without a DNS answer does not block another host' => sub {
    $dns->say('gone.test' => { silent => 1 }, 'db.test' => { a => ['127.0.0.1'] });
    my $nginx = nginx('gone.test,db.test')->start;

    is(Pgq::Client->new($nginx)->post('/post', '"other"')->status, 202, 'a message is accepted by the other host');
    $nginx->stop;
};

subtest 'nginx quits during a DNS query' => sub {
    my $nginx = nginx('gone.test', resolver_timeout => '60s', pool => 'lanes=2 connect_timeout=60s', timeout => '1s')->start;

    ok((poll_until { $dns->asked('gone.test') }), 'the name is queried');
    my $start = time;
    $nginx->stop('QUIT');
    cmp_ok(time - $start, '<', timeout(5), 'nginx does not wait for the DNS answer when it quits');
};

subtest 'localhost is not resolved by the resolver' => sub {
    my $nginx = nginx('localhost')->start;

    is(Pgq::Client->new($nginx)->post('/post', '"local"')->status, 202, 'a message is accepted over localhost');
    is($dns->asked('localhost'), 0, 'localhost is not queried');
    $nginx->stop;
};

$dns->stop;
done_testing;
