# Consumers that wait: a GET of /sub is answered when there is a post for it, when a lease ends, when its time is over, and when
# nginx exits. Calls are repeated until their outcome is known.

use Pgq;
use Pgq::Host qw(slurp);
use Time::HiRes qw(time);

my $sites = 'location /sub/ { pgq_subscription main; }';
my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1 connect_timeout=1s answer_timeout=2s', ring => 'poll=1s', locations => $sites)->start;

sub client { return Pgq::Client->new($nginx) }
sub put { my ($name, $body) = @_; return client()->method('PUT', "/sub/$name", $body) }
sub ack { my ($name, $upto, $generation, @more) = @_; return client()->post("/sub/$name/ack", join '', qq({"upto":$upto,"generation":$generation), @more, '}') }
sub ids { return join ' ', map { $_->{id} } @{ $_[0]->json->{msg} } }
sub insert { $pg->safe_psql(qq{insert into ngx_pgq.queue (data, topic) values ('1', '$_[0]')}); return $pg->wait_until_moved }

# A GET that waits: it has asked once, and is in no query now.
sub waiting {
    my ($path) = @_;
    my $before = $pg->safe_psql('select clock_timestamp()');
    my $client = client()->send_get("/sub/$path");
    poll_until {
        $pg->safe_psql("select count(*) from pg_stat_activity where query ~ 'fetch_json' and usename = 'ngx_pgq_web' and state = 'idle' and query_start > '$before'")
    };
    return $client;
}

put($_, '{"topics":["a"]}') for qw(jobs other);
put('empty', '{"topics":["none"]}');

# ---- a new post
my $start  = time;
my $client = waiting('jobs?wait=60');
not_blocked($nginx, 'while a consumer waits');
insert('b');
insert('a');
my $answer = $client->answer;
is(ids($answer), '2', 'a GET waits until there is a post with its topic');
ack('jobs', 2, $answer->json->{generation}, ',"release":true');
is(ids(client()->get('/sub/other', Prefer => 'wait=60')), '2', 'a GET with Prefer: wait is answered at once if there is one');
cmp_ok(time - $start, '<', timeout(20), '... all that without waiting for the end');

# ---- the end of the time
$start = time;
is(client()->get('/sub/empty?wait=2')->body, '{"msg":[]}', 'after its time a GET is answered without posts');
cmp_ok(time - $start, '>=', 2, '... not before');
is(client()->get('/sub/empty?wait=0', Prefer => 'wait=60')->body, '{"msg":[]}', 'wait counts, not Prefer');

# ---- another consumer's lease
put('leases', '{"start":0}');
my $first = client()->get('/sub/leases?lease=2')->json;
my $second = client()->get('/sub/leases?wait=60')->json;
is(join(' ', map { $_->{id} } @{ $second->{msg} }), '1 2', 'a consumer that waits takes the part when the lease of another one ends');
is_problem(ack('leases', 2, $first->{generation}), 409, 'fenced', 'the acknowledgement of the other one');
$client = waiting('leases?wait=60');
is(ack('leases', 1, $second->{generation}, ',"release":true')->status, 204, 'the part is released');
is(ids($client->answer), '2', '... and taken by one that waits');

# ---- a client that leaves
$client = waiting('jobs?wait=60');
$client->close;
insert('a');
ok((poll_until { ($answer = client()->get('/sub/jobs'))->body =~ /"id":3/ }), 'the post is not lost with a client that has left');
ack('jobs', 3, $answer->json->{generation});

# ---- another name, and no database
my $unknown = waiting('jobs?wait=60');
$pg->safe_psql(q{select ngx_pgq.unsubscribe('jobs')});
is_problem($unknown->answer, 404, 'no_subscription', 'a subscription that is deleted meanwhile');

put('outage', '{"start":3}');
$client = waiting('outage?wait=60');
$pg->stop;
ok((poll_until { $nginx->log_since(0) =~ /pgq lane: (?:lost|could not connect)/ }), 'the server stops while a consumer waits');
$pg->start;
insert('a');
$answer = $client->answer;
is(ids($answer), '4', 'it is answered when the server is there again');
my $generation = $answer->json->{generation};

# ---- an acknowledgement that waits for a lock, or whose commit no standby confirms
my $session = $pg->session;
$session->query('begin; update ngx_pgq.progress set turn = turn where name = $$outage$$');
$client = client()->send_post('/sub/outage/ack', qq({"upto":4,"generation":$generation}));
$pg->wait_for_lock(1);
not_blocked($nginx, 'while an acknowledgement waits for a lock');
is(client()->get('/get')->status, 200, '... and GETs of posts are answered');
is_problem($client->answer, 503, 'read_timeout', 'an acknowledgement that gets no lock in a second');
$session->query('rollback');
is(ack('outage', 4, $generation)->status, 204, '... can be repeated');
$session->quit;

ok($pg->commits_wait_for('nowhere'), 'commits wait for a standby');
$client = client()->send_post('/sub/outage/ack', qq({"upto":4,"generation":$generation}));
my $waits = q{from pg_stat_activity where wait_event = 'SyncRep' and usename = 'ngx_pgq_web'};
my @local = (env => { PGOPTIONS => '-c synchronous_commit=local' });
my ($first_pid, $pid);
ok((poll_until { $first_pid = $pg->safe_psql("select pid $waits", @local) }), 'an acknowledgement waits for it');
$pg->safe_psql("select pg_cancel_backend($first_pid)", @local);
ok((poll_until { slurp($pg->log) =~ /\[$first_pid\] ngx_pgq_web.*WARNING:  canceling wait for synchronous replication/ }), '... until an operator cancels the wait');
ok((poll_until { $pid = $pg->safe_psql("select pid $waits", @local); $pid }), '... and then it is sent again, as it is not confirmed');
ok($pg->commits_wait_for(''), 'commits do not wait any more');
is($client->answer->status, 204, 'it is answered after a commit without a warning');

# ---- a lease whose answer is lost
put('lost', '{"start":0}');
ok($pg->commits_wait_for('nowhere'), 'commits wait again');
$client = client()->send_get('/sub/lost?wait=60&lease=3');
ok((poll_until { $pid = $pg->safe_psql("select pid $waits", @local) }), 'a GET waits for its commit');
$pg->safe_psql("select pg_terminate_backend($pid)", @local);
ok((poll_until { $pg->safe_psql(q{select generation > 0 from ngx_pgq.progress where name = 'lost'}, @local) eq 't' }), '... which is done, but the connection is lost');
my $lost = $pg->safe_psql(q{select generation from ngx_pgq.progress where name = 'lost'}, @local);
ok($pg->commits_wait_for(''), 'commits do not wait');
$answer = $client->answer;
is(ids($answer), '1 2 3 4', 'the GET gets the posts when the lease has ended');
isnt($answer->json->{generation}, $lost, '... by another one');

# ---- no answer in time
$nginx->configure(timeout => '1s')->reload;
$session = $pg->session;
$session->query('begin; lock table ngx_pgq.progress');
is_problem(client()->get('/sub/outage'), 503, 'read_timeout', 'a GET that the database does not answer');
is_problem(ack('outage', 4, $generation), 503, 'read_timeout', 'an acknowledgement that it does not answer');
cmp_ok(client()->get('/sub/outage')->header('Retry-After'), '>', 0, '... with Retry-After');
$session->query('rollback');
$session->quit;
ok((poll_until { ack('outage', 4, $generation)->status == 204 }), 'it can be repeated');

# ---- a read-only server
$pg->safe_psql('alter role ngx_pgq_web set default_transaction_read_only = on');
$pg->terminate_web_sessions;
is(ack('outage', 4, $generation)->status, 503, 'a server that refuses to write is not the last word');
$pg->safe_psql('alter role ngx_pgq_web reset default_transaction_read_only');
ok((poll_until { ack('outage', 4, $generation)->status == 204 }), '... another connection is tried');

# ---- rights
$pg->safe_psql('revoke execute on function ngx_pgq.ack(text, bigint, bigint, integer, boolean, bigint) from ngx_pgq_web');
is_problem(ack('outage', 4, $generation), 503, 'read_failed', 'without the right to acknowledge');
$pg->safe_psql('grant execute on function ngx_pgq.ack(text, bigint, bigint, integer, boolean, bigint) to ngx_pgq_web');

# ---- limits
$nginx->configure(timeout => '10s', pool => 'lanes=1 tickets=3')->reload;
my @waiting = map { waiting('outage?wait=60') } 1 .. 3;
is_problem(client()->get('/sub/outage?wait=60'), 503, 'queue_full', 'a fourth consumer');
is_problem(ack('outage', 4, $generation), 503, 'queue_full', '... and an acknowledgement beside it');
(pop @waiting)->close;
ok((poll_until { ack('outage', 4, $generation)->status == 204 }), '... which is served when one of them has left');

# ---- a server that has become read-only
$pg->safe_psql(q{alter function ngx_pgq.ack_json(text, json) rename to ack_json_writes;
    create function ngx_pgq.ack_json(text, json) returns void language plpgsql as $$
    begin
        perform set_config('transaction_read_only', 'on', true);
        perform ngx_pgq.ack_json_writes($1, $2);
    end $$;
    grant execute on function ngx_pgq.ack_json(text, json) to ngx_pgq_web});
$client = client()->send_post('/sub/outage/ack', qq({"upto":4,"generation":$generation}));
ok((poll_until { 2 <= (() = slurp($pg->log) =~ /cannot execute UPDATE in a read-only transaction/g) }), 'an acknowledgement that a read-only server refuses is sent again');
$pg->safe_psql('drop function ngx_pgq.ack_json(text, json); alter function ngx_pgq.ack_json_writes(text, json) rename to ack_json');
is($client->answer->status, 204, '... until a server accepts it');

# ---- a reload
$start = time;
$nginx->configure(ring => undef)->reload;
is($_->answer->body, '{"msg":[]}', 'a consumer that waits is answered when the worker exits') for @waiting;
cmp_ok(time - $start, '<', timeout(10), '... at once');

# ---- without a ring
ack('outage', 4, $generation, ',"release":true');
$client = waiting('outage?wait=60');
insert('a');
is(ids($client->answer), '5', 'without a ring the database is asked each second');
$client = waiting('outage?wait=60');
$start = time;
$nginx->reload;
is($client->answer->body, '{"msg":[]}', '... and an exit is noticed');
cmp_ok(time - $start, '<', timeout(10), '... soon');

$nginx->allow(qr/pgq lane:|pgq fetch: (?:no answer|no database|could not read)/);
$pg->allow(qr/terminating connection|canceling statement|read-only transaction|permission denied|SyncRep|synchronous replication/);

done_testing;
