# The live page in Chromium: a message that is sent arrives in the list without a reload of the page, as text, with its digits.

use utf8;

use Pgq;
use Pgq::Browser;

# A stream that ends after a few posts, some of them twice.
my $posts  = join '', map { qq(id: $_\\ndata: {\\"id\\":$_,\\"data\\":1,\\"at\\":null}\\n\\n) } 7, 8, 7, '9007199254740993', '9007199254740992';
my $twice  = qq(location /twice/ { pgq_page; } location = /twice/stream { default_type text/event-stream; return 200 "retry: 100\\n\\n$posts"; });

my $pg      = Pgq::Postgres->new->start;
my $nginx   = Pgq::Nginx->new(pg => $pg, ring => '', endpoints => Pgq::Browser::locations(), locations => $twice)->start;
my $client  = Pgq::Client->new($nginx);
my $browser = Pgq::Browser->new->start;

# The ids in the list, from the top.
sub shown { return join ' ', map { s/#//r } @{ $browser->run('return [...document.querySelectorAll("#posts .id")].map((id) => id.textContent)') } }

sub stored { return $pg->safe_psql("select string_agg(id::text, ' ' order by id desc) from (select id from posts order by id desc limit 500) x") }

sub newest_has { my ($pattern) = @_; return $browser->wait_for_text('#posts li', $pattern) }

# What the newest post shows when it is unfolded.
sub unfolded {
    $browser->click('#posts .line');
    return $browser->text('#posts .whole');
}


$browser->open($nginx->url('/'));
ok($browser->wait_for_text('#state', qr/^live$/), 'the page is live');
$browser->run('window.loaded = "once"');


# ---- sending

$browser->run('document.getElementById("body").focus()');
$browser->keys('{"price": 2.50, "big": 12345678901234567890}', 'Control+Enter');
ok($browser->wait_for_text('#result', qr/^queued as [0-9a-f-]{36}/), 'the page shows the id of a queued message');
ok(newest_has(qr/^#\d+ \d+ s {2}\Q{"price": 2.50, "big": 12345678901234567890}\E$/), 'the message arrives in the list, with its digits');
is(unfolded(), qq({\n  "price": 2.50,\n  "big": 12345678901234567890\n}), 'an unfolded post is indented, and has its digits');

my $number = $pg->safe_psql('select max(id) from posts');
like($browser->text('#result'), qr/, posted as #$number in \d+ ms$/, 'the page shows the number of the post');

$browser->run('const body = document.getElementById("body"); body.value = ""; body.focus()');
$browser->keys('{"ż": 2.5.0}', 'Control+Enter');
ok($browser->wait_for_text('#result', qr/, at byte 10 \(400\)$/), 'a refused message is shown with the byte of the error');
is($browser->run('const body = document.getElementById("body"); return body.value.slice(body.selectionStart, body.selectionEnd)'), '.',
    'the character at this byte is selected');

$browser->run('document.getElementById("body").value = arguments[0]; document.getElementById("type").value = "text/plain"', "a\tb \"c\"");
$browser->click('#message button');
ok(newest_has(qr/\Q"a\tb \"c\""\E$/), 'a text is posted as a JSON string');

$browser->run('document.getElementById("topic").value = "orders/new"');
$browser->click('#message button');
ok(newest_has(qr{ orders/new "a}), 'a post is shown with its topic');


# ---- what is shown is text

for my $hostile ('"<script>window.hurt = 1</script>"', '{"<img src=x onerror=\"window.hurt = 1\">": "<img src=x onerror=\"window.hurt = 1\">"}') {
    $client->post('/post', $hostile, 'Content-Type' => 'application/json');
    ok(newest_has(qr/\Q$hostile\E$/), 'a post with HTML is shown as text');
    like(unfolded(), qr/\Q<\E(?:script|img)/, 'an unfolded post with HTML is shown as text');
}

is($browser->run('return document.querySelectorAll("#posts script, #posts img").length'), 0, 'HTML in a post makes no elements');
is($browser->run('return typeof window.hurt'), 'undefined', 'a script in a post does not run');

for my $case (
    [ '[]', '[]' ],
    [ '{"a":[],"b":{}}', qq({\n  "a": [],\n  "b": {}\n}) ],
    [ '[1e400,-0.0,[{"a\\\\":"\\"]"}]]', qq([\n  1e400,\n  -0.0,\n  [\n    {\n      "a\\\\": "\\"]"\n    }\n  ]\n]) ],
    [ qq({\n\t"a" :\r\n1}), qq({\n  "a": 1\n}) ],
    [ '"\\\\"', '"\\\\"' ],
) {
    my ($message, $text) = @$case;
    my $id = $pg->safe_psql('select max(id) from posts');
    $client->post('/post', $message, 'Content-Type' => 'application/json');
    ok(poll_until { shown() =~ /^(\d+)/ && $1 > $id }, 'the next post arrives');
    is(unfolded(), $text, 'a post is unfolded as the indented text of its value');
}

is(shown(), stored(), 'the list has each post once, newest first');
is($browser->run('return window.loaded'), 'once', 'the page was not loaded again');


# ---- pause and filters

$browser->run('document.activeElement.blur()');
$browser->keys('Space');
my $before = shown();
$client->post('/post', $_) for 1 .. 3;
ok($browser->wait_for_text('#pause', qr/^Follow \(3 new\)$/), 'a paused list counts the new posts');
is(shown(), $before, 'a paused list does not change');
$browser->keys('Space');
is(shown(), stored(), 'a list that is followed again has the new posts');

my $visible = 'return [...document.querySelectorAll("#posts li:not([hidden]) .data")].map((data) => data.textContent).join(" ")';

$browser->run('document.getElementById("text").focus()');
$browser->keys('PRICE');
like($browser->run($visible), qr/^\{"price": 2.50[^{]*$/, 'the text filter shows the posts that have the text');
$browser->run('const text = document.getElementById("text"); text.value = ""; text.dispatchEvent(new Event("input"))');

$browser->run('document.getElementById("topics").focus()');
$browser->keys('orders/*', 'Enter');
ok((poll_until { $browser->run($visible) =~ /^"a\S+ \S+"$/ }), 'the topic filter shows the posts of these topics');
$client->post('/post', '"none"');
$client->post('/post/orders/old', '"old"');
ok(newest_has(qr{orders/old "old"$}), 'a new post of these topics arrives');
unlike($browser->run($visible), qr/none/, 'a post without topic does not arrive');

$browser->run('const topics = document.getElementById("topics"); topics.value = ""; topics.focus()');
$browser->keys('//', 'Enter');
ok($browser->wait_for_text('#detail', qr/^in \d+ s: .*\(400\)$/), 'a malformed topic filter is shown as refused');
$browser->run('const topics = document.getElementById("topics"); topics.value = ""; topics.dispatchEvent(new Event("change"))');
ok((poll_until { shown() eq stored() }), 'without a topic filter the list has all posts');


# ---- limits

$client->post('/post', join('', map { "$_\n" } 1 .. 700), 'Content-Type' => 'application/x-ndjson');
$client->post('/post', '"the last"');
ok(newest_has(qr/the last/), 'the posts of a burst arrive');
is(shown(), stored(), 'the list has the newest 500 posts');

$browser->reload;
ok(newest_has(qr/the last/), 'a page that is loaded again shows the newest post');
is(shown() =~ tr/ //, 99, 'a page that is loaded again shows 100 posts');

$browser->run('sessionStorage.setItem("pgq / ", "999999999")');
$browser->reload;
ok($browser->wait_for_text('#posts .gap', qr/^gap: .* \(ahead\)$/), 'a position that the server does not have is shown as a gap');
$client->post('/post', '"after the gap"');
ok(newest_has(qr/after the gap/), 'posts after a gap arrive');


# ---- a stream that sends posts twice, and again after each connection

$browser->open($nginx->url('/twice/?view=1'));
ok((poll_until { my $requests = () = $nginx->access_log =~ m{GET /twice/stream}g; $requests >= 3 }), 'the page connects again');
is(shown(), '9007199254740993 8 7', 'a post that is sent again is shown once, also with an id of 54 bits');
$browser->open($nginx->url('/'));


# ---- the panel

ok($browser->wait_for_text('#facts', qr/lanes for POST2 idle/), 'the panel shows the lanes');
ok($browser->wait_for_text('#charts', qr/Messages a second: /), 'the panel shows rates');
$nginx->configure(endpoints => Pgq::Browser::locations() =~ s/pgq_status;/return 403;/r);
$nginx->reload;
ok($browser->wait_for_text('#access', qr/^The status of the server is not available to this page \(403\)\.$/, 60),
    'the panel says when the status is not available to it');

is(join("\n", $browser->log), '', 'the page caused no error, and violated no policy');

$browser->open($nginx->url('/?view=1'));
ok(newest_has(qr/after the gap/), 'a page with view=1 shows posts');
is($browser->run('return document.getElementById("send").hidden'), 1, 'a page with view=1 has no form to send');

$browser->stop;
done_testing;
