# P1, P2, P10: passwords are changed, hosts are lost for good, made anew under their old names, added and removed, all
# under load: no request fails, nothing is lost or there twice, and the cluster is what it was.

use Pgq;
use Pgq::Cluster;
use Pgq::Host qw(top temp_dir slurp run);

my $cluster = Pgq::Cluster->new;
my $log     = temp_dir('cluster') . '/log';

# What provision/cluster/cluster starts goes on when it has ended.
sub provision {
    my ($status) = (system(top() . "/provision/cluster/cluster @_ > $log 2>&1"));

    die("cluster @_: ", slurp($log)) if $status;

    return 1;
}

sub members {
    my ($status, $out) = $cluster->on($cluster->leader, '/usr/local/lib/ngx_pgq/etcdctl', 'member', 'list');

    return join ' ', sort map { /^\w+, started, (\w+), .*, false$/ ? $1 : "not: $_" } split /\n/, $out;
}

ok($cluster->settled, 'a leader, and all others synchronous standbys');

my @before  = map { $_->name } $cluster->databases;
my ($w1, $w2) = $cluster->webs;
my $load = $cluster->load(pause => 0.05)->start;

ok($load->wait_for(20), 'a load on both doors');

# ---- passwords, by the commands of docs/runbook.md; hosts that are lost and made anew below need them

my %user    = (web => 'ngx_pgq_web', replicator => 'replicator', rewind => 'rewind');
my $secrets = top() . '/run/cluster/secrets';

for my $name (sort keys %user) {
    my ($status, $out, $err) = run([ 'bash', '-c', "openssl rand -hex 24 > $secrets/$name.password && " . top() . '/provision/cluster/cluster psql -Xq <<< '
        . qq("set log_statement = none; alter role $user{$name} password '\$(< $secrets/$name.password)'") ]);
    is("$status$out$err", '0', "another password for $user{$name}");
}
is((run([ 'sh', '-c', "openssl rand -hex 24 > $secrets/rest.password" ]))[0], 0, "and for Patroni's REST");

my $changed = $cluster->safe_psql('select clock_timestamp()');
ok(provision('start'), 'each host is given them');
ok($load->wait_for(20), 'the load goes on');
cmp_ok($cluster->safe_psql("select count(distinct application_name) from pg_stat_activity where usename = 'ngx_pgq_web' and backend_start > '$changed'"), '==', 2,
    'by new connections of both web hosts');
ok($cluster->settled, 'with all standbys');

# ---- a standby's host

my ($standby) = grep { $_ ne $cluster->leader } @before;

ok(provision(lose => $standby), 'a standby is lost for good');
ok($load->wait_for(20), 'and the load goes on');
ok(provision('start'), 'it is made anew');
ok($cluster->settled(120), 'and is a standby again');
is(members(), "@before", 'and votes in etcd');

# ---- the primary's host

my $primary = $cluster->leader;

ok(provision(lose => $primary), 'the primary is lost for good');
ok($load->wait_for(20, 60), 'and the load goes on');
isnt($cluster->leader, $primary, 'with another one');
ok(provision('start'), 'it is made anew');
ok($cluster->settled(120), 'and is a standby');
is(members(), "@before", 'and votes in etcd');

# ---- more of each

my $etcd = sub { return join ' ', map { ($cluster->on($_, qw(systemctl show -p ActiveEnterTimestampMonotonic --value etcd)))[1] } @before };
my $running = $etcd->();

ok(provision(add => 'database', 'pg4'), 'a database host is added');
$cluster = Pgq::Cluster->new;
ok($cluster->settled, 'and is a synchronous standby');
is(members(), "@before pg4", 'and votes in etcd');
is($etcd->(), $running, 'and nobody\'s etcd was restarted for it');

ok(provision(add => 'web', 'web3'), 'a web host is added');
$cluster = Pgq::Cluster->new;

my ($w3) = grep { $_->name eq 'web3' } $cluster->webs;
my $door = sub {
    my $answer = Pgq::Client->new($w3)->post('/post', '"by web3"');
    return $answer->status == 202 && $cluster->poll_query_until(q(select count(*) from posts where message_id = ') . $answer->json->{id} . q('), 1);
};

ok($door->(), 'it takes messages');
is(($cluster->on($cluster->leader, qw(patronictl -c /etc/patroni/config.yml switchover --candidate pg4 --force ngx_pgq)))[0], 0, 'a switchover to pg4');
is($cluster->leader, 'pg4', 'which leads');
ok($door->(), 'for the new door, too');
ok($load->wait_for(20), 'and the others');

# ---- and less

my ($away) = $cluster->standbys;
$cluster->do_to(off => $away);
ok(!eval { provision(remove => 'pg4') }, 'nobody is removed while another is away');
like($@, qr/another database host is away: pg4 stays/, 'and that is said');
$cluster->do_to(up => $away);
ok($cluster->settled(120), 'it is back');

ok(provision(remove => 'pg4'), 'the new primary is removed');
ok(provision(remove => 'web3'), 'and the new door');
$cluster = Pgq::Cluster->new;
ok($cluster->settled, 'all others are back');
is(members(), "@before", 'and etcd has forgotten it');

$load->stop;
diag(sprintf 'hosts lost, added, removed: longest time without a 202 %.2f s; %s', $load->gap, $load->summary);
is($load->failures, '', 'no request failed');
is(join("\n", $load->complaints), '', 'what was accepted is in posts, once');

# ---- a web host, whose clients use the other

my $other = Pgq::HttpLoad->new($w1, $cluster, new => 1, watch => 0, number => 'replace-' . time)->start;

ok($other->wait_for(20), 'a load on one door');
ok(provision(lose => $w2->name), 'the other is lost for good');
ok($other->wait_for(20), 'the load goes on');
ok(provision('start'), 'it is made anew');
is(Pgq::Client->new($w2)->post('/post', '"back"')->status, 202, 'and takes messages');
$other->stop;
is($other->failures, '', 'no request at the first door failed');
is(join("\n", $other->complaints(60)), '', 'what was accepted is in posts, once');
ok($cluster->settled, 'and all are back');

done_testing;
