# Several hosts: the module finds the one that accepts writes, and another one after a failover.

use Pgq;

my $pg       = Pgq::Postgres->new->start;
my $standby  = Pgq::Postgres->new(name => 'standby', backup_of => $pg)->start;
my $password = $pg->set_password('ngx_pgq_web');
my $unused   = Pgq::Host::free_port();

my $nginx = Pgq::Nginx->new(
    conninfo => 'host=localhost,127.0.0.1,127.0.0.1 port=' . join(',', $unused, $standby->port, $pg->port)
        . " dbname=posts user=ngx_pgq_web password=$password",
    pool     => 'lanes=2', timeout => '30s',
)->start;
my $client = Pgq::Client->new($nginx);

is($client->post('/post', '"first"')->{status}, 202, 'the primary is found after a host that is down and a standby');
like($nginx->log_since(0), qr/pgq lane: connected to 127\.0\.0\.1:@{[ $pg->port ]}/, 'the log has the address of the primary');

$pg->poll_query_until('select count(*) from posts', 1);
my $end = $pg->safe_psql('select pg_current_wal_insert_lsn()');
$standby->poll_query_until("select pg_last_wal_replay_lsn() >= '$end'");
$pg->stop('immediate');
$standby->promote;

is($client->post('/post', '"second"')->{status}, 202, 'the new primary is found after a failover');
ok($standby->poll_query_until('select count(*) from posts', 2), "the new primary's mover moves messages");

done_testing;
