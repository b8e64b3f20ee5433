# P3, P6, P11: 1,000 readers are attached, half of them at each web host, while the primary is switched over, the primary's
# host loses power, and a web host's nginx is reloaded during a switchover. Every reader gets every accepted post once and
# in order. Then both web hosts give the same answers.

use Pgq;
use Pgq::ClusterTest;
use Pgq::Host qw(build_dir slurp spawn ended temp_dir);
use Pgq::Stream;

my $readers = 1000;
my $since;

# The value of a metric at each web host, added up over its labels.
sub metric {
    my ($cluster, $name) = @_;

    return map {
        my $sum = 0;
        $sum += $_ for $cluster->must($_, qw(curl -s http://127.0.0.1:9180/metrics)) =~ /^\Q$name\E(?:\{[^}]*\})? (\S+)$/mg;
        $sum;
    } $cluster->webs;
}

# Runs a test, whose options are those of Pgq::ClusterTest, while the readers are attached and receive 20 posts a second in
# addition to those of the load. Returns what pgq_readers has counted.
sub with_readers {
    my ($name, $code, %option) = @_;
    my $test    = Pgq::ClusterTest->new("$name, $readers readers", %option);
    my $cluster = $test->cluster;
    my @webs    = map { 'http://' . $_->address . ':80' } $cluster->webs;
    my @resets  = metric($cluster, 'pgq_ring_resets_total');
    my $file    = temp_dir('readers') . '/out';
    my $pid     = spawn(
        [ build_dir() . '/bench/pgq_readers', '--readers', $readers, '--sources', 0, '--hold', '--post', "$webs[1]/post", '--rate', 20,
            '--seconds', 3600, '--grace', timeout(60), map { "$_/stream" } @webs ],
        out => $file, err => "$file.err", death => 'KILL',
    );

    ok((poll_until { -e "$file.err" && slurp("$file.err") =~ /^open $readers$/m } 60), "$name: the readers are attached");
    is(join(' ', metric($cluster, 'pgq_open_readers')), join(' ', ($readers / 2) x 2), "$name: half of the readers are at each web host");
    kill 'USR1', $pid;

    $since //= $test->since;
    $code->($test, $cluster);
    kill 'INT', $pid;
    is(ended($pid, 120), 0, "$name: pgq_readers ends without an error");
    $test->end;

    my %result = slurp($file) =~ /^result (\S+) (\S+)$/mg;
    my @wrong  = grep { $result{$_} } qw(missing twice descending disorder unseen resets bad refused connect_errors post_refused post_unknown);

    diag(sprintf '%s: %d posts to each of %d readers; streams closed: %d, resumed: %d; longest time without a post %.2f s; from commit to'
        . ' arrival: p50 %.0f ms, p99 %.0f ms, longest %.0f ms', $name,
        @result{qw(expected readers closed resumed pause_seconds commit_p50_ms commit_p99_ms commit_max_ms)});
    is(join(', ', map { "$_: $result{$_}" } @wrong), '', "$name: no reader misses a post, or receives one twice or out of order");
    is($result{complete}, $readers, "$name: every reader has every accepted post");
    cmp_ok($result{acked}, '>', 100, "$name: posts are sent to the readers");
    is(join(' ', metric($cluster, 'pgq_ring_resets_total')), "@resets", "$name: no ring is reset");

    return \%result;
}

my $result = with_readers('switchover', sub {
    my ($test, $cluster) = @_;
    $test->takeover(sub { ok($cluster->switchover, 'the switchover succeeds') }) for 1 .. 3;
});
is($result->{closed}, 0, 'a switchover closes no stream');

$result = with_readers("primary's host off", sub {
    my ($test, $cluster) = @_;
    $test->takeover(sub { $cluster->do_to(off => @_) }, repair => sub { $cluster->do_to(up => @_) });
}, target => 20);
is($result->{closed}, 0, 'the loss of the primary closes no stream');

$result = with_readers('nginx reloaded during a switchover', sub {
    my ($test, $cluster) = @_;
    $test->takeover(sub {
        $cluster->must('web1', qw(systemctl reload nginx));
        ok($cluster->switchover, 'the switchover succeeds');
    });
}, faulty => 0, allow => 'closed|reader closed');
cmp_ok($result->{resumed}, '>=', $readers / 2, 'the readers of the web host whose nginx is reloaded resume, half of them at the other one');

# ---- afterwards

my $cluster = Pgq::Cluster->new;
my @webs    = $cluster->webs;
my @ids     = split /\n/, $cluster->safe_psql("select id from posts where id > $since order by id");

for my $path ('/get', '/get?limit=1000', "/get?limit=1000&after=$since") {
    my @answer = map { Pgq::Client->new($_)->get($path) } @webs;

    is(join(' ', map { $_->status } @answer), '200 200', "$path: both web hosts answer 200");
    is($answer[0]->header('etag'), $answer[1]->header('etag'), "$path: both web hosts give the same ETag");
    is($answer[0]->body, $answer[1]->body, "$path: both web hosts give the same posts");
}

for my $web (@webs) {
    my $name   = $web->name;
    my $reader = Pgq::Stream->new($web, last => $since, objects => undef);

    ok($reader->wait_until_id($ids[-1], 60), "$name: a reader that resumes with the id from before the faults reaches the newest post");
    is($reader->complaint(\@ids), '', "$name: it has every post since then once and in order");
    is(scalar @{ $reader->resets }, 0, "$name: it is not reset");
}

done_testing;
