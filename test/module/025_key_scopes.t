# The scope of an Idempotency-Key is the user, or the client's address if there is no user, or the value of
# pgq_idempotency_scope. It is checked before it is sent to PostgreSQL.

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

# Posts a message with the key "1". Returns its id; if it is refused, the status and the problem's code.
sub keyed {
    my ($path, $body, %headers) = @_;
    my $answer = $client->post($path, $body, 'Idempotency-Key' => '"1"', %headers);
    my $json   = $answer->json;

    return $answer->{status} == 202 ? $json->{id} : "$answer->{status} $json->{code}";
}

# ---- the address
my $first = keyed('/post', '1', 'X-Client' => '192.0.2.1');
is(keyed('/post', '1', 'X-Client' => '192.0.2.1'), $first, 'a key that is repeated from the same address gets the first id');
isnt(keyed('/post', '1', 'X-Client' => '192.0.2.2'), $first, 'a key from another address gets another id');
is(keyed('/post', '2', 'X-Client' => '192.0.2.1'), '422 key_reused', 'another message with the same key from the same address is refused');
like(keyed('/post', '2', 'X-Client' => '192.0.2.3'), qr/^[0-9a-f-]{36}$/, 'another message with the same key from another address is accepted');
like(keyed('/post', '3', 'X-Client' => '2001:db8:0:0:ffff:ffff:ffff:ffff'), qr/^[0-9a-f-]{36}$/, 'a key from an IPv6 address is accepted');

# ---- the user
my $alice = keyed('/post', '1', user('alice'), 'X-Client' => '192.0.2.1');
isnt($alice, $first, "a key of a user differs from the same key of the user's address");
is(keyed('/post', '1', user('alice'), 'X-Client' => '192.0.2.9'), $alice, "a user's key is the same key from another address");
isnt(keyed('/post', '1', user('bob'), 'X-Client' => '192.0.2.1'), $alice, 'the same key of another user is a different key');
isnt(keyed('/post', '1', user('192.0.2.1'), 'X-Client' => '192.0.2.8'), $first, "a key of a user whose name is an address differs from that address's key");
is(keyed('/post', '1', user(''), 'X-Client' => '192.0.2.1'), $first, 'the scope is the address if the user name is empty');
is(keyed('/post', '1', Authorization => 'Basic !', 'X-Client' => '192.0.2.1'), $first, 'the scope is the address if Authorization is invalid');

# ---- pgq_idempotency_scope
my $shared = keyed('/shared', '1', 'X-Client' => '192.0.2.1');
isnt($shared, $first, 'scope off: a key differs from the same key of an address');
is(keyed('/shared', '1', user('alice'), 'X-Client' => '192.0.2.7'), $shared, 'scope off: all users and addresses share a key');
is(keyed('/off/off', '1', 'X-Client' => '192.0.2.7'), $shared, 'scope off is inherited');

my $tenant = keyed('/tenant', '1', 'X-Tenant' => 'a', 'X-Client' => '192.0.2.1');
is(keyed('/tenant', '1', 'X-Tenant' => 'a', user('alice'), 'X-Client' => '192.0.2.2'), $tenant, "a scope's value replaces the user and the address");
is(keyed('/off/on', '1', 'X-Tenant' => 'a'), $tenant, 'the same value in another location is the same scope');
isnt(keyed('/tenant', '1', 'X-Tenant' => 'b'), $tenant, 'another value is another scope');
is(keyed('/tenant', '1', 'X-Client' => '192.0.2.1'), $first, 'an empty value makes the address the scope');
isnt(keyed('/tenant', '1', 'X-Tenant' => $_), $first, "the value $_ is a different scope than the address") for '192.0.2.1', 'address 192.0.2.1';

my $long = 'x' x 255;
like(keyed('/tenant', '1', 'X-Tenant' => $long, 'Idempotency-Key' => qq("$long")), qr/^[0-9a-f-]{36}$/, 'a scope of 255 bytes with a key of 255 bytes is accepted');
like(keyed('/tenant', '1', 'X-Tenant' => "gr\xc3\xbcn"), qr/^[0-9a-f-]{36}$/, 'a scope of non-ASCII UTF-8 is accepted');

# ---- invalid scopes: nginx refuses the request and logs one line
for my $case (
    [ '/tenant', 'a value that is not UTF-8',       'X-Tenant' => "\xff" ],
    [ '/tenant', 'half a character',                'X-Tenant' => "a\xc3" ],
    [ '/tenant', 'a surrogate in UTF-8',            'X-Tenant' => "\xed\xa0\x80" ],
    [ '/tenant', 'a control character',             'X-Tenant' => "address\x1e192.0.2.1" ],
    [ '/tenant', 'the separator of scope and key',  'X-Tenant' => "a\x1fb" ],
    [ '/tenant', 'the character DEL',               'X-Tenant' => "a\x7f" ],
    [ '/tenant', 'a value of 256 bytes',            'X-Tenant' => "${long}x" ],
    [ '/post',   'a user name that is not UTF-8',   user("\xff") ],
    [ '/post',   'a user name with a zero byte',    user("a\0b") ],
    [ '/post',   'a user name of 256 bytes',        user("${long}x") ],
) {
    my ($path, $name, @headers) = @$case;
    my $position = $nginx->log_position;

    is(keyed($path, '"bad"', @headers), '400 bad_scope', "$name is refused as a scope");
    is(() = $nginx->log_since($position) =~ /pgq enqueue: refused: bad_scope/g, 1, "$name: nginx logs one line");
    unlike($nginx->log_since($position), qr/[\xff\xc3]/, "$name: the log line does not contain the value");
}

is($client->post('/tenant', '"no key"', 'X-Tenant' => "\xff")->{status}, 202, 'an invalid scope does not matter without a key');
is($pg->count_posts('"bad"'), 0, 'no message with an invalid scope is a post');
ok(!$pg->log_contains(qr/ERROR/), 'nothing with an invalid scope is sent to PostgreSQL');
like($client->get('/nowhere')->{body}, qr/not_found/, 'nginx answers after invalid scopes');

# ---- the directive's parameters
my $other = Pgq::Nginx->new(name => 'other', pg => $pg);
for my $wrong ('pgq_idempotency_scope;', 'pgq_idempotency_scope a b;', 'pgq_idempotency_scope off; pgq_idempotency_scope a;',
    'pgq_idempotency_scope a; pgq_idempotency_scope off;', 'pgq_idempotency_scope $nothing;')
{
    $other->configure(locations => $wrong);
    isnt(($other->test)[0], 0, "$wrong is rejected");
}

done_testing;
