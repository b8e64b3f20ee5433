# P9: what a cluster's hosts are given and what is written there: each program takes its configuration, nothing secret
# may be read by others, and every host knows only its own part.

use Pgq;
use Pgq::Host qw(run temp_dir top slurp spew module_path build_dir pg_version pg_bin free_port has_program);

my $dir   = temp_dir('cluster');
my $top   = top();
my @peers = (
    (map { "database:pg$_:192.0.2.1$_" } 1 .. 3),
    (map { "web:web$_:192.0.2.2$_" } 1 .. 2),
    'backup:backup1:192.0.2.31',
);

sub text { my ($status, $out, $err) = run(@_); return "$out$err" . ($status ? "status $status\n" : '') }

# ---- what is secret

is(text([ "$top/provision/cluster/secrets", "$dir/secrets", @peers ]), '', 'secrets are made');

my %first = map { $_ => slurp($_) } glob "$dir/secrets/* $dir/secrets/*/*";
is(text([ "$top/provision/cluster/secrets", "$dir/secrets", @peers ]), '', 'and again');
is(join(' ', grep { slurp($_) ne $first{$_} } sort keys %first), '', 'which changes none');
is(join(' ', grep { (stat)[2] & 077 } "$dir/secrets", keys %first), '', 'nobody else may read them');

is(text([ 'openssl', 'verify', '-CAfile', "$dir/secrets/ca.crt", map { "$dir/secrets/pg$_/host.crt" } 1 .. 3 ]),
    join('', map { "$dir/secrets/pg$_/host.crt: OK\n" } 1 .. 3), 'the certificates are of that CA');

for my $name (qw(pg1 web1 web2 192.0.2.11)) {
    my $is = $name =~ /^\d/ ? '-checkip' : '-checkhost';
    like(text([ 'openssl', 'x509', '-noout', '-in', "$dir/secrets/pg1/host.crt", $is, $name ]), qr/ does match/,
        "PostgreSQL on pg1 answers to $name");
}

for my $name (qw(web1 localhost 192.0.2.21)) {
    my $is = $name =~ /^\d/ ? '-checkip' : '-checkhost';
    like(text([ 'openssl', 'x509', '-noout', '-in', "$dir/secrets/web1/host.crt", $is, $name ]), qr/ does match/, "nginx on web1 answers to $name");
}

for my $case ([ web1 => 'sslserver', 'OK' ], [ web1 => 'sslclient', 'unsuitable' ], [ pg1 => 'sslclient', 'OK' ]) {
    my ($name, $purpose, $said) = @$case;
    like(text([ 'openssl', 'verify', '-purpose', $purpose, '-CAfile', "$dir/secrets/ca.crt", "$dir/secrets/$name/host.crt" ]), qr/\b$said\b/,
        "a certificate of $name as $purpose: $said");
}

is(join(' ', map { s{.*/}{}r } sort glob "$dir/secrets/web1/*"), 'ca.crt host.crt host.key host.names passwords', 'a web host has a key for its door');
like(slurp("$dir/secrets/web1/passwords"), qr/\Aweb=\w{48}\n\z/, 'and one password');
is(join(' ', map { s{.*/}{}r } sort glob "$dir/secrets/backup1/*"), 'ca.crt host.crt host.key host.names passwords', 'a backup host has a passphrase');
like(slurp("$dir/secrets/backup1/passwords"), qr/\Arepository=\w{48}\n\z/, 'that of its repository, alone');

is(text([ 'openssl', 'verify', '-attime', time - 5 * 86400, '-CAfile', "$dir/secrets/ca.crt", "$dir/secrets/web1/host.crt" ]), "$dir/secrets/web1/host.crt: OK\n",
    'a host whose clock is behind takes them, too');

# ---- etcd lets in whoever has a certificate of its CA: that is one of its own, which certifies database hosts only

for my $case ([ 'pg1/etcd' => 'etcd-ca', 'OK' ], [ 'pg1/host' => 'etcd-ca', 'failed' ], [ 'web1/host' => 'etcd-ca', 'failed' ], [ 'backup1/host' => 'etcd-ca', 'failed' ]) {
    my ($file, $ca, $said) = @$case;
    like(text([ 'openssl', 'verify', '-CAfile', "$dir/secrets/$ca.crt", "$dir/secrets/$file.crt" ]), qr/\b$said\b/, "etcd and $file.crt: $said");
}
is(join(' ', map { s{.*/secrets/}{}r } glob "$dir/secrets/*/etcd.key"), 'pg1/etcd.key pg2/etcd.key pg3/etcd.key', 'database hosts alone have one');

# ---- and renewed, hosts with old and with new ones know each other

run([ 'cp', '-r', "$dir/secrets", "$dir/renewed" ]);
unlink "$dir/renewed/ca.crt";
text([ "$top/provision/cluster/secrets", "$dir/renewed", @peers ]);
isnt(slurp("$dir/renewed/pg1/host.crt"), slurp("$dir/secrets/pg1/host.crt"), 'certificates are renewed');

for my $which ([qw(renewed secrets)], [qw(secrets renewed)]) {
    my ($ca, $host) = @$which;
    is(text([ 'openssl', 'verify', '-CAfile', "$dir/$ca/ca.crt", "$dir/$host/pg1/host.crt" ]), "$dir/$host/pg1/host.crt: OK\n", "$host, of the CA of $ca");
}

# ---- what is written on a host

mkdir "$dir/parts";
mkdir "$dir/parts/extension";
run([ 'cp', module_path(), "$dir/parts/ngx_http_pgq_module.so" ]);
run([ 'cp', build_dir() . '/extension' . pg_version() . '/ngx_pgq.so', "$dir/parts/extension/" ]);

for my $peer (@peers[ 0, 3, 5 ]) {
    my ($role, $name, $address) = split /:/, $peer;

    is(text([ "$top/provision/cluster/kit", "$dir/kit-$name", $name, "$dir/parts", "$dir/secrets" ]), '', "a kit for $name");
    is(text([ "$dir/kit-$name/provision/host/setup", $name, $address, $role, @peers ], env => { NGX_PGQ_ROOT => "$dir/$name" }),
        "ngx_pgq: $name is set up as a $role host\n", 'which says what to write there');

    my @open = grep { (stat)[2] & 077 } grep { my $file = $_; grep { index(slurp($file), $_) >= 0 } passwords($name) }
        split /\n/, text([ 'find', "$dir/$name", '-type', 'f' ]);
    is("@open", '', 'no file with a password may be read by others');
}

for my $case ([ 'etc/default/etcd', qr/^ETCD_TRUSTED_CA_FILE=\S+etcd-ca\.crt$/m ], [ 'etc/default/etcd', qr/^ETCD_PEER_TRUSTED_CA_FILE=\S+etcd-ca\.crt$/m ],
    [ 'etc/patroni/config.yml', qr{^  cacert: /etc/ngx_pgq/etcd-ca\.crt$}m ], [ 'etc/ngx_pgq/databases', qr/\Apg1\npg2\npg3\n\z/ ]) {
    my ($file, $pattern) = @$case;
    like(slurp("$dir/pg1/$file"), $pattern, "$file: $pattern");
}

# ---- a TCP connection of any program ends within seconds of the other side's silence

for my $name (qw(pg1 web1 backup1)) {
    my %kernel = slurp("$dir/$name/etc/sysctl.d/60-ngx_pgq.conf") =~ /^net\.ipv4\.tcp_(\w+) = (\d+)$/mg;
    is(join(' ', map { "$_ $kernel{$_}" } sort keys %kernel), 'keepalive_intvl 2 keepalive_probes 3 keepalive_time 5 retries2 5 syn_retries 2',
        "$name: when idle, when sending, when connecting");
}

# ---- what was said once is kept

my %said = (
    NGX_PGQ_CLIENTS => '10.0.0.0/8', NGX_PGQ_PATIENCE => 3, NGX_PGQ_MONITORS => '10.0.9.9', NGX_PGQ_RATE => 77, NGX_PGQ_UNLIMITED => '10.0.7.0/24, 10.0.8.8',
    NGX_PGQ_HTTP => 'on',
);

for my $said (\%said, {}) {
    my ($role, $name, $address) = split /:/, $peers[3];

    text([ "$dir/kit-$name/provision/host/setup", $name, $address, $role, @peers ], env => { NGX_PGQ_ROOT => "$dir/kept", %$said });
    like(slurp("$dir/kept/etc/nftables.conf"), qr/ip saddr \{ 10\.0\.0\.0\/8 \} tcp dport \{ 80, 443 \}/, 'who may post, with and without TLS');
    like(slurp("$dir/kept/etc/nftables.conf"), qr/ip saddr \{ 10\.0\.9\.9 \} tcp dport 9180/, 'who may read the metrics');
    my $nginx = slurp("$dir/kept/etc/nginx/nginx.conf");
    is(scalar(() = $nginx =~ /^ +listen +80\b/mg), 2, 'the plain door, and its default');
    like($nginx, qr/rate=77r\/s/, 'the rate');
    like($nginx, qr/^ +10\.0\.7\.0\/24 0;\n +10\.0\.8\.8 0;$/m, 'who has none');
    like(slurp("$dir/kept/etc/haproxy/haproxy.cfg"), qr/timeout check 9s/, 'and how patient a host is');
}

sub passwords {
    my $file = "$dir/secrets/$_[0]/passwords";

    return map { /=(\w+)$/ ? $1 : () } split /\n/, -e $file ? slurp($file) : '';
}

like(slurp("$dir/pg1/etc/pgbackrest.conf"), qr/^repo1-host=backup1$/m, 'backups go to the backup host');
like(slurp("$dir/pg1/etc/patroni/config.yml"), qr/^ *archive_command: 'pgbackrest /m, 'and what is archived');
like(slurp("$dir/backup1/etc/pgbackrest.conf"), qr/^repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=\w{48}$/m, 'where they are encrypted');
is(join(' ', slurp("$dir/backup1/etc/pgbackrest.conf") =~ /^tls-server-auth=(.*)$/mg), 'pg1=ngx_pgq pg2=ngx_pgq pg3=ngx_pgq', 'which lets in database hosts alone');

# The file as it is there, for a machine that is not that host.
sub here {
    my ($name, $file, @other) = @_;
    my $text = slurp("$dir/$name$file");

    $text =~ s{/etc/ngx_pgq/}{$dir/$name/etc/ngx_pgq/}g;

    while (my ($pattern, $replacement) = splice @other, 0, 2) {
        $text =~ s/$pattern/my $first = $1; $replacement =~ s{\$\{1\}}{$first}r/ge;
    }

    spew("$dir/checked", $text);
    chmod 0600, "$dir/checked";

    return "$dir/checked";
}

SKIP: {
    skip 'haproxy is not installed: make check-others', 1 if !has_program('haproxy');
    is(text([ 'haproxy', '-c', '-q', '-f', here('web1', '/etc/haproxy/haproxy.cfg') ]), '', 'HAProxy takes its configuration');
}

unlike(slurp("$dir/web1/etc/nginx/nginx.conf"), qr/\blisten +80\b/, 'unless asked for there is no plain HTTP');
like(slurp("$dir/web1/etc/nftables.conf"), qr{ip saddr \{ 192\.0\.2\.0/24 \} tcp dport 443 accept}, 'nor a way to it');

# The test of a configuration opens its ports; nginx before 1.25.1 wants HTTP/2 said elsewhere.
my ($tls, $inner) = map { free_port() } 1 .. 2;
my $old   = text([ 'nginx', '-v' ]) =~ m{nginx/1\.(\d+)} && $1 < 25;
my $nginx = here('web1', '/etc/nginx/nginx.conf', 'host=web1,web2' => 'host=127.0.0.1,127.0.0.1', '(listen +)443' => "\${1}127.0.0.1:$tls",
    'listen +192\.0\.2\.21:9180[^;]*;' => '', '127\.0\.0\.1:9180' => "127.0.0.1:$inner", $old ? ('http2 +on;' => '') : (),
    '/usr/lib/nginx/modules/' => "$dir/web1/usr/lib/nginx/modules/", '/run/nginx.pid' => "$dir/nginx.pid", '/var/log/nginx/' => "$dir/");
like(text([ 'nginx', '-t', '-q', '-e', "$dir/error.log", '-c', $nginx ]), qr/\A(?:.*the "user" directive makes sense only.*\n)?\z/,
    'nginx takes its configuration');

# The firewall, in a network of its own, in which loopback is not let in without being looked at; a server at the door, and
# a client that has more and more connections to it.
SKIP: {
    skip 'nft is not installed: make check-others', 2 if !has_program('nft');
    skip 'only root can make a network', 2 if !Pgq::Host::is_root();

    my $client = spew("$dir/client", <<'END');
        use IO::Socket::INET;
        my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 443, Listen => 4096) or die "listen: $@\n";
        for (1 .. 600) {
            push @made, IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => 443, Timeout => 5) // last;
        }
        print scalar @made;
END
    my $connections = sub {
        my ($name, @other) = @_;
        my $rules = here($name, '/etc/nftables.conf', 'iif lo accept' => '', @other);
        return text([ 'unshare', '--net', 'sh', '-c', 'ip link set lo up; nft -f "$1" && perl "$2"', 'sh', $rules, $client ]);
    };
    is($connections->('web1', '192\.0\.2\.0/24' => '127.0.0.0/8'), 512, 'nftables takes the firewall, which lets an address have 512 connections');
    is($connections->('kept', '10\.0\.0\.0/8' => '127.0.0.0/8', '10\.0\.8\.8' => '127.0.0.1'), 600, 'but for those that are not limited');
}

# Patroni 4.0 itself takes `quorum`, its check does not, and Patroni 3.0's wants a pg_hba where it is not; with whom it
# runs is another machine's.
my $patroni = here('pg1', '/etc/patroni/config.yml', 'listen: \S+:' => 'listen: 127.0.0.1:', 'connect_address: pg1:' => 'connect_address: 192.0.2.11:',
    'pg\d:' => 'localhost:', '/usr/local/lib/ngx_pgq/' => "$dir/pg1/usr/local/lib/ngx_pgq/", '/usr/lib/postgresql/17/bin' => pg_bin(), 'data_dir: \S+' => "data_dir: $dir/data");

SKIP: {
    skip 'patroni is not installed: make check-others', 1 if !has_program('patroni');
    my @said = grep { !/synchronous_mode quorum is not a boolean|bootstrap\.pg_hba|already in use|status 1$|etcd3/ }
        split /\n/, text([ 'patroni', '--validate-config', $patroni ]);
    is(join("\n", @said), '', 'Patroni takes its configuration');
}

my ($ttl, $loop, $retry) = map { slurp($patroni) =~ /^\s+$_: (\d+)/m ? $1 : 'none' } qw(ttl loop_wait retry_timeout);
cmp_ok($loop + 2 * $retry, '<=', $ttl, 'a primary that is cut off steps down before its lock runs out');

done_testing;
