# P1, P2: a commit waits for a standby, and somebody cancels or terminates it: it is committed here, and on no other
# machine. That is no 202. The same key again finds it, and waits for the standby as well.

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

# Somebody cancels until the message is committed on the primary: nobody sees it there before.
my $alone = sub {
    ok((poll_until {
        $cluster->safe_psql("select pg_cancel_backend(pid) $waiting");
        return $cluster->safe_psql(qq(select count(*) from ngx_pgq.queue where data::text = '{"key": "$key"}'));
    } 30), 'the message is committed, on one machine');
};

$test->round(sub {
    $cluster->must($_, qw(systemctl freeze patroni)) for @standbys;

    $client->send($client->request('POST', '/post', body => qq({"key": "$key"}), headers => { 'Content-Type' => 'application/json', %header }));

    for my $end (qw(cancel terminate cancel terminate)) {
        ok($cluster->poll_query_until("select count(*) > 0 $waiting", 't'), 'commits wait');
        cmp_ok($cluster->safe_psql("select count(pg_${end}_backend(pid)) $waiting"), '>', 0, "$end");
    }
    $alone->();
    ok(!$client->answer(timeout => 0.5), 'that is no 202');

    $other = Pgq::Client->new(($cluster->webs)[1]);
    $other->send($other->request('POST', '/post', body => qq({"key": "$key"}), headers => { 'Content-Type' => 'application/json', %header }));
    ok(!$other->answer(timeout => 3), 'nor is it for the same key again');
    $test->accepts_nothing(3);
}, stops_load => 1, repair => sub { $cluster->must($_, qw(systemctl thaw patroni)) for @standbys });

$first = $client->answer;
is($first && $first->status, 202, 'the message is accepted when a standby has it');

my $late = $other->answer;
is($late && $late->status, 202, 'and so is the same key again');
is($late->json->{id}, $first->json->{id}, 'which is the same message');

my $again = Pgq::Client->new($web)->post('/post', qq({"key": "$key"}), %header);
is($again->status, 202, 'the same key again');
is($again->json->{id}, $first->json->{id}, 'is the same message');
is($again->header('idempotency-replayed'), 'true', 'and says so');

$test->end;
is($cluster->safe_psql(qq(select count(*) from posts where data::text = '{"key": "$key"}')), 1, 'it is there once');

# ---- the machine that alone had it is gone for a while: a new one has to take it

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
    $alone->();
    $cluster->do_to(off => $leader);
}, repair => sub { $cluster->do_to(up => $leader) });

$again = Pgq::Client->new($web)->post('/post', qq({"key": "$key"}), %header);
is($again->status, 202, 'the same key again');
$first = $client->answer;
is($first->json->{id}, $again->json->{id}, 'the same message, if the first was accepted at all') if $first && $first->status == 202;
$test->end;
is($cluster->safe_psql(qq(select count(*) from posts where data::text = '{"key": "$key"}')), 1, 'it is there once');

done_testing;
