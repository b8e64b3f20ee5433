# Rights to topics: pgq_topics, with a constant, a map of user names, and the answer of an identity service.

use Pgq;

use MIME::Base64 qw(encode_base64);

my $examples = Pgq::Host::top() . '/ngx_pgq_module/examples';
my $pg       = Pgq::Postgres->new->start;
my $nginx    = Pgq::Nginx->new(
    pg        => $pg,
    http      => "include $examples/http.conf;",
    endpoints => "include $examples/problem.conf; include $examples/topics.conf; location / { return 404; }",
    locations => <<'END_OF_LOCATIONS',
        location ^~ /free/     { pgq_post main; }
        location ^~ /constant/ { pgq_post main; pgq_topics "orders/* status, a.b"; }
        location ^~ /none/     { pgq_post main; pgq_topics ""; }
        location ^~ /all/      { pgq_post main; pgq_topics "**"; }
        location ^~ /list/     { pgq_post main; pgq_topics $http_list; }
        location ^~ /named/    { pgq_post main; pgq_topics "user/**"; pgq_topic user/$arg_who; }
        location ^~ /except/   { pgq_topics "a"; limit_except OPTIONS { allow all; } pgq_post main; }
        location ^~ /service/  { auth_request /verify; auth_request_set $user_topics $upstream_http_x_topics; pgq_topics $user_topics; pgq_post main; }
        location = /verify     { internal; proxy_pass http://127.0.0.1:%%PORT%%/identity; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
        location = /identity   { add_header X-Topics $http_grant; return 204; }
END_OF_LOCATIONS
);
my $hash = `openssl passwd -apr1 -salt 12345678 wonder`;
Pgq::Host::spew($nginx->dir . '/posters', map { "$_:$hash" } qw(alice bob carol));
$nginx->start;
my $accepted = 0;

sub post { my ($path, @headers) = @_; return Pgq::Client->new($nginx)->post($path, '1', @headers) }

sub may {
    my ($path, $name, @headers) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $answer = post($path, @headers);
    $accepted++ if $answer->status == 202;
    is($answer->status, 202, "$name: a message to $path is accepted");
    return;
}

sub may_not {
    my ($path, $name, @headers) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is_problem(post($path, @headers), 403, 'forbidden_topic', "$name: a message to $path");
    return;
}

# ---- constants
may('/free/', 'without pgq_topics');
may('/free/any/topic', 'without pgq_topics');
may("/constant/$_",     'a list') for qw(orders/eu status a.b);
may_not("/constant/$_", 'a list') for '', qw(orders orders/eu/1 Status statuses axb other);
may_not("/none/$_",     'an empty list') for '', 'a';
may("/all/$_",          'two asterisks') for qw(a a/b/c);
may_not('/all/',        'two asterisks');
may('/named/x?who=ann', 'a right to the topic of pgq_topic');
is_problem(post('/named/user/x?who=/'), 400, 'bad_topic', 'a malformed topic where topics are limited');
may('/except/a',     'a location with limit_except');
may_not('/except/b', 'a location with limit_except');

# ---- variables
my @many = map { "t$_/*" } 1 .. 64;
may('/list/t64/x',     '64 patterns', List => join ',', @many);
may_not('/list/t65/x', '64 patterns', List => join ' ', @many);
may_not('/list/a',     'an empty value', List => '');
may_not('/list/a',     'a variable that is not set');
for my $bad ('a//b', '/a', '_a', 'a*', '**/a', "\xff", 'a;b', join(',', @many, 'one/more')) {
    is_problem(post('/list/a', List => $bad), 500, 'internal_error', "a message where pgq_topics has the value $bad");
}
$nginx->wait_for_log(qr/\[error\].*pgq filter: invalid value of pgq_topics/);

# ---- the example: user names
my %user = map { $_ => [ Authorization => 'Basic ' . encode_base64("$_:wonder", '') ] } qw(alice bob carol);
may('/post/orders/eu',      'alice', @{ $user{alice} });
may('/post/orders/eu/1',    'alice', @{ $user{alice} });
may_not('/post/status/now', 'alice', @{ $user{alice} });
may('/post/orders/eu',      'bob', @{ $user{bob} });
may('/post/status/now',     'bob', @{ $user{bob} });
may_not('/post/orders/us',  'bob', @{ $user{bob} });
may_not('/post/',           'bob', @{ $user{bob} });
may_not('/post/orders/eu',  'a user without topics', @{ $user{carol} });
is_problem(post('/post/orders/eu'), 401, 'unauthorized', 'a message without a user name');
is(Pgq::Client->new($nginx)->method('OPTIONS', '/post/orders/eu')->status, 204, 'a preflight needs no right');

# ---- an identity service
may('/service/a/b',     'the answer of a service', Grant => 'a/*, c');
may_not('/service/b',   'the answer of a service', Grant => 'a/*, c');
may_not('/service/a/b', 'an answer without topics');
may_not('/service/a/b', 'the answer of a service, of a user who has a right by name', @{ $user{alice} }, Grant => 'c');

# ---- a refusal comes before the body is read, and uses no key
my $client = Pgq::Client->new($nginx);
$client->send($client->request('POST', '/none/a', headers => { 'Content-Length' => 3, Expect => '100-continue' }));
is($client->answer(interim => 1)->status, 403, 'a message with a forbidden topic is refused without 100 Continue');
may_not('/list/a', 'a message with a key', List => 'b', 'Idempotency-Key' => '"k"');
may('/list/a',     'a message with the key of a refused one', List => 'a', 'Idempotency-Key' => '"k"');
is_problem(Pgq::Client->new($nginx)->post('/constant/other', "1\n2\n", 'Content-Type' => 'application/x-ndjson'), 403, 'forbidden_topic', 'NDJSON with a forbidden topic');
is($pg->count_posts, $accepted, 'no refused message is a post');

# ---- a constant that is no list
for my $bad ('a//b', '_a', '**/a', join ',', @many, 'b') {
    my $other = Pgq::Nginx->new(pg => $pg, locations => qq{location ^~ /bad/ { pgq_post main; pgq_topics "$bad"; }});
    my ($status, $output) = $other->test;
    isnt($status, 0, "nginx does not start with pgq_topics $bad");
    like($output, qr/\[emerg\].* invalid topics "/, "nginx says that pgq_topics $bad is invalid");
}

done_testing;
