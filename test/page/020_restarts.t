# P11: the live page shows each post once and in order, across a reload of nginx and a crash of PostgreSQL, and says so.

use Pgq;
use Pgq::Browser;

my $pg      = Pgq::Postgres->new->start;
my $nginx   = Pgq::Nginx->new(pg => $pg, ring => '', http => 'client_header_timeout 2s;', workers => 2, endpoints => Pgq::Browser::locations())->start;
my $client  = Pgq::Client->new($nginx);
my $browser = Pgq::Browser->new->start;

sub shown { return join ' ', map { s/#//r } @{ $browser->run('return [...document.querySelectorAll("#posts .id")].map((id) => id.textContent)') } }

sub stored { return $pg->safe_psql("select string_agg(id::text, ' ' order by id desc) from posts") }

sub post_some { Pgq::Client->new($nginx)->post('/post', $_) for 1 .. 10 }

sub all_shown {
    my ($when) = @_;
    my $count = $_[1];

    ok($pg->poll_query_until('select count(*) from posts', $count), "$when: all messages become posts");
    ok((poll_until { shown() eq stored() } 60), "$when: the page shows each post once, newest first");
    ok($browser->wait_for_text('#state', qr/^live$/, 60), "$when: the page is live");

    return;
}


$browser->open($nginx->url('/'));
ok($browser->wait_for_text('#state', qr/^live$/), 'the page is live');
$browser->run('window.loaded = "once"');

post_some();
all_shown('before a reload', 10);

ok($nginx->reload, 'nginx is reloaded');
post_some();
all_shown('after a reload of nginx', 20);
is(join("\n", $browser->log), '', 'a reload of nginx causes no error in the page');

$pg->stop('immediate');
ok($browser->wait_for_text('#state', qr/^database away$/, 60), 'the page says that the database is away');

my @waiting = map { Pgq::Client->new($nginx)->send_post('/post', $_) } 21 .. 25;
$pg->start;
is(join(' ', map { $_->answer->status } @waiting), '202 202 202 202 202', 'messages that were sent meanwhile are accepted');
all_shown('after a crash of PostgreSQL', 25);

# A browser also opens connections without a request, which end by client_header_timeout.
ok((poll_until { $nginx->worker_pids == 2 } 20), 'the old workers have ended the stream of the page, and exit');
$nginx->stop('TERM');
ok($browser->wait_for_text('#state', qr/^reconnecting$/, 60), 'the page says that it has no connection');
$nginx->start;
post_some();
all_shown('after a restart of nginx', 35);

is($browser->run('return document.querySelectorAll("#posts .gap").length'), 0, 'the page shows no gap');
is($browser->run('return window.loaded'), 'once', 'the page was not loaded again');
is(join("\n", $browser->log), '', 'the page caused no error, and violated no policy');

$browser->stop;
done_testing;
