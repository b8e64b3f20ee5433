# $pgq_version and $pgq_version_topic in the key of a cache: after a post each web host makes the page again, and cached pages
# are served while the database is away.

use Pgq;

my $pg = Pgq::Postgres->new->start;

# The application, which reads the table.
my $conninfo = $pg->conninfo(user => 'ngx_pgq_web');
my $app      = Pgq::Nginx->new(name => 'app', conninfo => $conninfo, timeout => '1s')->start;

my $cached = 'proxy_pass http://127.0.0.1:' . $app->port . '/get; proxy_cache pages; proxy_cache_valid 200 1h; proxy_cache_lock on; proxy_ignore_headers Cache-Control; add_header X-Cache $upstream_cache_status;';

sub options {
    my ($name) = @_;
    return (
        name      => $name,
        conninfo  => $conninfo,
        workers   => 2,
        ring      => 'posts=100 poll=200ms',
        http      => "proxy_cache_path %%PREFIX%%/cache keys_zone=pages:1m;",
        locations => <<"END",
location = /page    { $cached proxy_cache_key \$request_uri\$pgq_version; }
location = /topic   { $cached pgq_version_of \$arg_topic; proxy_cache_key \$request_uri\$pgq_version_topic; }
location = /version { return 200 "\$pgq_version"; }
location = /of      { pgq_version_of \$arg_topic; return 200 \$pgq_version_topic; }
location = /both    { default_type text/html; ssi on; return 200 '<!--# include virtual="/of?topic=b" -->|<!--# include virtual="/of?topic=a" -->'; }
location = /unset   { return 200 \$pgq_version_topic; }
END
    );
}

my @host = map { Pgq::Nginx->new(options("web$_"))->start } 1, 2;

sub get     { my ($host, $path) = @_; return Pgq::Client->new($host)->get($path)->body }

# Whether a page comes from the cache, and its text.
sub page {
    my ($host, $path) = @_;
    my $answer = Pgq::Client->new($host)->get($path);
    return (($answer->header('X-Cache') // '') . ' ' . $answer->body);
}

sub version { return get($_[0], '/version') }

# Waits until both hosts have the newest post.
sub known {
    my $want = $pg->safe_psql(q{select (select n from ngx_pgq.revision) || '-' || coalesce((select max(id) from posts), 0)});
    return poll_until { !grep { version($_) ne $want } @host };
}

sub post {
    my ($topic, $text) = @_;
    is(Pgq::Client->new($host[0])->post($topic eq '' ? '/post' : "/post?$topic", $text)->{status}, 202, "a message is accepted: $text");
    $pg->wait_until_moved;
    ok(known(), '... and both hosts know its post');
    return;
}

sub insert { my ($topic, $text) = @_; $pg->safe_psql("insert into ngx_pgq.queue (data, topic) values ('$text', '$topic')"); $pg->wait_until_moved; ok(known(), "a post in '$topic' is known"); return }


# ---- the pages of all posts

ok(known(), 'the version is the revision and the newest id, on both hosts');
post('', '"first"');
like(page($_, '/page'), qr/^MISS .*first/, 'a page is made') for @host;
like(page($_, '/page'), qr/^HIT .*first/, '... and is served from the cache then') for @host, @host;

post('', '"second"');
like(page($_, '/page'), qr/^MISS .*second/, 'after a post the page is made again, on each host') for @host;
like(page($_, '/page'), qr/^HIT .*second/,  '... once') for @host;

my $before = version($host[0]);
$pg->safe_psql(q{update posts set data = '"changed"' where id = 1});
$pg->safe_psql('select ngx_pgq.refresh()');
ok(known(), 'refresh() changes the version');
isnt(version($host[0]), $before, '... to another one');
like(get($_, '/page'), qr/changed/, '... so changed rows are shown') for @host;


# ---- topics

insert('a', '"in a"');
insert('b', '"in b"');
like(page($host[0], "/topic?topic=$_"), qr/^MISS /, "a page is made of topic $_") for qw(a b none);
insert('a', '"more"');
like(page($host[0], '/topic?topic=a'), qr/^MISS .*more/, 'a post renews the page of its topic');
like(page($host[0], "/topic?topic=$_"), qr/^HIT /, "... and not that of another one: $_") for qw(b none);
is(get($host[0], '/of?topic=' . $_), version($host[0]), "what is not one topic has the version of all posts: '$_'") for '', 'a,b', 'a/*', '_a', 'a//b';
is(get($host[0], '/unset'), version($host[0]), '... and so has a location without pgq_version_of');
isnt(get($host[0], '/of?topic=b'), version($host[0]), 'a topic has its own version');
is(get($host[0], '/both'), join('|', map { get($host[0], "/of?topic=$_") } qw(b a)), 'each subrequest of a page has the version of its own topic');


# ---- reloads

$before = version($host[0]);
my $topic = get($host[0], '/of?topic=b');
$host[0]->reload;
is(version($host[0]), $before, 'a reload keeps the version');
is(get($host[0], '/of?topic=b'), $topic, '... and that of a topic');

$host[0]->configure(ring => 'posts=200 poll=200ms');
$host[0]->reload;
ok(known(), 'a reload with another size of the ring has the same version again');


# ---- the database is away

page($_, '/page') for @host;
$pg->stop;
like(page($_, '/page'), qr/^HIT .*more/, 'a cached page is served without the database') for @host;

$host[1]->stop;
$host[1]->start;
$before = version($host[1]);
like($before, qr/^start-\d{13}$/, 'a host that starts without the database has a version that no host had before');
is(version($host[1]), $before, '... until the database answers');
like(get($host[1], '/page'), qr/no_database/, '... and it has no pages of before');
is(get($host[1], '/of?topic=b'), $before, '... of a topic either');

$pg->start;
post('', '"back"');
like(get($_, '/page'), qr/back/, 'when the database is back the pages are new ones') for @host;


# ---- the configuration

sub refused {
    my ($name, $like, %option) = @_;
    my $nginx = Pgq::Nginx->new(name => 'refused', conninfo => $conninfo, %option);
    my ($status, $output) = $nginx->test;
    like($output, $like, $name);
    return;
}

refused('a variable needs a ring', qr/the variable "pgq_version" needs a pgq_ring/, locations => 'location = /v { return 200 $pgq_version; }');
refused('... also that of a topic', qr/the variable "pgq_version_topic" needs a pgq_ring/, locations => 'location = /v { return 200 $pgq_version_topic; }');
my ($status) = Pgq::Nginx->new(name => 'accepted', conninfo => $conninfo, locations => 'location = /v { set $pgq_version_2 x; return 200 $pgq_version_2; }')->test;
is($status, 0, 'variables of other names that begin in the same way need none');
refused('pgq_version needs a pool with a ring', qr/pgq_pool "main" has no pgq_ring/, http => 'pgq_version main;');
refused('it names a pool that exists', qr/unknown pgq_pool "none"/, ring => '', http => 'pgq_version none;');
refused('it is given once', qr/"pgq_version" directive is duplicate/, ring => '', http => 'pgq_version main; pgq_version main;');

my $two = Pgq::Nginx->new(
    name      => 'two',
    pools     => qq{pgq_pool main "$conninfo"; pgq_pool other "host=/nowhere dbname=other"; pgq_ring other; pgq_ring main poll=200ms;},
    locations => 'location = /first { return 200 $pgq_version; } location = /main { pgq_version main; return 200 $pgq_version; }',
)->start;
ok(poll_until { get($two, '/main') eq version($host[0]) }, 'with several rings pgq_version chooses one');
like(get($two, '/first'), qr/^start-/, '... and without it the first one is meant');

done_testing;
