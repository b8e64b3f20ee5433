# P1, P3: a message that either web host accepts is stored on two machines and becomes one post, which both web hosts
# show. A switchover under load is a pause; no request fails.

use Pgq;
use Pgq::Cluster;

my $cluster = Pgq::Cluster->new;
my %client  = map { $_->name => Pgq::Client->new($_) } $cluster->webs;
my $stamp   = time;

ok($cluster->settled, 'one member leads and the others are synchronous standbys');

# ---- each web host

for my $web (sort keys %client) {
    my $answer = $client{$web}->post('/post', qq({"smoke": "$web $stamp"}));

    is($answer->status, 202, "$web accepts a message");
    ok($cluster->poll_query_until(
        "select count(*) from posts where message_id = '" . $answer->json->{id} . q(') . " and data->>'smoke' = '$web $stamp'", 1),
        "a message that $web accepted becomes one post");

    for my $other (sort keys %client) {
        my $page = $client{$other}->get('/get?limit=100');
        ok((grep { (ref $_->{data} eq 'HASH' ? $_->{data}{smoke} // '' : '') eq "$web $stamp" } @{ $page->json->{msg} }),
            "$other shows the message that $web accepted");
    }
}

is($cluster->safe_psql('show synchronous_standby_names') =~ /^ANY 1 \(pg\d,pg\d\)$/ ? 'quorum' : 'none', 'quorum',
    'a commit waits for one of two standbys');
is($cluster->safe_psql('show ngx_pgq.synchronous'), 'on', 'ngx_pgq refuses messages while commits wait for no standby');
is($cluster->safe_psql("select string_agg(distinct s.ssl::text || ' ' || s.version, ', ') from pg_stat_ssl s
     join pg_stat_activity a using (pid) where a.client_addr is not null"), 'true TLSv1.3', 'every connection to PostgreSQL uses TLS 1.3');

# ---- a switchover under load

my $load   = $cluster->load->start;
my $before = $cluster->leader;

ok($load->wait_for(50), 'before the switchover each client has messages accepted');
ok($cluster->switchover, 'the switchover succeeds');
ok($load->wait_for(50), 'after the switchover each client has messages accepted');
$load->stop;

isnt($cluster->leader, $before, 'another member leads');
diag(sprintf 'switchover: longest time without a 202 %.2f s; %s', $load->gap, $load->summary);
is($load->failures, '', 'no request fails during the switchover');
is(join("\n", $load->complaints), '', 'accepted messages are in posts once');
cmp_ok($load->gap, '<', timeout(10), 'the longest time without a 202 is below ten seconds');
ok($cluster->settled, 'all members have their roles again');

done_testing;
