# The live page can be used by keyboard alone, on a screen 320 pixels wide, and axe-core finds no barrier in light and dark.

use Pgq;
use Pgq::Browser;
use Pgq::Host qw(slurp top);

my $pg      = Pgq::Postgres->new->start;
my $nginx   = Pgq::Nginx->new(pg => $pg, ring => '', endpoints => Pgq::Browser::locations())->start;
my $client  = Pgq::Client->new($nginx);
my $browser = Pgq::Browser->new->start;

# The element that has the focus: its id, or its class and the number of its post.
my $focus = 'const it = document.activeElement; return it.id || (it.closest("li")?.dataset.id ?? "") + it.className || it.textContent';

$client->post('/post', $_) for '{"long": "' . 'word ' x 200 . 'x' x 500 . '"}', '{"a": [1, 2]}', '"text"';
$browser->open($nginx->url('/'));
ok($browser->wait_for_text('#posts', qr/"text"/), 'the page shows posts');
ok($browser->wait_for_text('#charts', qr/Messages a second/), 'the page shows rates');


# ---- the keyboard

my %reached;
for (1 .. 30) {
    $browser->keys('Tab');
    my $name = $browser->run($focus);
    last if $reached{$name}++;
}

my @missed = grep { !$reached{$_} } qw(topics text pause newest body type topic Send 1line 2line 3line);
is("@missed", '', 'Tab reaches each control and each post');

$browser->run('document.getElementById("pause").focus()');
$browser->keys('Tab') for 1 .. 2;
is($browser->run($focus), '3line', 'the newest post follows the controls of the list');
$browser->keys('Down');
is($browser->run($focus), '2line', 'the arrow key moves to the next post');
$browser->keys('Enter');
is($browser->text('#posts .whole'), qq({\n  "a": [\n    1,\n    2\n  ]\n}), 'Enter unfolds a post');
is($browser->run('return document.activeElement.getAttribute("aria-expanded")'), 'true', 'an unfolded post is announced as such');
$browser->keys('Down', 'Enter', 'Up', 'Space');
is($browser->run('return document.querySelectorAll(".whole").length'), 1, 'Space folds a post again');
like($browser->run('return getComputedStyle(document.activeElement).outlineStyle'), qr/^(?:solid|auto)$/, 'the focus is visible');

$browser->run('document.getElementById("body").focus()');
$browser->keys('"by keyboard"', 'Control+Enter');
ok($browser->wait_for_text('#posts li', qr/"by keyboard"$/), 'a message is sent by the keyboard');
ok($browser->wait_for_text('#summary', qr/^\d+ new posts?, the newest is #4$/), 'new posts are announced in a summary');
is($browser->run('return [...document.querySelectorAll("[aria-live], [role=status]")].map((it) => it.id).join(" ")'), 'state summary result access',
    'single posts are not announced');


# ---- a narrow screen

for my $width (1000, 320) {
    $browser->set_width($width);
    is($browser->run('return document.documentElement.scrollWidth <= innerWidth'), 1, "the page is not wider than $width pixels");
    my $outside = 'return [...document.querySelectorAll("input, button, textarea, select, p, dd, svg, pre")]'
        . '.filter((it) => it.getBoundingClientRect().right > innerWidth).map((it) => it.id || it.className).join(" ")';
    is($browser->run($outside), '', "every element is within $width pixels");
}


# ---- axe-core

SKIP: {
    my $axe = top() . '/build/axe/axe.min.js';
    skip 'axe-core is not there: make check-page gets it, if there is npm', 4 if !-e $axe;
    $browser->run(slurp($axe));

    for my $width (1000, 320) {
        $browser->set_width($width);

        for my $scheme (qw(light dark)) {
            $browser->set_scheme($scheme);
            $browser->await('Promise.all(document.getAnimations().map((change) => change.finished)).then(() => "")');
            my $found = $browser->await('axe.run(document).then((result) => result.violations.map((it) => it.id + ": "'
                . ' + it.nodes.map((node) => node.html).join(" ")).concat(result.passes.length > 20 ? [] : "few rules ran").join("\n"))');
            is($found, '', "axe-core finds no barrier: $scheme, $width pixels");
        }
    }
}

is(join("\n", $browser->log), '', 'the page caused no error, and violated no policy');

$browser->stop;
done_testing;
