# P1, P2: a commit that waits for a standby is cancelled or terminated: its message is then on one machine only,
# and not acknowledged. A second request with the same key finds the message, and also waits for a standby.

use Pgq;
use Pgq::ClusterTest;

my $test     = Pgq::ClusterTest->new('waiting commits cancelled and terminated');
my $cluster  = $test->cluster;
my @standbys = $cluster->standbys;
my ($web)    = $cluster->webs;
my $key      = 'waits-' . time;
my $waiting  = "from pg_stat_activity where wait_event = 'SyncRep' and usename = 'ngx_pgq_web'";
my %header   = ('Idempotency-Key' => qq("$key"));
my $client   = Pgq::Client->new($web);
my ($first, $other);

# Cancels waiting commits until the message is visible on the primary.
my $cancel_until_visible = sub {
    ok((poll_until {
        $cluster->safe_psql("select pg_cancel_backend(pid) $waiting");
        return $cluster->safe_psql(qq(select count(*) from ngx_pgq.queue where data::text = '{"key": "$key"}'));
    } 30), 'a message whose commit is cancelled becomes visible on the primary');
};

$test->round(sub {
    $cluster->must($_, qw(systemctl freeze patroni)) for @standbys;

    $client->send($client->request('POST', '/post', body => qq({"key": "$key"}), headers => { 'Content-Type' => 'application/json', %header }));

    for my $end (qw(cancel terminate cancel terminate)) {
        ok($cluster->poll_query_until("select count(*) > 0 $waiting", 't'), "$end: commits wait for a standby");
        cmp_ok($cluster->safe_psql("select count(pg_${end}_backend(pid)) $waiting"), '>', 0, "$end: waiting commits are interrupted");
    }
    $cancel_until_visible->();
    ok(!$client->answer(timeout => 0.5), 'a message that is committed on one machine is not acknowledged');

    $other = Pgq::Client->new(($cluster->webs)[1]);
    $other->send($other->request('POST', '/post', body => qq({"key": "$key"}), headers => { 'Content-Type' => 'application/json', %header }));
    ok(!$other->answer(timeout => 3), 'a second request with the same key is not acknowledged either');
    $test->accepts_nothing(3);
}, stops_load => 1, repair => sub { $cluster->must($_, qw(systemctl thaw patroni)) for @standbys });

$first = $client->answer;
is($first && $first->status, 202, 'the message is accepted when a standby has it');

my $late = $other->answer;
is($late && $late->status, 202, 'the second request with the same key is accepted when a standby has the message');
is($late->json->{id}, $first->json->{id}, 'the second request with the same key gets the id of the first');

my $again = Pgq::Client->new($web)->post('/post', qq({"key": "$key"}), %header);
is($again->status, 202, 'a later request with the same key is accepted');
is($again->json->{id}, $first->json->{id}, 'a later request with the same key gets the same id');
is($again->header('idempotency-replayed'), 'true', 'a later request with the same key is marked as replayed');

$test->end;
is($cluster->safe_psql(qq(select count(*) from posts where data::text = '{"key": "$key"}')), 1, 'the message is in posts once');

# ---- the only machine that has the message is off for a while: the new primary has to accept it again

$test     = Pgq::ClusterTest->new('waiting commits cancelled, and their primary off', allow => 'unknown|refused|read_failed');
@standbys = $cluster->standbys;
$key     .= '-gone';
%header   = ('Idempotency-Key' => qq("$key"));
$client   = Pgq::Client->new($web);
my $leader = $cluster->leader;

$test->round(sub {
    $cluster->partition($leader, both => @standbys, 'tcp dport 5432', 'tcp sport 5432');
    $test->accepts_nothing(1);
    $client->send($client->request('POST', '/post', body => qq({"key": "$key"}), headers => { 'Content-Type' => 'application/json', %header }));
    $cancel_until_visible->();
    $cluster->do_to(off => $leader);
}, repair => sub { $cluster->do_to(up => $leader) });

$again = Pgq::Client->new($web)->post('/post', qq({"key": "$key"}), %header);
is($again->status, 202, 'the new primary accepts a request with the same key');
$first = $client->answer;
is($first->json->{id}, $again->json->{id}, 'both requests get the same id if the first one was accepted') if $first && $first->status == 202;
$test->end;
is($cluster->safe_psql(qq(select count(*) from posts where data::text = '{"key": "$key"}')), 1, 'after the takeover the message is in posts once');

done_testing;
