# Names of hosts are looked up while nginx runs, by its resolver: before each attempt to connect, without anybody
# waiting for it, all addresses are tried, and the last that are known stay in use when DNS fails.

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
        http     => "resolver @{[ $dns->address ]}; resolver_timeout @{[ $option{resolver_timeout} // '5s' ]};",
    );
}

# Ends all connections.
sub ends {
    my $user = "usename = 'ngx_pgq_web'";
    my $pids = $pg->safe_psql("select string_agg(pid::text, ', ') from pg_stat_activity where $user") || 0;

    $pg->safe_psql("select pg_terminate_backend(pid) from pg_stat_activity where $user");
    $pg->poll_query_until("select count(*) from pg_stat_activity where pid in ($pids)", 0);

    return;
}

# Whether other requests are answered at once, while something is under way.
sub serves {
    my ($nginx, $name) = @_;
    my $start = time;

    is(Pgq::Client->new($nginx)->get('/nowhere')->status, 404, "$name: nginx goes on");
    cmp_ok(time - $start, '<', timeout(0.5), "$name: and waits for nothing");

    return;
}

subtest 'a name that is not known at start' => sub {
    my $nginx    = nginx('db.test')->start;
    my $client   = Pgq::Client->new($nginx);
    my $position = 0;

    ok($nginx->wait_for_log(qr/\[error\].* pgq lane: could not connect to db\.test:$port, retry in \d+ ms: its name has no address: Host not found/),
        'it is a line in the log');
    $client->send($client->request('POST', '/post', body => '"early"', headers => { 'Content-Type' => 'application/json' }));
    serves($nginx, 'while it is asked for');
    is(scalar(() = $nginx->log_since(0) =~ /pgq lane: (?:lost|could not connect to)/g), 2, 'one line for each lane');

    $dns->say('db.test' => { a => ['127.0.0.1'] });
    is($client->answer->status, 202, 'a request that waited is answered once the name is known');
    ok($nginx->wait_for_log(qr/pgq resolve: "db\.test" is 127\.0\.0\.1\n/), 'its address is in the log');
    undef $client;
    $nginx->stop;
};

subtest 'addresses that change' => sub {
    $dns->say('db.test' => { a => ['127.0.0.1'] });
    my $nginx  = nginx('db.test')->start;
    my $client = Pgq::Client->new($nginx);

    is($client->post('/post', '"first"')->status, 202, 'the first address is used');

    # (TTL is a second; the old address answers nobody any more)
    $dns->say('db.test' => { a => ['127.0.0.2'] });
    $pg->append_conf("listen_addresses = '127.0.0.2,::1'");
    $pg->restart;
    is($client->post('/post', '"second"')->status, 202, 'the new one is found without a reload');
    like($nginx->log_since(0), qr/pgq resolve: "db\.test" is 127\.0\.0\.2\n/, 'and named in the log');

    SKIP: {
        skip 'this machine has no IPv6', 2 if Pgq::Host::slurp('/proc/net/if_inet6') !~ /^0{31}1 /m;
        $dns->say('db.test' => { aaaa => ['::1'] });
        $pg->append_conf("listen_addresses = '::1'");
        $pg->restart;
        is($client->post('/post', '"third"')->status, 202, 'one of IPv6, too');
        like($nginx->log_since(0), qr/pgq resolve: "db\.test" is ::1\n/, 'and named in the log');
    }

    $pg->append_conf("listen_addresses = '127.0.0.1,127.0.0.2,::1'");
    $pg->restart;
    undef $client;
    $nginx->stop;
};

subtest 'several addresses' => sub {
    $dns->say('many.test' => { a => [ map { "127.0.0.$_" } 3 .. 8, 2 ], aaaa => ['fd00::1'], ttl => 600 });
    my $nginx = nginx('many.test', pool => 'lanes=1')->start;
    my $start = time;

    is(Pgq::Client->new($nginx)->post('/post', '"many"')->status, 202, 'each is tried until one answers');
    cmp_ok(time - $start, '<', timeout(1.4), 'one soon after the other');
    my $asked = $dns->asked('many.test');
    cmp_ok($asked, '<=', 2, 'by one look-up, of two types');
    ends();
    is(Pgq::Client->new($nginx)->post('/post', '"again"')->status, 202, 'a connection that was lost is made again');
    is($dns->asked('many.test'), $asked, 'without a look-up, as long as the TTL says');
    $nginx->stop;
};

for my $failure ([ 'no answer' => { silent => 1 } ], [ 'no such name' => { code => 3 } ], [ 'a failure' => { code => 2 } ]) {
    my ($name, $said) = @$failure;

    subtest "DNS fails later: $name" => sub {
        $dns->say('db.test' => { a => ['127.0.0.1'] });
        my $nginx  = nginx('db.test', resolver_timeout => '2s')->start;
        my $client = Pgq::Client->new($nginx);
        is($client->post('/post', '"known"')->status, 202, 'the address is known');

        $dns->say('db.test' => $said);
        my $position = $nginx->log_position;
        my $asked    = $dns->asked('db.test');
        ok((poll_until { ends(); $dns->asked('db.test') > $asked }), 'when its TTL is over it is asked for again');
        serves($nginx, $name);
        is($client->post('/post', '"still"')->status, 202, 'the last address is still used');
        ok($nginx->wait_for_log(qr/\[warn\].* pgq resolve: "db\.test": .*, keeping its last addresses/, $position),
            'the log says so');

        for (1 .. 3) {
            ends();
            is($client->post('/post', '"and again"')->status, 202, 'as often as it takes');
        }

        is(scalar(() = $nginx->log_since($position) =~ /pgq resolve/g), 1, 'and the log says it once');
        undef $client;
        $nginx->stop;
    };
}

subtest 'a slow answer' => sub {
    $dns->say('slow.test' => { a => ['127.0.0.1'], slow => 0.7 });
    my $nginx  = nginx('slow.test', pool => 'lanes=2 connect_timeout=10s')->start;
    my $client = Pgq::Client->new($nginx);

    $client->send($client->request('POST', '/post', body => '"slow"', headers => { 'Content-Type' => 'application/json' }));
    serves($nginx, 'meanwhile');
    is($client->answer->status, 202, 'is waited for');
    unlike($nginx->log_since(0), qr/pgq lane: (?:lost|could not connect)/, 'without a complaint');
    undef $client;
    $nginx->stop;

    # longer than an attempt may take: the answer is for a later one
    $dns->say('slower.test' => { a => ['127.0.0.1'], slow => 2 });
    $nginx  = nginx('slower.test', pool => 'lanes=1 connect_timeout=100ms', timeout => '20s')->start;
    $client = Pgq::Client->new($nginx);
    is($client->post('/post', '"slower"')->status, 202, 'and used when it comes late');
    like($nginx->log_since(0), qr/pgq lane: could not connect to slower\.test:$port.*its name has no address: no answer yet/, 'after a complaint');
    undef $client;
    $nginx->stop;
};

subtest 'one name of several' => sub {
    $dns->say('gone.test' => { silent => 1 }, 'db.test' => { a => ['127.0.0.1'] });
    my $nginx = nginx('gone.test,db.test')->start;

    is(Pgq::Client->new($nginx)->post('/post', '"other"')->status, 202, 'that has no answer does not keep from the others');
    $nginx->stop;
};

subtest 'nginx quits while a name is looked up' => sub {
    my $nginx = nginx('gone.test', resolver_timeout => '60s', pool => 'lanes=2 connect_timeout=60s', timeout => '1s')->start;

    ok((poll_until { $dns->asked('gone.test') }), 'the name is asked for');
    my $start = time;
    $nginx->stop('QUIT');
    cmp_ok(time - $start, '<', timeout(5), 'it waits for no answer');
};

subtest 'names that need no resolver' => sub {
    my $nginx = nginx('localhost')->start;

    is(Pgq::Client->new($nginx)->post('/post', '"local"')->status, 202, 'localhost is not asked for');
    is($dns->asked('localhost'), 0, 'of the resolver');
    $nginx->stop;
};

$dns->stop;
done_testing;
