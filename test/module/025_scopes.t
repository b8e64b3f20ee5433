# An Idempotency-Key belongs to who has sent it: to a user, else to an address, else to what the configuration says. What
# that says is checked before it goes to PostgreSQL.

use Pgq;

use MIME::Base64 qw(encode_base64);

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    http      => 'set_real_ip_from 127.0.0.1; real_ip_header X-Client;',
    locations => 'location = /shared { pgq_post main; pgq_idempotency_scope off; }'
        . ' location = /tenant { pgq_post main; pgq_idempotency_scope $http_x_tenant; }'
        . ' location /off { pgq_idempotency_scope off; location = /off/on { pgq_post main; pgq_idempotency_scope $http_x_tenant; }'
        . ' location = /off/off { pgq_post main; } }',
)->start;
my $client = Pgq::Client->new($nginx);

sub user { return (Authorization => 'Basic ' . encode_base64("$_[0]:password", '')) }

# What is answered to a message with a key: the id, or the problem's code.
sub keyed {
    my ($path, $body, %headers) = @_;
    my $answer = $client->post($path, $body, 'Idempotency-Key' => '"1"', %headers);
    my $json   = $answer->json;

    return $answer->{status} == 202 ? $json->{id} : "$answer->{status} $json->{code}";
}

# ---- by address
my $first = keyed('/post', '1', 'X-Client' => '192.0.2.1');
is(keyed('/post', '1', 'X-Client' => '192.0.2.1'), $first, 'a key of an address is known to it');
isnt(keyed('/post', '1', 'X-Client' => '192.0.2.2'), $first, 'another address does not learn the id');
is(keyed('/post', '2', 'X-Client' => '192.0.2.1'), '422 key_reused', 'another message of the same address is refused');
like(keyed('/post', '2', 'X-Client' => '192.0.2.3'), qr/^[0-9a-f-]{36}$/, 'that of another address is taken');
like(keyed('/post', '3', 'X-Client' => '2001:db8:0:0:ffff:ffff:ffff:ffff'), qr/^[0-9a-f-]{36}$/, 'an address of IPv6');

# ---- by user
my $alice = keyed('/post', '1', user('alice'), 'X-Client' => '192.0.2.1');
isnt($alice, $first, 'a user is not her address');
is(keyed('/post', '1', user('alice'), 'X-Client' => '192.0.2.9'), $alice, 'a key of a user is known to her at another address');
isnt(keyed('/post', '1', user('bob'), 'X-Client' => '192.0.2.1'), $alice, 'but not to another user');
isnt(keyed('/post', '1', user('192.0.2.1'), 'X-Client' => '192.0.2.8'), $first, 'a user whose name is an address is not that address');
is(keyed('/post', '1', user(''), 'X-Client' => '192.0.2.1'), $first, 'a user without a name is an address');
is(keyed('/post', '1', Authorization => 'Basic !', 'X-Client' => '192.0.2.1'), $first, 'and so is what is no user');

# ---- as the configuration says
my $shared = keyed('/shared', '1', 'X-Client' => '192.0.2.1');
isnt($shared, $first, 'without scopes: a key of its own');
is(keyed('/shared', '1', user('alice'), 'X-Client' => '192.0.2.7'), $shared, 'known to everybody');
is(keyed('/off/off', '1', 'X-Client' => '192.0.2.7'), $shared, 'off is inherited');

my $tenant = keyed('/tenant', '1', 'X-Tenant' => 'a', 'X-Client' => '192.0.2.1');
is(keyed('/tenant', '1', 'X-Tenant' => 'a', user('alice'), 'X-Client' => '192.0.2.2'), $tenant, 'with a value: a key of that value');
is(keyed('/off/on', '1', 'X-Tenant' => 'a'), $tenant, 'wherever it is said');
isnt(keyed('/tenant', '1', 'X-Tenant' => 'b'), $tenant, 'not of another');
is(keyed('/tenant', '1', 'X-Client' => '192.0.2.1'), $first, 'without a value it is the address');
isnt(keyed('/tenant', '1', 'X-Tenant' => $_), $first, "the value $_ is no address") for '192.0.2.1', 'address 192.0.2.1';

my $long = 'x' x 255;
like(keyed('/tenant', '1', 'X-Tenant' => $long, 'Idempotency-Key' => qq("$long")), qr/^[0-9a-f-]{36}$/, '255 bytes of a value and 255 of a key');
like(keyed('/tenant', '1', 'X-Tenant' => "gr\xc3\xbcn"), qr/^[0-9a-f-]{36}$/, 'a value of UTF-8');

# ---- a scope that is none: refused by nginx, with one line in the log
for my $case (
    [ '/tenant', 'bytes that are not UTF-8',  'X-Tenant' => "\xff" ],
    [ '/tenant', 'half a character',          'X-Tenant' => "a\xc3" ],
    [ '/tenant', 'a surrogate',               'X-Tenant' => "\xed\xa0\x80" ],
    [ '/tenant', 'a control character',       'X-Tenant' => "address\x1e192.0.2.1" ],
    [ '/tenant', 'the separator',             'X-Tenant' => "a\x1fb" ],
    [ '/tenant', 'DEL',                       'X-Tenant' => "a\x7f" ],
    [ '/tenant', '256 bytes',                 'X-Tenant' => "${long}x" ],
    [ '/post',   'a name that is not UTF-8',  user("\xff") ],
    [ '/post',   'a name with a zero byte',   user("a\0b") ],
    [ '/post',   'a name of 256 bytes',       user("${long}x") ],
) {
    my ($path, $name, @headers) = @$case;
    my $position = $nginx->log_position;

    is(keyed($path, '"bad"', @headers), '400 bad_scope', "$name is no scope");
    is(() = $nginx->log_since($position) =~ /pgq enqueue: refused: bad_scope/g, 1, "$name: one log line");
    unlike($nginx->log_since($position), qr/[\xff\xc3]/, "$name: without the value");
}

is($client->post('/tenant', '"no key"', 'X-Tenant' => "\xff")->{status}, 202, 'without a key nobody asks for a scope');
$pg->poll_query_until('select count(*) from ngx_pgq.queue', 0);
is($pg->safe_psql(q{select count(*) from posts where data::text = '"bad"'}), 0, 'nothing of that is a post');
ok(!$pg->log_contains(qr/ERROR/), 'nor was anything of it sent to PostgreSQL');
like($client->get('/nowhere')->{body}, qr/not_found/, 'nginx is there');

# ---- the directive
my $other = Pgq::Nginx->new(name => 'other', pg => $pg);
for my $wrong ('pgq_idempotency_scope;', 'pgq_idempotency_scope a b;', 'pgq_idempotency_scope off; pgq_idempotency_scope a;',
    'pgq_idempotency_scope a; pgq_idempotency_scope off;', 'pgq_idempotency_scope $nothing;')
{
    $other->configure(locations => $wrong);
    isnt(($other->test)[0], 0, "$wrong is refused");
}

done_testing;
