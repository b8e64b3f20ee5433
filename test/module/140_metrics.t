# Metrics and status include all workers, and counters are kept when nginx reloads or a worker is killed. The access log has
# the outcome of each message.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    workers   => 2,
    pool      => 'lanes=2', timeout => '20s',
    http      => q{log_format pgq '[$request_method $uri $status|$pgq_id|$pgq_batch|$pgq_wait|$pgq_outcome]';},
    server    => 'access_log pgq.log pgq;',
    locations => 'location = /metrics { pgq_metrics; } location = /status { pgq_status; }',
)->start;

# Parses the text format 0.0.4 strictly: each family once, HELP before TYPE before its samples, each sample once, consistent
# histograms. Returns sample => value, and the errors.
sub parse {
    my ($text) = @_;
    my (%value, %type, %help, $family, @wrong);

    push @wrong, 'no line feed at the end' if $text !~ /\n\z/;

    for my $line (split /\n/, $text) {
        if ($line =~ /^# HELP ([a-z_:][a-z0-9_:]*) \S.*[.]$/) {
            push @wrong, "second HELP: $line" if $help{$1}++;
            $family = $1;
        } elsif ($line =~ /^# TYPE ([a-z_:][a-z0-9_:]*) (counter|gauge|histogram)$/) {
            push @wrong, "unexpected TYPE: $line" if $type{$1} || ($family // '') ne $1;
            $type{$1} = $2;
            push @wrong, "_total is for counters: $line" if ($2 eq 'counter') != ($1 =~ /_total$/);
        } elsif ($line =~ /^(([a-z_:]+)(?:\{[a-z]+="(?:[^"\\]|\\["\\n])*"(?:,[a-z]+="(?:[^"\\]|\\["\\n])*")*\})?) (\d+(?:\.\d+)?)$/) {
            my ($sample, $name, $value) = ($1, $2, $3);
            my $of = $name;
            $of =~ s/_(?:bucket|sum|count)$// if ($type{$family} // '') eq 'histogram';
            push @wrong, "sample without a family: $line" if $of ne $family || !$type{$of};
            push @wrong, "second sample: $line" if exists $value{$sample};
            $value{$sample} = $value;
        } else {
            push @wrong, "malformed line: $line";
        }
    }

    for my $name (grep { $type{$_} eq 'histogram' } sort keys %type) {
        my @buckets = map { $_ =~ /^\Q$name\E_bucket\{le="(.*)"\}/ ? [ $1, $value{$_} ] : () } keys %value;
        my @counts  = map { $_->[1] } sort { $a->[0] <=> $b->[0] } map { [ $_->[0] eq '+Inf' ? 9**99 : $_->[0], $_->[1] ] } @buckets;
        push @wrong, "$name: buckets are not cumulative" if "@counts" ne join ' ', sort { $a <=> $b } @counts;
        push @wrong, "$name: no +Inf bucket, or it differs from the count" if $counts[-1] != ($value{"${name}_count"} // -1);
    }

    return \%value, \@wrong;
}

sub page {
    my ($value) = parse(Pgq::Client->new($nginx)->get('/metrics')->body);
    return $value;
}

# Returns the samples that differ from $last, as text, without those that depend on time.
my $last;

sub changes {
    my ($now) = @_;
    return join ' ', map { "$_=" . ($now->{$_} - ($last->{$_} // 0)) }
        grep { !/seconds|^pgq_batch_messages_bucket/ && $now->{$_} != ($last->{$_} // 0) } sort keys %$now;
}

sub counts {
    my ($what, @expected) = @_;
    my ($now, $expected) = ({}, join ' ', sort @expected);

    poll_until { $now = page(); changes($now) eq $expected } 5;
    is(changes($now), $expected, $what);
    $last = $now;

    return;
}

# Checks that promtool finds no error in /metrics.
sub checked {
    my ($when) = @_;

    SKIP: {
        skip 'promtool is not installed: make check-others', 1 if !Pgq::Host::has_program('promtool');

        my $text = Pgq::Client->new($nginx)->get('/metrics')->body;
        my ($status, $out, $err) = Pgq::Host::run([ 'promtool', 'check', 'metrics' ], in => $text);

        is("$status$out$err", '0', "promtool accepts the metrics $when");
    }

    return;
}

my $idle = 'pgq_lanes{pool="main",state="idle"}';

sub requests { my ($handler, $code, $n) = @_; return qq{pgq_requests_total{handler="$handler",code="$code"}=$n} }
sub rejects  { my ($reason, $n) = @_; return qq{pgq_rejects_total{reason="$reason"}=$n} }

ok((poll_until { page()->{$idle} == 4 }), 'the lanes of both workers are idle');

my $answer = Pgq::Client->new($nginx)->get('/metrics');
is($answer->status, 200, 'the metrics are answered with 200');
is($answer->header('content-type'), 'text/plain; version=0.0.4; charset=utf-8', 'the metrics have the content type of the text format');
my ($value, $wrong) = parse($answer->body);
is("@$wrong", '', 'the metrics have no error');
is($value->{pgq_workers}, 2, 'the metrics have the number of workers');
is($value->{'pgq_connects_total{pool="main"}'}, 4, 'the metrics have the number of connects');
is((grep { /^pgq_build_info\{version="[\d.]+",nginx="[\d.]+",libpq="[\d.]+"\}$/ } keys %$value), 1, 'the metrics have the versions of the module, nginx and libpq');
$last = $value;
checked('after the start');

$answer = Pgq::Client->new($nginx)->method('HEAD', '/metrics');
is($answer->status . $answer->body, '200', 'HEAD of the metrics is answered without a body');
for my $path ('/metrics', '/status') {
    $answer = Pgq::Client->new($nginx)->post($path, '1');
    is($answer->status . ' ' . $answer->header('allow'), '405 GET, HEAD, OPTIONS', "$path: POST is not allowed");
    is(Pgq::Client->new($nginx)->method('OPTIONS', $path)->status, 204, "$path: OPTIONS is answered with 204");
}
counts('requests for /metrics and /status are not counted, their problems are', rejects('method_not_allowed', 2));

Pgq::Client->new($nginx)->post('/post', "\"$_\"") for 1 .. 20;
counts('20 messages in 20 batches are counted', requests('post', 202, 20), 'pgq_batches_total=20', 'pgq_messages_total=20',
    'pgq_batch_messages_sum=20', 'pgq_batch_messages_count=20');

is(join(' ', map { $last->{qq{pgq_batch_messages_bucket{le="$_"}}} } qw(1 4 16384 +Inf)), '20 20 20 20', 'each batch of one message is in the smallest bucket');

# The lanes of GETs connect when a worker receives its first GET.
ok((poll_until { Pgq::Client->new($nginx)->get('/get'); page()->{'pgq_read_lanes{pool="main",state="idle"}'} == 2 }),
    'the lanes of GETs are counted separately');
$last = page();

Pgq::Client->new($nginx)->get('/get') for 1 .. 7;
Pgq::Client->new($nginx)->get('/get?limit=0');
counts('seven GETs and one with a wrong argument are counted', requests('get', 200, 7), requests('get', 400, 1), rejects('bad_argument', 1));

Pgq::Client->new($nginx)->post('/post', $_) for '', '{', '{', '{';
Pgq::Client->new($nginx)->post('/post', '1', 'Content-Encoding' => 'gzip');
Pgq::Client->new($nginx)->get('/nowhere');
counts('refusals are counted by their reasons', requests('post', 400, 4), requests('post', 415, 1), rejects('empty', 1),
    rejects('not_json', 3), rejects('unsupported_type', 1), rejects('not_found', 1));

# Gauges while requests wait for a lock.
my $lock = $pg->lock_table;
my @clients = map { Pgq::Client->new($nginx)->send_post('/post', '"12345678"') } 1 .. 40;
ok((poll_until { page()->{'pgq_waiting_tickets{pool="main"}'} == 40 }), 'the metrics have the number of waiting tickets');
$value = page();
is($value->{'pgq_waiting_bytes{pool="main"}'}, 400, 'the metrics have the bytes of waiting tickets');
cmp_ok($value->{'pgq_lanes{pool="main",state="busy"}'}, '>', 0, 'the metrics have the number of busy lanes');
is($value->{$idle} + $value->{'pgq_lanes{pool="main",state="busy"}'}, 4, 'the states of the lanes add up to all lanes');
$lock->release;
$_->answer for @clients;
ok((poll_until { page()->{requests('post', 202, 0) =~ s/=0$//r} == 60 }), 'the answered requests are counted');
$value = page();
is($value->{'pgq_waiting_tickets{pool="main"}'} . $value->{'pgq_waiting_bytes{pool="main"}'}, '00', 'the gauges of waiting tickets are 0 when none waits');
is($value->{pgq_messages_total} - $last->{pgq_messages_total}, 40, 'the messages of the waiting tickets are counted');
is($value->{pgq_batches_total}, $value->{pgq_batch_seconds_count}, 'each batch has a duration');
is($value->{pgq_messages_total}, $value->{pgq_wait_seconds_count}, 'each message has a waiting time');
cmp_ok($value->{pgq_batch_seconds_sum}, '>', 0, 'the batches have taken time');
$last = $value;

# ---- a message that the database refuses
$pg->safe_psql(q{create function refuse() returns trigger language plpgsql as $$
        begin if new.data::text like '%bad%' then raise check_violation; end if; return new; end $$;
    create trigger refuse before insert on ngx_pgq.queue for each row execute function refuse()});
Pgq::Client->new($nginx)->post('/post', '"bad"');
counts('a message that the database refuses is counted', requests('post', 400, 1), rejects('refused', 1), 'pgq_batches_total=1',
    'pgq_messages_total=1', 'pgq_batch_messages_sum=1', 'pgq_batch_messages_count=1', 'pgq_database_errors_total{class="23"}=1');
$pg->safe_psql('drop trigger refuse on ngx_pgq.queue');

# ---- an unknown outcome: the server process ends during a batch, and the batch is sent again
$lock = $pg->lock_table;
my $client = Pgq::Client->new($nginx)->send_post('/post', '"twice"');
$pg->wait_for_lock;
$pg->safe_psql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'");
$pg->wait_for_lock;
$lock->release;
is($client->answer->status, 202, 'a batch whose connection is lost is sent again');
counts('a batch that is sent again is counted once', requests('post', 202, 1), 'pgq_batches_total=1', 'pgq_messages_total=1', 'pgq_batch_messages_sum=1',
    'pgq_batch_messages_count=1', 'pgq_retries_total=1', 'pgq_unknown_outcomes_total=1',
    'pgq_database_errors_total{class="57"}=1', 'pgq_database_errors_total{class="08"}=1', 'pgq_connects_total{pool="main"}=1');

# ---- the status
$answer = Pgq::Client->new($nginx)->get('/status');
is($answer->status, 200, 'the status is answered with 200');
is($answer->header('content-type'), 'application/json', 'the status is JSON');
is_deeply($answer->json, { status => 'ok', workers => 2, pools => [
    { name => 'main', status => 'ok', lanes => 4, connected => 4, waiting_tickets => 0, waiting_bytes => 0, readers => 0 } ] },
    'the status has the pools');

# ---- a reload
$last = page();
ok($nginx->reload, 'nginx reloads its configuration');
ok((poll_until { 2 == $nginx->worker_pids }), 'the old workers exit');
ok((poll_until { page()->{$idle} == 4 }), 'the lanes of old workers are not counted');
counts('counters are kept over a reload', 'pgq_connects_total{pool="main"}=4', 'pgq_read_lanes{pool="main",state="idle"}=-2');

# ---- metrics under load
my $load = Pgq::Host::spawn([ Pgq::Host::build_dir() . '/bench/pgq_load', '--quiet', '--connections', 8, '--seconds', timeout(60),
    $nginx->url('/post') ], out => $nginx->dir . '/load');
ok((poll_until { page()->{'pgq_waiting_tickets{pool="main"}'} > 0 && page()->{pgq_messages_total} > $last->{pgq_messages_total} + 200 }),
    'messages are counted under load');
checked('under load');
kill 'TERM', $load;
Pgq::Host::ended($load, 20);
poll_until { $value = page(); $value->{'pgq_waiting_tickets{pool="main"}'} == 0 && $value->{$idle} == 4 };
($value, $wrong) = parse(Pgq::Client->new($nginx)->get('/metrics')->body);
is("@$wrong", '', 'the metrics have no error after a load');
$last = $value;

# ---- a killed worker
$nginx->allow(qr/exited on signal 9/);
my ($killed) = $nginx->worker_pids;
kill 'KILL', $killed;
ok((poll_until { my @pids = $nginx->worker_pids; @pids == 2 && !grep { $_ == $killed } @pids }), 'a killed worker is replaced');
ok((poll_until { page()->{$idle} == 4 && page()->{pgq_workers} == 2 }), 'the lanes of a killed worker are not counted');
counts('the counters of a killed worker are kept', 'pgq_connects_total{pool="main"}=2');

# ---- the server is stopped
$pg->stop('immediate');
ok((poll_until { Pgq::Client->new($nginx)->get('/status')->status == 503 } 10), 'the status is 503 without a database');
is(Pgq::Client->new($nginx)->get('/status')->json->{status}, 'unavailable', 'the status is unavailable without a database');
cmp_ok(page()->{'pgq_failed_connects_total{pool="main"}'}, '>', 0, 'failed connects are counted');
$pg->start;
ok((poll_until { Pgq::Client->new($nginx)->get('/status')->status == 200 } 10), 'the status is 200 when the database is started again');

# ---- the access log
my $id = Pgq::Client->new($nginx)->post('/post', '"logged"')->json->{id};
my $log = sub { return Pgq::Host::slurp($nginx->dir . '/pgq.log') };
ok((poll_until { $log->() =~ /$id/ }), 'the access log has the id of a message');
like($log->(), qr/^\[POST \/post 202\|$id\|1\|\d+\|queued\]$/m, 'the access log has the batch, the waiting time and the outcome of a message');
like($log->(), qr/^\[POST \/post 400\|-\|-\|-\|refused\]$/m, 'the access log has no id of a message that was refused by nginx');
like($log->(), qr/^\[POST \/post 400\|[0-9a-f-]{36}\|1\|\d+\|refused\]$/m, 'the access log has the id and the batch of a message that was refused by the database');
like($log->(), qr/^\[GET \/metrics 200\|-\|-\|-\|-\]$/m, 'the access log has no outcome of other requests');
like($log->(), qr/^\[GET \/get 200\|-\|-\|\d+\|-\]$/m, 'the access log has the waiting time of a GET');

done_testing;
