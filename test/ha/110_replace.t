# P1, P2, P10: passwords are changed, and hosts are lost, recreated under their old names, added and removed, all
# under load. No request fails, no message is lost or duplicated, and the cluster ends as it began.

use Pgq;
use Pgq::Cluster;
use Pgq::Host qw(top run);

my $cluster = Pgq::Cluster->new;

ok($cluster->settled, 'one member leads and the others are synchronous standbys');

my @before  = map { $_->name } $cluster->databases;
my ($w1, $w2) = $cluster->webs;
my $load = $cluster->load(pause => 0.05)->start;

ok($load->wait_for(20), 'both web hosts accept messages');

# ---- passwords, by the commands of docs/runbook.md; the hosts that are recreated below need them

my %user    = (web => 'ngx_pgq_web', replicator => 'replicator', rewind => 'rewind');
my $secrets = top() . '/run/cluster/secrets';

for my $name (sort keys %user) {
    my ($status, $out, $err) = run([ 'bash', '-c', "openssl rand -hex 24 > $secrets/$name.password && " . top() . '/provision/cluster/cluster psql -Xq <<< '
        . qq("set log_statement = none; alter role $user{$name} password '\$(< $secrets/$name.password)'") ]);
    is("$status$out$err", '0', "the password of $user{$name} is changed");
}
is((run([ 'sh', '-c', "openssl rand -hex 24 > $secrets/rest.password" ]))[0], 0, "the password of Patroni's REST API is changed");

my $changed = $cluster->safe_psql('select clock_timestamp()');
ok($cluster->must_provision('start'), 'make cluster distributes the new passwords');
ok($load->wait_for(20), 'with the new passwords the load continues');
cmp_ok($cluster->safe_psql("select count(distinct application_name) from pg_stat_activity where usename = 'ngx_pgq_web' and backend_start > '$changed'"), '==', 2,
    'both web hosts have opened new connections');
ok($cluster->settled, 'with the new passwords all standbys replicate');

# ---- a standby's host

my ($standby) = grep { $_ ne $cluster->leader } @before;

ok($cluster->must_provision("lose $standby"), 'a standby host is destroyed');
ok($load->wait_for(20), 'without the standby host the load continues');
ok($cluster->must_provision('start'), 'the standby host is recreated');
ok($cluster->settled(120), 'the recreated standby host is a synchronous standby');
is($cluster->etcd_members, "@before", 'the recreated standby host votes in etcd');

# ---- the primary's host

my $primary = $cluster->leader;

ok($cluster->must_provision("lose $primary"), 'the primary host is destroyed');
ok($load->wait_for(20, 60), 'without the primary host the load continues');
isnt($cluster->leader, $primary, 'another member leads');
ok($cluster->must_provision('start'), 'the primary host is recreated');
ok($cluster->settled(120), 'the recreated primary host is a synchronous standby');
is($cluster->etcd_members, "@before", 'the recreated primary host votes in etcd');

# ---- hosts are added

my $etcd = sub { return join ' ', map { ($cluster->on($_, qw(systemctl show -p ActiveEnterTimestampMonotonic --value etcd)))[1] } @before };
my $running = $etcd->();

ok($cluster->must_provision('add database pg4'), 'a database host is added');
$cluster = Pgq::Cluster->new;
ok($cluster->settled, 'the added database host is a synchronous standby');
is($cluster->etcd_members, "@before pg4", 'the added database host votes in etcd');
is($etcd->(), $running, 'adding a database host restarts no etcd');

ok($cluster->must_provision('add web web3'), 'a web host is added');
$cluster = Pgq::Cluster->new;

my ($w3) = grep { $_->name eq 'web3' } $cluster->webs;
my $w3_accepts = sub {
    my $answer = Pgq::Client->new($w3)->post('/post', '"by web3"');
    return $answer->status == 202 && $cluster->poll_query_until(q(select count(*) from posts where message_id = ') . $answer->json->{id} . q('), 1);
};

ok($w3_accepts->(), 'the added web host accepts messages');
is(($cluster->on($cluster->leader, qw(patronictl -c /etc/patroni/config.yml switchover --candidate pg4 --force ngx_pgq)))[0], 0, 'the switchover to the added database host succeeds');
is($cluster->leader, 'pg4', 'the added database host leads');
ok($w3_accepts->(), 'with the added database host as primary the added web host accepts messages');
ok($load->wait_for(20), 'with the added database host as primary the other web hosts accept messages');

# ---- hosts are removed

my ($off) = $cluster->standbys;
$cluster->do_to(off => $off);
ok(!eval { $cluster->must_provision('remove pg4') }, 'no database host is removed while another one is off');
like($@, qr/another database host is away: pg4 cannot be removed/, 'the error says that another database host is off');
$cluster->do_to(up => $off);
ok($cluster->settled(120), 'the host that was off is a standby again');

ok($cluster->must_provision('remove pg4'), 'the added database host is removed while it is the primary');
ok($cluster->must_provision('remove web3'), 'the added web host is removed');
$cluster = Pgq::Cluster->new;
ok($cluster->settled, 'the remaining members are in their places');
is($cluster->etcd_members, "@before", 'the removed host is no member of etcd');

$load->stop;
diag(sprintf 'hosts destroyed, added, removed: longest time without a 202 %.2f s; %s', $load->gap, $load->summary);
is($load->failures, '', 'no request failed');
is(join("\n", $load->complaints), '', 'accepted messages are in posts once');

# ---- a web host is destroyed; its clients use the other one

my $other = Pgq::HttpLoad->new($w1, $cluster, new => 1, watch => 0, number => 'replace-' . time)->start;

ok($other->wait_for(20), 'the first web host accepts messages');
ok($cluster->must_provision("lose @{[ $w2->name ]}"), 'the second web host is destroyed');
ok($other->wait_for(20), 'without the second web host the load continues');
ok($cluster->must_provision('start'), 'the second web host is recreated');
is(Pgq::Client->new($w2)->post('/post', '"back"')->status, 202, 'the recreated web host accepts messages');
$other->stop;
is($other->failures, '', 'no request to the first web host failed');
is(join("\n", $other->complaints(60)), '', 'messages that the first web host accepted are in posts once');
ok($cluster->settled, 'all members have their roles again');

done_testing;
