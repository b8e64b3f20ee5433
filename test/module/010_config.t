# What nginx says of a wrong configuration of the module, before it starts.

use Pgq;

my %wrong = (
    'a parameter that is none'       => ['pgq_pool main "host=/tmp" speed=9;',       qr/invalid parameter "speed=9"/],
    'a number that is none'          => ['pgq_pool main "host=/tmp" lanes=many;',    qr/invalid parameter "lanes=many"/],
    'no lanes'                       => ['pgq_pool main "host=/tmp" lanes=0;',       qr/invalid parameter "lanes=0"/],
    'a size beyond a statement'      => ['pgq_pool main "host=/tmp" batch_size=1g;', qr/invalid parameter "batch_size=1g"/],
    'a time that is none'            => ['pgq_pool main "host=/tmp" connect_timeout=soon;', qr/invalid parameter "connect_timeout=soon"/],
    'a wait that is none'            => ['pgq_pool main "host=/tmp"; pgq_timeout soon;', qr/pgq_timeout.*invalid value/],
    'no time to wait'                => ['pgq_pool main "host=/tmp"; pgq_timeout 0;', qr/value must be between 1 and 300000/],
    'a wait longer than a batch is known' => ['pgq_pool main "host=/tmp"; pgq_timeout 301s;', qr/value must be between 1 and 300000/],
    'no time for an answer'          => ['pgq_pool main "host=/tmp" answer_timeout=0;', qr/invalid parameter "answer_timeout=0"/],
    'an age that is none'            => ['pgq_pool main "host=/tmp" lane_age=old;',  qr/invalid parameter "lane_age=old"/],
    'an age beyond the timers'       => ['pgq_pool main "host=/tmp" lane_age=21d;',  qr/invalid parameter "lane_age=21d"/],
    'a kind of session that is none' => ['pgq_pool main "host=/tmp target_session_attrs=any-old";', qr/target_session_attrs of pgq_pool "main"/],
    'a server verified by nothing'   => ['pgq_pool main "host=127.0.0.1 sslmode=verify-full";', qr/sslmode of pgq_pool "main" needs an sslrootcert/],
    'a host that is not found'       => ['pgq_pool main "host=no.such.invalid";',    qr/host not found.*no\.such\.invalid/],
    'a service that is not found'    => ['pgq_pool main "service=nowhere";',         qr/service of pgq_pool "main" is not found/],
    'two pools of one name'          => ['pgq_pool main "host=/tmp"; pgq_pool main "host=/tmp";', qr/duplicate pgq_pool "main"/],
    'a location without its pool'    => ['pgq_pool other "host=/tmp";',              qr/unknown pgq_pool "main" \(it must be defined before its use\)/],
    'a conninfo that libpq does not understand' =>
        ['pgq_pool main "password=hush passwort=hush";', qr/invalid conninfo of pgq_pool "main"/],
);

for my $name (sort keys %wrong) {
    my ($pools, $expected) = @{ $wrong{$name} };
    my ($status, $text) = Pgq::Nginx->new(pools => $pools)->test;

    isnt($status, 0, "$name is refused");
    like($text, $expected, "$name is named");
    unlike($text, qr/hush/, "$name: no password is shown");
}

my ($status, $text) = Pgq::Nginx->new(
    pools => 'pgq_pool main "host=/tmp,127.0.0.1,::1 port=5432,5433,5434" lanes=1 batch=1 batch_size=1k'
        . ' tickets=1 size=1k connect_timeout=100ms answer_timeout=1ms lane_age=20d;',
    http  => 'pgq_depth 10;',
)->test;

is($status, 0, 'every parameter has a value that is taken') or diag($text);

($status, $text) = Pgq::Nginx->new(pools => 'pgq_pool main "host=/tmp sslmode=verify-full" lane_age=0;')->test;
is($status, 0, 'a lane may live for ever, and a socket has nothing to verify') or diag($text);

($status, $text) = Pgq::Nginx->new(http => 'pgq_depth 1025;', pools => 'pgq_pool main "host=/tmp";')->test;
like($text, qr/value must be (?:equal to or less than|between 1 and) 1024/, 'a depth beyond 1024 is refused');

($status, $text) = Pgq::Nginx->new(pools => 'pgq_pool main "host=/tmp passfile=/no/such/file";')->test;
is($status, 0, 'a password file may be missing') or diag($text);
like($text, qr{\[warn\].* password file "/no/such/file" of pgq_pool "main" cannot be read \(2: }, 'but nginx warns of it');

($status, $text) = Pgq::Nginx->new(pools => 'pgq_pool main "host=/tmp";', env => { HOME => '/no/such/home' })->test;
unlike($text, qr/password file/, 'that of the home directory is optional');

# One location has one content handler: none replaces another silently.
my %conflict = (
    'pgq_get beside pgq_post'     => ['pgq_post main; pgq_get main;',           qr/"pgq_get" directive is duplicate or conflicts with another handler/],
    'pgq_post twice'              => ['pgq_post main; pgq_post main;',          qr/"pgq_post" directive is duplicate/],
    'pgq_status beside pgq_metrics' => ['pgq_metrics; pgq_status;',             qr/"pgq_status" directive is duplicate or conflicts with another handler/],
    'pgq_post after proxy_pass'   => ['proxy_pass http://127.0.0.1; pgq_post main;', qr/"pgq_post" directive is duplicate or conflicts with another handler/],
    'pgq_post before proxy_pass'  => ['pgq_post main; proxy_pass http://127.0.0.1;', qr/conflicts with another handler of location "\/both"/],
);

for my $name (sort keys %conflict) {
    my ($directives, $expected) = @{ $conflict{$name} };

    ($status, $text) = Pgq::Nginx->new(pools => 'pgq_pool main "host=/tmp";', locations => "location = /both { $directives }")->test;
    isnt($status, 0, "$name is refused");
    like($text, $expected, "$name: the message says why");
}

($status, $text) = Pgq::Nginx->new(
    pools     => 'pgq_pool main "host=/tmp";',
    locations => 'location = /both { if ($request_method = POST) { rewrite ^ /post last; } pgq_get main; limit_except GET POST { deny all; } }',
)->test;
is($status, 0, 'one URL for POST and GET is a rewrite') or diag($text);

done_testing;
