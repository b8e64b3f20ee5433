# P1, P2, P10: provision/cluster/cluster upgrade installs newer packages and restarts the servers under load, one host at a
# time. Afterwards every process uses the new files, and no message is lost or duplicated. Clients that find nginx closed
# for a moment reconnect. sql/install.sql adds what an older database lacks, before nginx gets a module that needs it. A host
# can go back to the older packages. After a power cut of all hosts every service starts by itself.

use Pgq;
use Pgq::Cluster;
use Pgq::Host qw(top run slurp temp_dir);

my $cluster = Pgq::Cluster->new;
my @hosts   = ($cluster->databases, $cluster->webs);

# The hosts with a process that uses a replaced file of ours.
sub stale {
    return join ' ', grep {
        ($cluster->on($_, 'sh', '-c', q(grep -lE 'ngx_(http_)?pgq[^ ]*[.]so [(]deleted[)]' /proc/[0-9]*/maps 2>/dev/null)))[1] ne ''
    } map { $_->name } @hosts;
}

ok($cluster->settled, 'one member leads and the others are synchronous standbys');

# ---- the extension

sub extension { return $cluster->safe_psql(q(select extversion from pg_extension where extname = 'ngx_pgq')) }

my $newest = extension();
my @psql   = (top() . '/provision/cluster/cluster', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1');

$cluster->safe_psql('select ngx_pgq.wait_until_drained()');
is((run([ @psql, '-d', 'postgres', '-c', 'drop database posts with (force)', '-c', 'create database posts' ]))[0], 0, 'an empty database is created');
my @install = (@psql, '-f', '/usr/share/ngx-pgq/sql/install.sql');
is((run(\@install))[0], 0, 'sql/install.sql succeeds in an empty database');
$cluster->safe_psql('drop table ngx_pgq.key; drop function ngx_pgq.recent(integer, bigint, integer, text[], text)');
is($cluster->safe_psql(q(select count(*) from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"older"']))), 0, 'a database without the table of keys accepts a message');
is((run(\@install))[0], 0, 'sql/install.sql succeeds in the older database');
is(extension(), $newest, 'sql/install.sql updates the extension');
is(Pgq::Client->new(($cluster->webs)[0])->post('/post', '"newest"', 'Idempotency-Key' => '"a"')->status, 202, 'after sql/install.sql nginx accepts a message with a key');
ok($cluster->poll_query_until(q(select string_agg(data::text, ' ' order by id) from posts), '"older" "newest"'), 'messages from before and after sql/install.sql are posts');

# ---- newer packages

my $cache = top() . '/build/cluster/made';
my %ours  = (database => 'postgresql-17-ngx-pgq', web => 'libnginx-mod-http-pgq');

# The installed versions of the hosts; the versions of a package source.
sub installed { return join ' ', map { $cluster->must($_, 'dpkg-query', '-Wf${Version}', $ours{$_->{role}}) } @hosts }
sub offered { my ($text) = @_; return join ' ', map { $text =~ /^Package: $ours{$_->{role}}\n.*?^Version: (\S+)/ms } @hosts }

my $older = slurp("$cache/repository/Packages");
is(installed(), offered($older), 'every host has the packages of its kit');
my $aside = temp_dir('older');
run([ 'cp', '-r', "$cache/repository", $aside ]);
unlink "$cache/made";    # the next build has a later version

# ---- upgrade, under load

my $load   = $cluster->load(reconnects => 1, pause => 0.05)->start;
my $before = $cluster->leader;

ok($load->wait_for(20), 'both web hosts accept messages');

my $each = "'echo \$(hostname) \$(test -e /var/lib/postgresql/17/ngx_pgq/standby.signal && echo standby) >> /root/upgraded'";
ok($cluster->must_provision("upgrade $each"), 'the upgrade succeeds');
my $newer = slurp("$cache/repository/Packages");
isnt(offered($newer), offered($older), 'newer packages were built');
is(installed(), offered($newer), 'every host has the newer packages');
is(stale(), '', 'every process uses the new files');
ok($load->wait_for(20), 'after the upgrade the load continues');
$load->stop;

is(extension(), $newest, 'after the upgrade the extension has the newest version');
isnt($cluster->leader, $before, 'another member leads');

for my $host ($cluster->databases) {
    like(($cluster->on($host, 'cat', '/root/upgraded'))[1], qr/^\w+ standby\n\z/, $host->name . ' is upgraded once, as a standby');
}
$cluster->on($_, 'rm', '/root/upgraded') for @hosts;

diag(sprintf 'upgrade: longest time without a 202 %.2f s; %s', $load->gap, $load->summary);
is($load->failures, '', 'no request failed');
is(join("\n", $load->complaints), '', 'accepted messages are in posts once');
ok($cluster->settled, 'all members have their roles again');

# ---- back to the older packages, and forward again

my $web  = ($cluster->webs)[0];
my $kit  = temp_dir('kit');
my $tool = top() . '/provision/cluster';
my @self = ($web->name, $web->address, 'web', split /\n/, slurp(top() . '/run/cluster/peers'));

for my $case ([ older => "$aside/repository", $older ], [ newer => "$cache/repository", $newer ]) {
    my ($which, $repository, $packages) = @$case;

    run([ "$tool/kit", "$kit/kit", $web->name, $repository, top() . '/run/cluster/secrets' ]);
    run([ 'sh', '-c', "tar -C $kit -c kit | $tool/cluster on \$0 tar -C /root -x", $web->name ]);
    $cluster->must($web, '/root/kit/provision/host/setup', @self);
    is($cluster->must($web, 'dpkg-query', '-Wf${Version}', $ours{web}), (split / /, offered($packages))[-2], "a kit with $which packages installs them");
    ok($cluster->settled && Pgq::Client->new($web)->post('/post', qq("$which"))->status == 202, "with $which packages nginx accepts a message");
}
is(stale(), '', 'every process uses the files of its packages');

# ---- a power cut of all hosts

my $posts = $cluster->safe_psql('select ngx_pgq.wait_until_drained(); select count(*) from posts') =~ s/.*\n//sr;
$cluster->do_to(off => map { $_->name } @hosts);
# A host's boot ends when etcd has a quorum.
my $up = join ' ', map { $_->name } @hosts;
is(system("for host in $up; do $tool/cluster up \$host & pids=\"\$pids \$!\"; done; for pid in \$pids; do wait \$pid || exit 1; done"), 0, 'all hosts boot');
ok($cluster->settled(120), 'after a power cut all members start and have their roles');
is(Pgq::Client->new($_)->post('/post', '"again"')->status, 202, 'after a power cut ' . $_->name . ' accepts a message') for $cluster->webs;
$cluster->safe_psql('select ngx_pgq.wait_until_drained()');
is($cluster->safe_psql('select count(*) from posts'), $posts + 2, 'no post is lost');

done_testing;
