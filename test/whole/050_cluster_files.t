# P9: the files that a cluster's hosts receive, and those that setup writes. Each program accepts its configuration, no
# other user can read a secret, and a host has only the secrets that it needs.

use Pgq;
use Pgq::Host qw(run temp_dir top slurp spew module_path pg_bin free_port has_program);

my $dir   = temp_dir('cluster');
my $top   = top();
my @peers = (
    (map { "database:pg$_:192.0.2.1$_" } 1 .. 3),
    (map { "web:web$_:192.0.2.2$_" } 1 .. 2),
    'backup:backup1:192.0.2.31',
    'monitor:monitor1:192.0.2.41',
);

sub text { my ($status, $out, $err) = run(@_); return "$out$err" . ($status ? "status $status\n" : '') }

# ---- secrets

is(text([ "$top/provision/cluster/secrets", "$dir/secrets", @peers ]), '', 'secrets are created');

my %first = map { $_ => slurp($_) } glob "$dir/secrets/* $dir/secrets/*/*";
is(text([ "$top/provision/cluster/secrets", "$dir/secrets", @peers ]), '', 'creating secrets again succeeds');
is(join(' ', grep { slurp($_) ne $first{$_} } sort keys %first), '', 'creating secrets again changes none');
is(join(' ', grep { (stat)[2] & 077 } "$dir/secrets", keys %first), '', 'no other user can read the secrets');

is(text([ 'openssl', 'verify', '-CAfile', "$dir/secrets/ca.crt", map { "$dir/secrets/pg$_/host.crt" } 1 .. 3 ]),
    join('', map { "$dir/secrets/pg$_/host.crt: OK\n" } 1 .. 3), 'the CA of the installation has signed the certificates');

for my $name (qw(pg1 web1 web2 192.0.2.11)) {
    my $is = $name =~ /^\d/ ? '-checkip' : '-checkhost';
    like(text([ 'openssl', 'x509', '-noout', '-in', "$dir/secrets/pg1/host.crt", $is, $name ]), qr/ does match/,
        "the certificate of pg1 is valid for $name");
}

for my $name (qw(web1 localhost 192.0.2.21)) {
    my $is = $name =~ /^\d/ ? '-checkip' : '-checkhost';
    like(text([ 'openssl', 'x509', '-noout', '-in', "$dir/secrets/web1/host.crt", $is, $name ]), qr/ does match/, "the certificate of web1 is valid for $name");
}

for my $case ([ web1 => 'sslserver', 'OK' ], [ web1 => 'sslclient', 'unsuitable' ], [ pg1 => 'sslclient', 'OK' ]) {
    my ($name, $purpose, $result) = @$case;
    like(text([ 'openssl', 'verify', '-purpose', $purpose, '-CAfile', "$dir/secrets/ca.crt", "$dir/secrets/$name/host.crt" ]), qr/\b$result\b/,
        "the certificate of $name as $purpose: $result");
}

is(join(' ', map { s{.*/}{}r } sort glob "$dir/secrets/web1/*"), 'ca.crt host.crt host.key host.names passwords', 'a web host receives a key for nginx');
like(slurp("$dir/secrets/web1/passwords"), qr/\Aweb=\w{48}\n\z/, 'a web host receives one password');
is(join(' ', map { s{.*/}{}r } sort glob "$dir/secrets/backup1/*"), 'ca.crt host.crt host.key host.names passwords', 'a backup host receives a key and passwords');
like(slurp("$dir/secrets/backup1/passwords"), qr/\Arepository=\w{48}\n\z/, 'a backup host receives only the passphrase of its repository');
is(join(' ', map { s{.*/}{}r } sort glob "$dir/secrets/monitor1/*"), 'ca.crt', 'a monitoring host receives no secret');

is(text([ 'openssl', 'verify', '-attime', time - 5 * 86400, '-CAfile', "$dir/secrets/ca.crt", "$dir/secrets/web1/host.crt" ]), "$dir/secrets/web1/host.crt: OK\n",
    'a host whose clock is five days behind accepts the certificates');

# ---- etcd accepts every certificate of its CA, which signs only for database hosts

for my $case ([ 'pg1/etcd' => 'etcd-ca', 'OK' ], [ 'pg1/host' => 'etcd-ca', 'failed' ], [ 'web1/host' => 'etcd-ca', 'failed' ], [ 'backup1/host' => 'etcd-ca', 'failed' ]) {
    my ($file, $ca, $result) = @$case;
    like(text([ 'openssl', 'verify', '-CAfile', "$dir/secrets/$ca.crt", "$dir/secrets/$file.crt" ]), qr/\b$result\b/, "the CA of etcd and $file.crt: $result");
}
is(join(' ', map { s{.*/secrets/}{}r } glob "$dir/secrets/*/etcd.key"), 'pg1/etcd.key pg2/etcd.key pg3/etcd.key', 'only database hosts receive a key for etcd');

# ---- renewed certificates: hosts with old and with new ones trust each other

run([ 'cp', '-r', "$dir/secrets", "$dir/renewed" ]);
unlink "$dir/renewed/ca.crt";
text([ "$top/provision/cluster/secrets", "$dir/renewed", @peers ]);
isnt(slurp("$dir/renewed/pg1/host.crt"), slurp("$dir/secrets/pg1/host.crt"), 'certificates are renewed');

for my $which ([qw(renewed secrets)], [qw(secrets renewed)]) {
    my ($ca, $host) = @$which;
    is(text([ 'openssl', 'verify', '-CAfile', "$dir/$ca/ca.crt", "$dir/$host/pg1/host.crt" ]), "$dir/$host/pg1/host.crt: OK\n", "a host with the CA file of $ca accepts a certificate of $host");
}

# ---- files on a host

mkdir "$dir/repository";    # packages are not installed below NGX_PGQ_ROOT

for my $peer (@peers[ 0, 3, 5, 6 ]) {
    my ($role, $name, $address) = split /:/, $peer;

    is(text([ "$top/provision/cluster/kit", "$dir/kit-$name", $name, "$dir/repository", "$dir/secrets" ]), '', "the kit for $name is created");
    run([ 'sh', '-c', 'mkdir -p "$2/usr/share/ngx-pgq" && cp -r "$1/monitoring" "$2/usr/share/ngx-pgq/"', 'sh', $top, "$dir/$name" ]);
    is(text([ "$dir/kit-$name/provision/host/setup", $name, $address, $role, @peers ], env => { NGX_PGQ_ROOT => "$dir/$name" }),
        "ngx_pgq: $name is set up as a $role host\n", "setup of $name succeeds");

    my @open = grep { (stat)[2] & 077 } grep { my $file = $_; grep { index(slurp($file), $_) >= 0 } passwords($name) }
        split /\n/, text([ 'find', "$dir/$name", '-type', 'f' ]);
    is("@open", '', "$name: no other user can read a file with a password");
    like(slurp("$dir/$name/etc/default/prometheus-node-exporter"), qr/^ARGS="--web\.listen-address=\Q$address\E:9100\b/, "$name: node exporter listens on the host's address");
    like(slurp("$dir/$name/etc/nftables.conf"), qr/elements = \{ 192\.0\.2\.21, 192\.0\.2\.22, 192\.0\.2\.41 \}.* \@monitors tcp dport 9100 accept/s,
        "$name: by default the firewall admits web hosts and the monitoring host to node exporter");
}

for my $case ([ 'etc/default/etcd', qr/^ETCD_TRUSTED_CA_FILE=\S+etcd-ca\.crt$/m ], [ 'etc/default/etcd', qr/^ETCD_PEER_TRUSTED_CA_FILE=\S+etcd-ca\.crt$/m ],
    [ 'etc/patroni/config.yml', qr{^  cacert: /etc/ngx_pgq/etcd-ca\.crt$}m ], [ 'etc/ngx_pgq/databases', qr/\Apg1\npg2\npg3\n\z/ ]) {
    my ($file, $pattern) = @$case;
    like(slurp("$dir/pg1/$file"), $pattern, "$file: $pattern");
}

# ---- TCP connections end within seconds when the peer is silent

for my $name (qw(pg1 web1 backup1 monitor1)) {
    my %kernel = slurp("$dir/$name/etc/sysctl.d/60-ngx_pgq.conf") =~ /^net\.ipv4\.tcp_(\w+) = (\d+)$/mg;
    is(join(' ', map { "$_ $kernel{$_}" } sort keys %kernel), 'keepalive_intvl 2 keepalive_probes 3 keepalive_time 5 retries2 5 syn_retries 2',
        "$name: the kernel limits idle, sending and connecting sockets");
}

# ---- settings of the first setup are kept

my %settings = (
    NGX_PGQ_CLIENTS => '10.0.0.0/8', NGX_PGQ_PATIENCE => 3, NGX_PGQ_MONITORS => '10.0.9.9', NGX_PGQ_RATE => 77, NGX_PGQ_UNLIMITED => '10.0.7.0/24, 10.0.8.8',
    NGX_PGQ_HTTP => 'on',
);

for my $settings (\%settings, {}) {
    my $when = %$settings ? 'first setup' : 'second setup';
    my ($role, $name, $address) = split /:/, $peers[3];

    text([ "$dir/kit-$name/provision/host/setup", $name, $address, $role, @peers ], env => { NGX_PGQ_ROOT => "$dir/kept", %$settings });
    like(slurp("$dir/kept/etc/nftables.conf"), qr/ip saddr \{ 10\.0\.0\.0\/8 \} tcp dport \{ 80, 443 \}/, "$when: the firewall admits the addresses of NGX_PGQ_CLIENTS");
    like(slurp("$dir/kept/etc/nftables.conf"), qr/elements = \{ 10\.0\.9\.9, 192\.0\.2\.41 \}.*ip saddr \@monitors tcp dport \{ 8404, 9180 \}/s,
        "$when: the firewall admits the addresses of NGX_PGQ_MONITORS and the monitoring host");
    my $nginx = slurp("$dir/kept/etc/nginx/nginx.conf");
    is(scalar(() = $nginx =~ /^ +listen +80\b/mg), 2, "$when: nginx listens without TLS, with a default server");
    like($nginx, qr/rate=77r\/s/, "$when: nginx has NGX_PGQ_RATE");
    like($nginx, qr/^ +10\.0\.7\.0\/24 0;\n +10\.0\.8\.8 0;$/m, "$when: nginx has NGX_PGQ_UNLIMITED");
    like(slurp("$dir/kept/etc/haproxy/haproxy.cfg"), qr/timeout check 9s/, "$when: HAProxy has NGX_PGQ_PATIENCE");
}

sub passwords {
    my $file = "$dir/secrets/$_[0]/passwords";

    return map { /=(\w+)$/ ? $1 : () } split /\n/, -e $file ? slurp($file) : '';
}

like(slurp("$dir/pg1/etc/pgbackrest.conf"), qr/^repo1-host=backup1$/m, 'pgBackRest on a database host uses the backup host');
like(slurp("$dir/pg1/etc/patroni/config.yml"), qr/^ *archive_command: 'pgbackrest /m, 'PostgreSQL archives WAL by pgBackRest');
like(slurp("$dir/backup1/etc/pgbackrest.conf"), qr/^repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=\w{48}$/m, 'pgBackRest on the backup host encrypts its repository');
is(join(' ', slurp("$dir/backup1/etc/pgbackrest.conf") =~ /^tls-server-auth=(.*)$/mg), 'pg1=ngx_pgq pg2=ngx_pgq pg3=ngx_pgq', 'pgBackRest on the backup host accepts only database hosts');

# ---- Prometheus scrapes the hosts of its cluster, with other names and numbers as well

sub targets { return join '; ', slurp("$dir/$_[0]/etc/prometheus/prometheus.yml") =~ /targets: \[(.*)\]/g }

my @elsewhere = qw(database:db1:192.0.2.1 web:front:192.0.2.2 web:back:192.0.2.3 web:side:192.0.2.4 monitor:monitor1:192.0.2.41);
run([ 'cp', '-r', "$dir/monitor1", "$dir/elsewhere" ]);
text([ "$dir/kit-monitor1/provision/host/setup", 'monitor1', '192.0.2.41', 'monitor', @elsewhere ], env => { NGX_PGQ_ROOT => "$dir/elsewhere" });

my @all = qw(pg1 pg2 pg3 web1 web2 backup1 monitor1);
is(targets('monitor1'), join('; ', 'web1:9180, web2:9180', join(', ', map { "$_:9100" } @all), (map { "pg1:$_, pg2:$_, pg3:$_" } 8008, 2381), 'web1:8404, web2:8404'),
    'Prometheus scrapes each host of the cluster');
is(targets('elsewhere'), 'front:9180, back:9180, side:9180; db1:9100, front:9100, back:9100, side:9100, monitor1:9100; db1:8008; db1:2381; front:8404, back:8404, side:8404',
    'Prometheus scrapes hosts with other names');
like(slurp("$dir/monitor1/etc/default/prometheus"), qr/^ARGS="--web\.listen-address=192\.0\.2\.41:9090 /, "Prometheus listens on the host's address");
is(slurp("$dir/monitor1/etc/prometheus/$_->[0]"), slurp("$top/monitoring/$_->[1]"), "Prometheus has $_->[1]") for [qw(rules.yml rules.yml)], [qw(consoles/console.html console.html)];

# A file of that host, changed so that it can be checked on this machine.
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
    is(text([ 'haproxy', '-c', '-q', '-f', here('web1', '/etc/haproxy/haproxy.cfg') ]), '', 'HAProxy accepts its configuration');
}

unlike(slurp("$dir/web1/etc/nginx/nginx.conf"), qr/\blisten +80\b/, 'by default nginx does not listen without TLS');
like(slurp("$dir/web1/etc/nftables.conf"), qr{ip saddr \{ 192\.0\.2\.0/24 \} tcp dport 443 accept}, 'by default the firewall opens only port 443 to clients');

SKIP: {
    skip 'prometheus is not installed: make check-others', 1 if !has_program('promtool');
    my $config = here('monitor1', '/etc/prometheus/prometheus.yml', 'rule_files: \[' => "rule_files: [$dir/monitor1/etc/prometheus/");
    like(text([ 'promtool', 'check', 'config', $config ]), qr{SUCCESS: .* is valid prometheus config file.*rules found\n\n\z}s, 'Prometheus accepts its configuration and rules');
}

# nginx -t opens the ports. nginx before 1.25.1 enables HTTP/2 by a parameter of listen.
my ($tls, $inner, $network) = map { free_port() } 1 .. 3;
my $old   = text([ 'nginx', '-v' ]) =~ m{nginx/1\.(\d+)} && $1 < 25;
my $nginx = here('web1', '/etc/nginx/nginx.conf', 'host=web1,web2' => 'host=127.0.0.1,127.0.0.1', '(listen +)443' => "\${1}127.0.0.1:$tls",
    '192\.0\.2\.21:9180' => "127.0.0.1:$network", '127\.0\.0\.1:9180' => "127.0.0.1:$inner", $old ? ('http2 +on;' => '') : (),
    '/usr/lib/nginx/modules/ngx_http_pgq_module.so' => module_path(), '/run/nginx.pid' => "$dir/nginx.pid", '/var/log/nginx/' => "$dir/");
like(text([ 'nginx', '-t', '-q', '-e', "$dir/error.log", '-c', $nginx ]), qr/\A(?:.*the "user" directive makes sense only.*\n)?\z/,
    'nginx accepts its configuration');

# The firewall in a network namespace, without its rule that accepts loopback; a server, and a client that opens more and
# more connections.
SKIP: {
    skip 'nft is not installed: make check-others', 2 if !has_program('nft');
    skip 'only root can make a network', 2 if !Pgq::Host::is_root();

    my $client = spew("$dir/client", <<'END');
        use IO::Socket::INET;
        my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 443, Listen => 4096) or die "listen: $@\n";
        for (1 .. 600) {
            push @open, IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => 443, Timeout => 5) // last;
        }
        print scalar @open;
END
    my $connections = sub {
        my ($name, @other) = @_;
        my $rules = here($name, '/etc/nftables.conf', 'iif lo accept' => '', @other);
        return text([ 'unshare', '--net', 'sh', '-c', 'ip link set lo up; nft -f "$1" && perl "$2"', 'sh', $rules, $client ]);
    };
    is($connections->('web1', '192\.0\.2\.0/24' => '127.0.0.0/8'), 512, 'the firewall limits an address to 512 connections');
    is($connections->('kept', '10\.0\.0\.0/8' => '127.0.0.0/8', '10\.0\.8\.8' => '127.0.0.1'), 600, 'the firewall does not limit addresses in NGX_PGQ_UNLIMITED');
}

# The check of Patroni 4.0 does not know `quorum`, which Patroni accepts. The check of 3.0 looks for pg_hba elsewhere.
my $patroni = here('pg1', '/etc/patroni/config.yml', 'listen: \S+:' => 'listen: 127.0.0.1:', 'connect_address: pg1:' => 'connect_address: 192.0.2.11:',
    'pg\d:' => 'localhost:', '/usr/local/lib/ngx_pgq/' => "$dir/pg1/usr/local/lib/ngx_pgq/", '/usr/lib/postgresql/17/bin' => pg_bin(), 'data_dir: \S+' => "data_dir: $dir/data");

SKIP: {
    skip 'patroni is not installed: make check-others', 1 if !has_program('patroni');
    my @complaints = grep { !/synchronous_mode quorum is not a boolean|bootstrap\.pg_hba|already in use|status 1$|etcd3/ }
        split /\n/, text([ 'patroni', '--validate-config', $patroni ]);
    is(join("\n", @complaints), '', 'Patroni accepts its configuration');
}

my ($ttl, $loop, $retry) = map { slurp($patroni) =~ /^\s+$_: (\d+)/m ? $1 : 'none' } qw(ttl loop_wait retry_timeout);
cmp_ok($loop + 2 * $retry, '<=', $ttl, 'loop_wait and retry_timeout let a primary step down before its leader lock expires');

done_testing;
