# Transaction ID wraparound: while PostgreSQL warns, messages are accepted; when it accepts no transactions, they are refused
# with 503, reads are answered, and no message is lost. After VACUUM messages are accepted again.

use Pgq;

my $pg = Pgq::Postgres->new(conf => <<'END')->start;
wal_level = logical
ngx_pgq.movers = 1
autovacuum_naptime = 1s
END

# A replication slot keeps VACUUM from removing old transaction IDs.
$pg->safe_psql(q{select pg_create_logical_replication_slot('forgotten', 'pgoutput')});

my $oldest = $pg->safe_psql('select datfrozenxid from pg_database order by age(datfrozenxid) desc limit 1');
my $end    = $oldest + 2**31 - 1;

# Sets the number of transaction IDs that remain, by pg_resetwal and a new segment of the commit log.
sub remaining {
    my ($left) = @_;
    my $next = $end - $left;
    my $file = sprintf '%s/pg_xact/%04X', $pg->data, $next / 2**20;

    $pg->stop;
    if (!-e $file) {
        Pgq::Host::spew($file, "\0" x 262_144);
        $pg->own($file, 0600);
    }
    my ($status, $out, $err) = Pgq::Host::run([ Pgq::Host::pg_bin() . '/pg_resetwal', '-x', $next, '-D', $pg->data ], user => Pgq::Host::server_user(), cwd => $pg->data);
    die "pg_resetwal: $out$err" if $status;
    $pg->start;

    return;
}

my $nginx    = Pgq::Nginx->new(pg => $pg, pool => 'lanes=1', timeout => '2s',
    locations => 'location = /metrics { pgq_metrics; }')->start;
my $posted   = 0;
my $accepted = sub {
    my ($name) = @_;
    ok((poll_until { Pgq::Client->new($nginx)->post('/post', '"good"')->status == 202 && ++$posted } 60), "$name: a message is accepted");
    ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"good"'}, $posted), "$name: the accepted message is a post once");
    return;
};

$accepted->('far from wraparound');

# ---- 20 million transactions before wraparound: PostgreSQL warns in each transaction
remaining(20_000_000);
$accepted->('while PostgreSQL warns');
my ($retries, $before) = ($nginx->metric('pgq_retries_total'), $pg->safe_psql('select txid_current()'));
is(Pgq::Client->new($nginx)->post('/post', '"good"')->status, 202, 'while PostgreSQL warns: 20 more messages are accepted') for 1 .. 20;
$posted += 20;
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"good"'}, $posted), 'while PostgreSQL warns: each accepted message is a post once');
is($nginx->metric('pgq_retries_total'), $retries, 'while PostgreSQL warns: no batch is sent again');
cmp_ok($pg->safe_psql('select txid_current()') - $before, '<', 300, 'while PostgreSQL warns: few transaction IDs are used');
like($nginx->log_since(0), qr/\[warn\].* pgq lane: .* warns: database "\w+" must be vacuumed within \d+ transactions/, 'while PostgreSQL warns: nginx logs the warning');
cmp_ok(scalar(() = $nginx->log_since(0) =~ / warns: /g), '<=', 3, 'while PostgreSQL warns: nginx does not log the warning for each message');

# ---- 2 million transactions before wraparound: PostgreSQL accepts no transactions, and messages stay in the queue
my $movers = q{select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover'};
$pg->set('ngx_pgq.movers' => 0);
$pg->poll_query_until($movers, 0);
is(Pgq::Client->new($nginx)->post('/post', '"good"')->status, 202, 'a message is accepted while no mover is running') for 1 .. 3;
$posted += 3;
my $position = length $pg->log_since(0);
remaining(2_000_000);
$pg->psql(q{insert into ngx_pgq.queue (data) values ('"bad"')});
my @clients = map { Pgq::Client->new($nginx)->send_post('/post', '"bad"') } 1 .. 5;
my %status;
$status{ $_->answer->status }++ for @clients;
# (a message whose outcome is unknown at its timeout is answered with 504)
is(($status{503} // 0) + ($status{504} // 0), 5, 'while PostgreSQL accepts no transactions: no message is refused with 400') or diag(explain(\%status));
is(Pgq::Client->new($nginx)->get('/get?limit=1')->status, 200, 'while PostgreSQL accepts no transactions: a read is answered');
$pg->set('ngx_pgq.movers' => undef);
ok($pg->poll_query_until(q{select last_error ~ '^database is not accepting commands.*, SQLSTATE 54000' from ngx_pgq.status where mover is not null}, 't'),
    'while PostgreSQL accepts no transactions: the status of the mover has the error') or diag($pg->safe_psql('table ngx_pgq.status'));
is($pg->safe_psql('select count(*) from ngx_pgq.queue'), 3, 'while PostgreSQL accepts no transactions: the messages stay in the queue');
like(substr($pg->log_since(0), $position), qr/database is not accepting commands/, "while PostgreSQL accepts no transactions: the server's log has the error");

# ---- VACUUM, after the slot was dropped
$pg->safe_psql(q{select pg_drop_replication_slot('forgotten')});
$pg->safe_psql('vacuum', database => $_) for qw(posts postgres template1);
$accepted->('after VACUUM');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"bad"'}), 0, 'no message that was answered with 503 is a post');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'no message has become a dead letter');

done_testing;
