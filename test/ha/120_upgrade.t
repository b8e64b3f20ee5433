# P1, P2, P10: extension, module and the servers' processes are replaced under load, a host at a time, as
# provision/cluster/cluster upgrade does it: every process has the new files afterwards, no message is lost or there
# twice. Clients come back to a door that was closed for a moment. And a database that lacks what is new gets it by
# sql/install.sql, before nginx has a module that wants it.

use Pgq;
use Pgq::Cluster;
use Pgq::Host qw(top temp_dir slurp run);

my $cluster = Pgq::Cluster->new;
my $log     = temp_dir('cluster') . '/log';
my @hosts   = ($cluster->databases, $cluster->webs);

# Which hosts run a process that has a file of ours which is not the installed one any more.
sub stale {
    return join ' ', grep {
        ($cluster->on($_, 'sh', '-c', q(grep -lE 'ngx_(http_)?pgq[^ ]*[.]so [(]deleted[)]' /proc/[0-9]*/maps 2>/dev/null)))[1] ne ''
    } map { $_->name } @hosts;
}

ok($cluster->settled, 'a leader, and all others synchronous standbys');

# ---- the extension

sub extension { return $cluster->safe_psql(q(select extversion from pg_extension where extname = 'ngx_pgq')) }

my $newest = extension();
my @psql   = (top() . '/provision/cluster/cluster', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1');

$cluster->safe_psql('select ngx_pgq.wait_until_drained()');
is((run([ @psql, '-d', 'postgres', '-c', 'drop database posts with (force)', '-c', 'create database posts' ]))[0], 0, 'a database that is new');
my @install = (@psql, '-f', '/usr/local/share/ngx_pgq/sql/install.sql');
is((run(\@install))[0], 0, 'sql/install.sql is run');
$cluster->safe_psql('drop table ngx_pgq.key; drop function ngx_pgq.recent(integer, bigint, integer)');
is($cluster->safe_psql(q(select count(*) from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"older"']))), 0, 'a database without keys takes a message');
is((run(\@install))[0], 0, 'the newest sql/install.sql is run');
is(extension(), $newest, 'the extension is the newest');
is(Pgq::Client->new(($cluster->webs)[0])->post('/post', '"newest"', 'Idempotency-Key' => '"a"')->status, 202, 'nginx finds what it wants');
ok($cluster->poll_query_until(q(select string_agg(data::text, ' ' order by id) from posts), '"older" "newest"'), 'both messages are posts');

# ---- other files than the kit's

for my $host (@hosts) {
    my $file = $host->{role} eq 'web' ? '/usr/lib/nginx/modules/ngx_http_pgq_module.so' : '/usr/lib/postgresql/17/lib/ngx_pgq.so';
    $cluster->on($host, 'sh', '-c', "cp $file $file.old && printf old >> $file.old && mv $file.old $file");
}
is(stale(), join(' ', map { $_->name } @hosts), 'each host has processes with another file than the installed one');

# ---- upgrade, under load

my $load   = $cluster->load(reconnects => 1, pause => 0.05)->start;
my $before = $cluster->leader;

ok($load->wait_for(20), 'a load on both doors');

my $status = system(top() . "/provision/cluster/cluster upgrade 'echo \$(hostname) \$(test -e /var/lib/postgresql/17/ngx_pgq/standby.signal && echo standby) >> /root/upgraded' > $log 2>&1");

is($status, 0, 'upgrade') or diag(slurp($log));
is(stale(), '', 'every process has the new files');
ok($load->wait_for(20), 'the load goes on');
$load->stop;

is(extension(), $newest, 'the extension is the newest');
isnt($cluster->leader, $before, 'another member leads');

for my $host ($cluster->databases) {
    like(($cluster->on($host, 'cat', '/root/upgraded'))[1], qr/^\w+ standby\n\z/, $host->name . ' had its turn, once, as a standby');
}
$cluster->on($_, 'rm', '/root/upgraded') for @hosts;

diag(sprintf 'upgrade: longest time without a 202 %.2f s; %s', $load->gap, $load->summary);
is($load->failures, '', 'every request was answered in the end');
is(join("\n", $load->complaints), '', 'what was accepted is in posts, once');
ok($cluster->settled, 'and all are back');

done_testing;
