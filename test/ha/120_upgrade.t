# P1, P2, P10: provision/cluster/cluster upgrade replaces the extension, the module and the servers' processes under
# load, one host at a time. Afterwards every process uses the new files, and no message is lost or duplicated. Clients
# that find nginx closed for a moment reconnect. sql/install.sql adds what an older database lacks, before nginx gets
# a module that needs it.

use Pgq;
use Pgq::Cluster;
use Pgq::Host qw(top run);

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
my @install = (@psql, '-f', '/usr/local/share/ngx_pgq/sql/install.sql');
is((run(\@install))[0], 0, 'sql/install.sql succeeds in an empty database');
$cluster->safe_psql('drop table ngx_pgq.key; drop function ngx_pgq.recent(integer, bigint, integer, text[], text)');
is($cluster->safe_psql(q(select count(*) from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"older"']))), 0, 'a database without the table of keys accepts a message');
is((run(\@install))[0], 0, 'sql/install.sql succeeds in the older database');
is(extension(), $newest, 'sql/install.sql updates the extension');
is(Pgq::Client->new(($cluster->webs)[0])->post('/post', '"newest"', 'Idempotency-Key' => '"a"')->status, 202, 'after sql/install.sql nginx accepts a message with a key');
ok($cluster->poll_query_until(q(select string_agg(data::text, ' ' order by id) from posts), '"older" "newest"'), 'messages from before and after sql/install.sql are posts');

# ---- processes use other files than the installed ones

for my $host (@hosts) {
    my $file = $host->{role} eq 'web' ? '/usr/lib/nginx/modules/ngx_http_pgq_module.so' : '/usr/lib/postgresql/17/lib/ngx_pgq.so';
    $cluster->on($host, 'sh', '-c', "cp $file $file.old && printf old >> $file.old && mv $file.old $file");
}
is(stale(), join(' ', map { $_->name } @hosts), 'replaced files: every host reports stale processes');

# ---- upgrade, under load

my $load   = $cluster->load(reconnects => 1, pause => 0.05)->start;
my $before = $cluster->leader;

ok($load->wait_for(20), 'both web hosts accept messages');

my $each = "'echo \$(hostname) \$(test -e /var/lib/postgresql/17/ngx_pgq/standby.signal && echo standby) >> /root/upgraded'";
ok($cluster->must_provision("upgrade $each"), 'the upgrade succeeds');
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

done_testing;
