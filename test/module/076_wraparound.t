# A database that comes near to transaction id wraparound, for real: while PostgreSQL warns everything works; when it takes no
# transaction any more, messages are refused with 503, readers read, and nothing is lost. After VACUUM all goes on by itself.

use Pgq;

my $pg = Pgq::Postgres->new(conf => <<'END')->start;
wal_level = logical
ngx_pgq.movers = 1
autovacuum_naptime = 1s
END

# Something keeps old transaction ids from being vacuumed away, as in life.
$pg->safe_psql(q{select pg_create_logical_replication_slot('forgotten', 'pgoutput')});

my $oldest = $pg->safe_psql('select datfrozenxid from pg_database order by age(datfrozenxid) desc limit 1');
my $end    = $oldest + 2**31 - 1;

# The next transaction id is so many before the end: what pg_resetwal does, and a segment of the commit log.
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
    ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"good"'}, $posted), "$name: and is a post, once");
    return;
};
my $metric = sub { return Pgq::Client->new($nginx)->get('/metrics')->body =~ /^\Q$_[0]\E ([\d.]+)$/m ? $1 : 0 };

$accepted->('far from it');

# ---- 20 million before the end PostgreSQL warns each transaction
remaining(20_000_000);
$accepted->('while PostgreSQL warns');
my ($retries, $before) = ($metric->('pgq_retries_total'), $pg->safe_psql('select txid_current()'));
is(Pgq::Client->new($nginx)->post('/post', '"good"')->status, 202, 'while PostgreSQL warns: another one') for 1 .. 20;
$posted += 20;
ok($pg->poll_query_until(q{select count(*) from posts where data::text = '"good"'}, $posted), 'while PostgreSQL warns: all of them are posts, once');
is($metric->('pgq_retries_total'), $retries, 'while PostgreSQL warns: no batch is sent again');
cmp_ok($pg->safe_psql('select txid_current()') - $before, '<', 300, 'while PostgreSQL warns: no transactions are wasted');
like($nginx->log_since(0), qr/\[warn\].* pgq lane: .* warns: database "\w+" must be vacuumed within \d+ transactions/, 'the log of nginx says so');
cmp_ok(scalar(() = $nginx->log_since(0) =~ / warns: /g), '<=', 3, 'and not for each message');

# ---- 2 million before the end it takes none; messages wait
my $movers = q{select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover'};
$pg->safe_psql('alter system set ngx_pgq.movers = 0');
$pg->reload;
$pg->poll_query_until($movers, 0);
is(Pgq::Client->new($nginx)->post('/post', '"good"')->status, 202, 'a message waits') for 1 .. 3;
$posted += 3;
my $position = length $pg->log_since(0);
remaining(2_000_000);
$pg->psql(q{insert into ngx_pgq.queue (data) values ('"bad"')});
my @clients = map { Pgq::Client->new($nginx) } 1 .. 5;
$_->send($_->request('POST', '/post', body => '"bad"', headers => { 'Content-Type' => 'application/json' })) for @clients;
my %status;
$status{ $_->answer->status }++ for @clients;
# (504 is for what is on its way when its time is over)
is(($status{503} // 0) + ($status{504} // 0), 5, 'when PostgreSQL takes no transaction: messages are to be sent again') or diag(explain(\%status));
is(Pgq::Client->new($nginx)->get('/get?limit=1')->status, 200, 'when PostgreSQL takes no transaction: readers read');
$pg->safe_psql('alter system reset ngx_pgq.movers');
$pg->reload;
ok($pg->poll_query_until(q{select last_error ~ '^database is not accepting commands.*, SQLSTATE 54000' from ngx_pgq.status where mover is not null}, 't'),
    'the status of the mover says so') or diag($pg->safe_psql('table ngx_pgq.status'));
is($pg->safe_psql('select count(*) from ngx_pgq.queue'), 3, 'and its messages stay in the queue');
like(substr($pg->log_since(0), $position), qr/database is not accepting commands/, 'when PostgreSQL takes no transaction: its log says so');

# ---- what to do
$pg->safe_psql(q{select pg_drop_replication_slot('forgotten')});
$pg->safe_psql('vacuum', database => $_) for qw(posts postgres template1);
$accepted->('after VACUUM');
is($pg->safe_psql(q{select count(*) from posts where data::text = '"bad"'}), 0, 'nothing that was refused is a post');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'and nothing is a dead letter');

done_testing;
