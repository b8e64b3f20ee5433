# Pages that are deleted by requests with the method PURGE: the shell loop of docs/configuration.md, as it stands there, with
# Debian's module for nginx. Debian 12 has a module that ends the worker process, so the requests are only counted there.

use Pgq;
use Pgq::Host qw(kill_all slurp spawn top);

my $module   = '/usr/lib/nginx/modules/ngx_http_cache_purge_module.so';
my $works    = -e $module && `dpkg-query -W -f '\${Version}' libnginx-mod-http-cache-purge` =~ /^1:2\.[5-9]/;
my $pg       = Pgq::Postgres->new->start;
my $conninfo = $pg->conninfo(user => 'ngx_pgq_web');
my $app      = Pgq::Nginx->new(name => 'app', conninfo => $conninfo)->start;

my $nginx = Pgq::Nginx->new(
    conninfo  => $conninfo,
    ring      => 'poll=200ms',
    main      => $works ? "load_module $module;" : '',
    http      => 'proxy_cache_path %%PREFIX%%/cache keys_zone=pages:1m; pgq_drain 0; pgq_heartbeat 1h;',
    locations => 'location = /metrics { pgq_metrics; } location = /stream { pgq_stream main; } location = /page { proxy_pass http://127.0.0.1:' . $app->port . '/get;'
        . ' proxy_cache pages; proxy_cache_valid 200 1h; proxy_ignore_headers Cache-Control; add_header X-Cache $upstream_cache_status;'
        . ' proxy_cache_key $request_uri; ' . ($works ? 'proxy_cache_purge PURGE from 127.0.0.1;' : '') . ' }',
)->start;

my ($loop) = slurp(top() . '/docs/configuration.md') =~ /^(    while :; do\n.*?^    done\n)/ms;
ok($loop, 'docs/configuration.md has the loop');

sub page {
    my $answer = Pgq::Client->new($nginx)->get('/page');
    return ($answer->header('X-Cache') // '') . ' ' . $answer->body;
}

sub post { is(Pgq::Client->new($nginx)->post('/post', $_[0])->{status}, 202, "a message is accepted: $_[0]"); return $pg->wait_until_moved }

sub readers { return $nginx->metric('pgq_open_readers{pool="main",transport="ndjson"}') }

sub purges { return scalar(() = $nginx->access_log =~ /"PURGE \/page /g) }

# Posts a message and waits for its effect.
sub renewed {
    my ($text, $name) = @_;
    my $before = purges();
    post(qq("$text"));
    ok(poll_until { purges() > $before && (!$works || page() =~ /$text/) }, $name);
    return;
}

post('"first"');
like(page(), qr/^MISS .*first/, 'a page is made');
post('"second"');
like(page(), qr/^HIT .*first/, '... and kept after a post, without the loop');

my $purge = spawn(['bash', '-c', $loop], env => { STREAM => $nginx->url('/stream'), PAGE => $nginx->url('/page') }, out => $nginx->dir . '/purge.log');
ok(poll_until { readers() == 1 }, 'the loop reads the stream');
ok(poll_until { purges() > 0 && (!$works || page() =~ /second/) }, '... and deletes pages that were made before');

renewed('third', 'a new post deletes the page');
$nginx->stop;
$nginx->start;
ok(poll_until { readers() == 1 }, 'after a restart of nginx the loop reads the stream again');
renewed('fourth', '... and a new post deletes the page');

# The shell ends when curl does.
kill 'TERM', $purge;
$nginx->stop;
ok(kill_all('TERM', $purge), 'the loop ends');

done_testing;
