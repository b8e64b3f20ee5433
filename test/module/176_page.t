# pgq_page serves the files of the live page, with their types, an ETag and a Content-Security-Policy.

use Pgq;
use Pgq::Host qw(slurp top);

my $pages = 'error_page 400 404 405 /problem; location = /problem { internal; pgq_problem; }';
my $nginx = Pgq::Nginx->new(endpoints => "location / { pgq_page; } location /live/ { pgq_page; } $pages")->start;
my %type  = (html => 'text/html', css => 'text/css', js => 'text/javascript');

sub get { my ($path, %headers) = @_; return Pgq::Client->new($nginx)->method('GET', $path, undef, %headers) }

for my $file (map { s{.*/}{}r } glob top() . '/ngx_pgq_module/page/*') {
    my $path   = $file eq 'index.html' ? '/' : "/$file";
    my $answer = get($path);
    my $etag   = $answer->header('ETag');

    is($answer->status, 200, "GET $path succeeds");
    is($answer->body, slurp(top() . "/ngx_pgq_module/page/$file"), "GET $path returns the file of the sources");
    is($answer->header('Content-Type'), $type{ $file =~ s/.*\.//r } . '; charset=utf-8', "GET $path says the type");
    is($answer->header('Cache-Control'), 'no-cache', "a cache has to ask again for $path");
    is($answer->header('Content-Security-Policy'), "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        . " frame-ancestors 'none'; base-uri 'none'; form-action 'none'", "GET $path has the policy");
    is(get("/live$path")->body, $answer->body, "another location has the same $path");
    is(get($path, 'If-None-Match' => $etag)->status, 304, "GET $path with its ETag is answered with 304");

    my $head = Pgq::Client->new($nginx)->method('HEAD', $path);
    is($head->status . $head->header('ETag') . $head->header('Content-Length'), "200$etag" . length($answer->body), "HEAD $path has the header of GET");
    unlike($answer->body, qr{\bstyle=|<style|<script>|\son\w+=|https?://(?!www\.w3\.org/2000/svg)|innerHTML|outerHTML|document\.write|eval\(}i,
        "$path has no inline script or style, no other host, and makes no HTML from text");
}

is_problem(get($_), 404, 'not_found', "GET $_") for '/page', '/index.html', '/live/live/', '/page.js/', '/live/page.js.';
is_problem(Pgq::Client->new($nginx)->method('POST', '/', '1'), 405, 'method_not_allowed', 'a POST to the page');
is(get('/', 'Sec-Fetch-Site' => 'cross-site')->status, 200, 'a link of another site may lead to the page');

for my $location ('= /', '/live', '~ /$', '~ ^/live/') {
    my ($status, $output) = Pgq::Nginx->new(endpoints => "location $location { pgq_page; }")->test;

    isnt($status, 0, "nginx does not start with the page in location $location");
    like($output, qr/"pgq_page" directive needs a location whose name is a prefix that ends with "\/"/,
        "nginx says which location the page needs instead of $location");
}

done_testing;
