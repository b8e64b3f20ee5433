# P1, P3: five hosts, two doors, one queue. A message that either door takes is on two machines and becomes one post,
# which both doors show; a switchover under load is a pause, and no client sees an error.

use Pgq;
use Pgq::Cluster;

my $cluster = Pgq::Cluster->new;
my %client  = map { $_->name => Pgq::Client->new($_) } $cluster->webs;
my $stamp   = time;

ok($cluster->settled, 'a leader, and all others synchronous standbys');

# ---- each door

for my $web (sort keys %client) {
    my $answer = $client{$web}->post('/post', qq({"smoke": "$web $stamp"}));

    is($answer->status, 202, "$web takes a message");
    ok($cluster->poll_query_until(
        "select count(*) from posts where message_id = '" . $answer->json->{id} . q(') . " and data->>'smoke' = '$web $stamp'", 1),
        'which becomes a post, once');

    for my $other (sort keys %client) {
        my $page = $client{$other}->get('/get?limit=100');
        ok((grep { (ref $_->{data} eq 'HASH' ? $_->{data}{smoke} // '' : '') eq "$web $stamp" } @{ $page->json->{msg} }),
            "and $other shows it");
    }
}

is($cluster->safe_psql('show synchronous_standby_names') =~ /^ANY 1 \(pg\d,pg\d\)$/ ? 'quorum' : 'none', 'quorum',
    'a commit waits for one of two standbys');
is($cluster->safe_psql('show ngx_pgq.synchronous'), 'on', 'and no message is taken while commits would wait for none');
is($cluster->safe_psql("select string_agg(distinct s.ssl::text || ' ' || s.version, ', ') from pg_stat_ssl s
     join pg_stat_activity a using (pid) where a.client_addr is not null"), 'true TLSv1.3', 'every connection is TLS');

# ---- a switchover under load

my $load   = $cluster->load->start;
my $before = $cluster->leader;

ok($load->wait_for(50), 'a load on both');
ok($cluster->switchover, 'a switchover');
ok($load->wait_for(50), 'and the load goes on');
$load->stop;

isnt($cluster->leader, $before, 'another member leads');
diag(sprintf 'switchover: longest time without a 202 %.2f s; %s', $load->gap, $load->summary);
is($load->failures, '', 'no request fails');
is(join("\n", $load->complaints), '', 'what was accepted is in posts, once');
cmp_ok($load->gap, '<', timeout(10), 'a pause of seconds');
ok($cluster->settled, 'and all are back');

done_testing;
