# Invalid configurations of the module are rejected when nginx starts, with an error that names the mistake.

use Pgq;

my %wrong = (
    'an unknown parameter'           => ['pgq_pool main "host=/tmp" speed=9;',       qr/invalid parameter "speed=9"/],
    'a value of lanes that is not a number' => ['pgq_pool main "host=/tmp" lanes=many;',    qr/invalid parameter "lanes=many"/],
    'a pool of 0 lanes'              => ['pgq_pool main "host=/tmp" lanes=0;',       qr/invalid parameter "lanes=0"/],
    'a batch_size larger than a statement' => ['pgq_pool main "host=/tmp" batch_size=1g;', qr/invalid parameter "batch_size=1g"/],
    'a connect_timeout that is not a time' => ['pgq_pool main "host=/tmp" connect_timeout=soon;', qr/invalid parameter "connect_timeout=soon"/],
    'a pgq_timeout that is not a time' => ['pgq_pool main "host=/tmp"; pgq_timeout soon;', qr/pgq_timeout.*invalid value/],
    'a pgq_timeout of 0'             => ['pgq_pool main "host=/tmp"; pgq_timeout 0;', qr/value must be between 1 and 300000/],
    'a pgq_timeout of more than 5 minutes' => ['pgq_pool main "host=/tmp"; pgq_timeout 301s;', qr/value must be between 1 and 300000/],
    'an answer_timeout of 0'         => ['pgq_pool main "host=/tmp" answer_timeout=0;', qr/invalid parameter "answer_timeout=0"/],
    'a lane_age that is not a time'  => ['pgq_pool main "host=/tmp" lane_age=old;',  qr/invalid parameter "lane_age=old"/],
    'a lane_age of more than 20 days' => ['pgq_pool main "host=/tmp" lane_age=21d;',  qr/invalid parameter "lane_age=21d"/],
    'an unknown target_session_attrs' => ['pgq_pool main "host=/tmp target_session_attrs=any-old";', qr/invalid target_session_attrs "any-old" in pgq_pool "main"/],
    'sslmode=verify-full without sslrootcert' => ['pgq_pool main "host=127.0.0.1 sslmode=verify-full";', qr/sslmode of pgq_pool "main" needs an sslrootcert/],
    'a host that cannot be resolved' => ['pgq_pool main "host=no.such.invalid";',    qr/host not found.*no\.such\.invalid/],
    'a service that is not defined'  => ['pgq_pool main "service=nowhere";',         qr/service of pgq_pool "main" is not found/],
    'a second pool of the same name' => ['pgq_pool main "host=/tmp"; pgq_pool main "host=/tmp";', qr/duplicate pgq_pool "main"/],
    'a location with an unknown pool' => ['pgq_pool other "host=/tmp";',              qr/unknown pgq_pool "main" \(it must be defined before its use\)/],
    'a conninfo that libpq rejects' =>
        ['pgq_pool main "password=hush passwort=hush";', qr/invalid conninfo of pgq_pool "main"/],
);

for my $name (sort keys %wrong) {
    my ($pools, $expected) = @{ $wrong{$name} };
    my ($status, $text) = Pgq::Nginx->new(pools => $pools)->test;

    isnt($status, 0, "$name is rejected");
    like($text, $expected, "$name: the error names the cause");
    unlike($text, qr/hush/, "$name: the error shows no password");
}

my ($status, $text) = Pgq::Nginx->new(
    pools => 'pgq_pool main "host=/tmp,127.0.0.1,::1 port=5432,5433,5434" lanes=1 batch=1 batch_size=1k'
        . ' tickets=1 size=1k connect_timeout=100ms answer_timeout=1ms lane_age=20d;',
    http  => 'pgq_depth 10;',
)->test;

is($status, 0, 'the smallest and largest valid parameters are accepted') or diag($text);

($status, $text) = Pgq::Nginx->new(pools => 'pgq_pool main "host=/tmp sslmode=verify-full" lane_age=0;')->test;
is($status, 0, 'lane_age=0 is accepted, and a Unix-domain socket needs no sslrootcert') or diag($text);

($status, $text) = Pgq::Nginx->new(http => 'pgq_depth 1025;', pools => 'pgq_pool main "host=/tmp";')->test;
like($text, qr/value must be (?:equal to or less than|between 1 and) 1024/, 'a pgq_depth of more than 1024 is rejected');

($status, $text) = Pgq::Nginx->new(pools => 'pgq_pool main "host=/tmp passfile=/no/such/file";')->test;
is($status, 0, 'a passfile that does not exist is accepted') or diag($text);
like($text, qr{\[warn\].* password file "/no/such/file" of pgq_pool "main" cannot be read \(2: }, 'a passfile that does not exist is logged as a warning');

($status, $text) = Pgq::Nginx->new(pools => 'pgq_pool main "host=/tmp";', env => { HOME => '/no/such/home' })->test;
unlike($text, qr/password file/, 'no warning is logged when the default password file does not exist');

# A location has one content handler. A second one is rejected; otherwise it would replace the first without notice.
my %conflict = (
    'pgq_get with pgq_post'       => ['pgq_post main; pgq_get main;',           qr/"pgq_get" directive is duplicate or conflicts with another handler/],
    'pgq_post twice'              => ['pgq_post main; pgq_post main;',          qr/"pgq_post" directive is duplicate/],
    'pgq_status with pgq_metrics' => ['pgq_metrics; pgq_status;',             qr/"pgq_status" directive is duplicate or conflicts with another handler/],
    'pgq_post after proxy_pass'   => ['proxy_pass http://127.0.0.1; pgq_post main;', qr/"pgq_post" directive is duplicate or conflicts with another handler/],
    'pgq_post before proxy_pass'  => ['pgq_post main; proxy_pass http://127.0.0.1;', qr/conflicts with another handler of location "\/both"/],
);

for my $name (sort keys %conflict) {
    my ($directives, $expected) = @{ $conflict{$name} };

    ($status, $text) = Pgq::Nginx->new(pools => 'pgq_pool main "host=/tmp";', locations => "location = /both { $directives }")->test;
    isnt($status, 0, "$name is rejected");
    like($text, $expected, "$name: the error names the directive");
}

($status, $text) = Pgq::Nginx->new(
    pools     => 'pgq_pool main "host=/tmp";',
    locations => 'location = /both { if ($request_method = POST) { rewrite ^ /post last; } pgq_get main; limit_except GET POST { deny all; } }',
)->test;
is($status, 0, 'POST and GET share a URL by means of a rewrite') or diag($text);

done_testing;
