# pgq_log_cache: a full page after an id, of which retention has deleted nothing, may be kept by caches; no other answer may.

use Pgq;

my $pg = Pgq::Postgres->new->start;

my $locations = 'location ^~ /get/ { pgq_get main; pgq_log_cache 1h; } location = /log { pgq_get main; pgq_log_cache 90s; }'
    . ' location = /off { pgq_get main; pgq_log_cache 0; } location = /rights { pgq_get main; pgq_log_cache 1h; pgq_topics $http_topics; }'
    . ' location = /public { pgq_get main; pgq_log_cache 1h; pgq_topics "a/**"; }';
my %more = (pg => $pg, pool => 'lanes=1 answer_size=20k', locations => $locations);

my $ring = Pgq::Nginx->new(%more, name => 'ring', ring => 'posts=2000 poll=200ms stale=2s', timeout => '2s')->start;
$pg->safe_psql('create role plain login in role ngx_pgq_web');
my $plain = Pgq::Nginx->new(%more, name => 'plain', user => 'plain')->start;
my $cdn   = Pgq::Nginx->new(
    pg        => $pg,
    name      => 'cdn',
    user      => 'plain',
    http      => 'proxy_cache_path %%PREFIX%%/cache keys_zone=pages:1m;',
    locations => 'location = /log { proxy_pass http://127.0.0.1:' . $ring->port . '; proxy_cache pages; proxy_cache_key $request_uri;'
        . ' add_header X-Cache $upstream_cache_status; }',
)->start;

my $final = 'public, max-age=90, immutable';

sub get     { my ($nginx, $path, %headers) = @_; return Pgq::Client->new($nginx)->get($path, %headers) }
sub control { return get(@_)->header('Cache-Control') }
sub hit     { return ($_[0]->header('Cache-Status') // '') eq 'pgq; hit' }
sub ids     { return map { $_->{id} } @{ $_[0]->json->{msg} } }

# Both servers give the same answer with the same Cache-Control; the first one from its ring, unless only PostgreSQL has it.
sub same {
    my ($path, $expected, $name, $from) = @_;
    my ($one, $two);
    ok((poll_until {
        ($one, $two) = map { get($_, $path) } $ring, $plain;
        ($from || hit($one)) && $one->body eq $two->body && ($one->header('Cache-Control') // '') eq $expected;
    }), "$name, from the ring") or diag $one->header('Cache-Control') . ' ' . $one->body;
    is($two->header('Cache-Control'), $expected, "$name, from PostgreSQL");
    is($one->header('ETag'), $two->header('ETag'), "$name, with one ETag");
    return $one;
}

# ---- full pages and others
same('/log?after=0&limit=1', 'no-cache', 'a page without posts is not final');

$pg->safe_psql(q{insert into ngx_pgq.queue (data, topic) select to_json(n), case n % 2 when 0 then '' else 'a/' || n % 3 end
    from generate_series(1, 250) n});
$pg->wait_until_moved;

my $full = same('/log?after=0',        $final,     'a full page is final');
same('/log?after=100',                 $final,     'the next full page is final');
same('/log?after=200',                 'no-cache', 'the page that new posts are added to is not final');
same('/log?after=200&limit=50',        $final,     'a page that is full with the newest post is final');
same('/log?after=200&limit=51',        'no-cache', 'a page with one post too few is not final');
same('/log?after=37&limit=1',          $final,     'a full page begins at any id');
same('/log?after=250',                 'no-cache', 'an empty page is not final');
same('/log?after=9223372036854775807', 'no-cache', 'a page after an id that does not exist yet is not final');
same('/log',                           'no-cache', 'the newest posts are not final');
same('/log?limit=10&before=100',       'no-cache', 'a page before an id is not final');
same('/get/a/*?after=0&limit=125', 'public, max-age=3600, immutable', 'a full page of a topic is final');
same('/get/a/*?after=0&limit=126', 'no-cache', 'a page of a topic with too few posts is not final');
same('/get/a/0?after=245&limit=1', 'public, max-age=3600, immutable', 'a full page of one topic is final');
same('/off?after=0',               'no-cache', 'pgq_log_cache 0 makes no page final');
same('/get?after=0',               'no-cache', 'without pgq_log_cache no page is final');
same('/public?after=0&limit=10',   'public, max-age=3600, immutable', 'pages of topics that everybody may read are final');
is(control($_, '/rights?after=0&limit=10', Topics => 'a/*'), 'private, no-cache', 'a page of topics that depend on the request is private') for $ring, $plain;

for my $nginx ($ring, $plain) {
    my $name = $nginx->{name};
    is(Pgq::Client->new($nginx)->method('HEAD', '/log?after=0')->header('Cache-Control'), $final, "$name: HEAD has the Cache-Control of GET");
    my $same = get($nginx, '/log?after=0', 'If-None-Match' => $full->header('ETag'));
    is($same->status . ' ' . $same->header('Cache-Control'), "304 $final", "$name: so has 304");
    my $problem = get($nginx, '/log?after=x');
    is_problem($problem, 400, 'bad_argument', "$name: a malformed id");
    unlike($problem->header('Cache-Control') // '', qr/max-age|public/, "$name: a problem is not final");
}

# ---- a page that answer_size= has limited
$pg->safe_psql(q{insert into ngx_pgq.queue (data) select to_json(repeat('x', 6000)) from generate_series(1, 6)});
$pg->wait_until_moved;
my $limited = same('/log?after=250', $final, 'a page that has no space for the next post is final');
is(join(' ', ids($limited)), '251 252 253', '... and has the posts with space');
same('/log?after=253', 'no-cache', 'a page that has space for more posts is not final');

# ---- a cache in front
my $requests = sub { return scalar(() = $ring->access_log =~ m{"GET /log\?after=100&}g) };
my $first    = get($cdn, '/log?after=100&limit=50');
is($first->header('X-Cache'), 'MISS', 'a cache asks once for a full page');
ok(poll_until { $requests->() == 1 }, '... which the log shows, after the answer');
$pg->safe_psql('insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 20) n');
$pg->wait_until_moved;
my $again = get($cdn, '/log?after=100&limit=50');
is($again->header('X-Cache'), 'HIT', '... and keeps it while new posts come');
is($again->body, $first->body, '... as it is');
is($requests->(), 1, '... and does not ask again');
is($again->body, get($plain, '/log?after=100&limit=50')->body, '... and PostgreSQL has the same page');
get($cdn, '/log?after=270') for 1 .. 2;
is(get($cdn, '/log?after=270')->header('X-Cache'), 'MISS', 'a cache does not keep the last page');

# ---- clients that follow next through the cache, while posts come and retention deletes them
my ($at, @seen) = (276);

# Reads the full pages that there are.
sub walk {
    my ($from) = @_;
    my @ids;
    while (1) {
        my $page = get($cdn, "/log?after=$from&limit=20")->json;
        return ($from, @ids) if @{ $page->{msg} } < 20;
        push @ids, map { $_->{id} } @{ $page->{msg} };
        $from = $page->{next};
    }
}

$pg->set('ngx_pgq.keep_posts' => 400);
for my $round (1 .. 30) {
    $pg->safe_psql('insert into ngx_pgq.queue (data) select to_json(n) from generate_series(1, 50) n');
    $pg->wait_until_moved;
    my ($next, @ids) = walk($at);
    push @seen, @ids;
    $at = $next;
}
ok((poll_until { my ($next, @ids) = walk($at); push @seen, @ids; ($at = $next) >= 1756 }), 'a client of the cache reads all full pages');
is("@seen", join(' ', 277 .. $at), '... with each post once and in order');
ok($pg->poll_query_until('select min(id) > 1000 from posts', 't'), 'meanwhile retention has deleted posts');
my ($end, @later) = walk(276);
is("@later", "@seen", 'a client that follows later gets the same posts from the cache');
ok((poll_until { get($ring, '/log?after=276&limit=20')->body =~ /^\{"msg":\[\{"id":1\d\d\d,/ }), '... which PostgreSQL no longer has');

# ---- retention
$pg->set('ngx_pgq.keep_posts' => 200);
ok($pg->poll_query_until('select count(*) <= 200 from posts', 't'), 'retention deletes posts');
my ($removed, $newest) = split /\|/, $pg->safe_psql('select last_value, (select max(id) from posts) from ngx_pgq.removed');
is($newest - $removed, 200, 'the ids have no gaps');
same('/log?limit=10&after=0', 'no-cache', 'after retention the page after 0 is not final', 'PostgreSQL');
same('/log?limit=10&after=' . ($removed - 1), 'no-cache', 'a page from which retention has deleted is not final', 'PostgreSQL');
same("/log?limit=10&after=$removed", $final, 'a page after the last deleted post is final');

# ---- manual changes
$pg->safe_psql('delete from posts where id = ' . ($newest - 50));
$pg->safe_psql('select ngx_pgq.refresh()');
my $changed = same('/log?limit=20&after=' . ($newest - 60), $final, 'after refresh() a page is final without the post that was deleted');
is(scalar(grep { $_ == $newest - 50 } ids($changed)), 0, '... which it does not have');

# ---- without a database
my $page = '/log?limit=20&after=' . ($newest - 100);
same($page, $final, 'a page is final');
$_->allow(qr/pgq lane: /) for $ring, $plain, $cdn;
$pg->stop;
is(control($ring, $page), $final, 'a full page is final without a database');
is(control($ring, "/log?after=$newest"), 'no-cache', '... and the last page is not');
ok((poll_until { get($ring, $page)->status == 503 } 20), 'the ring becomes stale');
unlike(control($ring, $page) // '', qr/max-age|public/, '... and its refusal is not final');

done_testing;
