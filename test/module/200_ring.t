# The follower of a ring: one connection for all workers, which another worker takes over.

use Pgq;
use Pgq::Wait qw(poll_until);

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, workers => 3, ring => 'poll=200ms')->start;

# The process ids of the connections that follow: of the servers, and of the workers of nginx.
sub followers {
    return $pg->safe_psql(q{select coalesce(string_agg(pid::text, ' ' order by pid), '') from pg_stat_activity
        where query ~ 'ngx_pgq.follow' and pid <> pg_backend_pid()});
}

sub one_follows { return poll_until { followers() =~ /^\d+$/ } }

sub following_worker { return (map { /pgq follower: started/ && /(\d+)#/ ? $1 : () } split /\n/, $nginx->log_since(0))[-1] }

ok(one_follows(), 'one worker of three follows the database');
like($nginx->log_since(0), qr/pgq ring: created, 1000 posts, 16777216 bytes, pool "main"/, 'the log has the size of the ring');

is(scalar(() = $nginx->log_since(0) =~ /pgq follower: started/g), 1, 'one worker has started to follow');
my $since = $pg->safe_psql("select extract(epoch from clock_timestamp())");
ok((poll_until { $pg->safe_psql("select clock_timestamp() > to_timestamp($since) + interval '2 seconds'") eq 't' }), 'ten polls are over');
is(scalar(() = $nginx->log_since(0) =~ /pgq follower: started/g), 1, '... and it still follows');

my $first = followers();
$pg->safe_psql("select pg_terminate_backend($first)");
ok((poll_until { followers() =~ /^\d+$/ && followers() ne $first }), 'the follower connects again when its connection is ended');
$nginx->allow(qr/pgq lane: lost/);

my $worker = following_worker();
kill 'KILL', $worker;
ok((poll_until { following_worker() != $worker }), 'another worker follows when the follower is killed');
ok(one_follows(), '... with one connection');
$nginx->allow(qr/exited on signal 9/);

$worker = following_worker();
kill 'STOP', $worker;
ok((poll_until { following_worker() != $worker }), 'another worker follows when the follower is stopped');
ok((poll_until { followers() =~ /^\d+ \d+$/ }), '... while the connection of the stopped one is open');
kill 'CONT', $worker;
ok(one_follows(), '... which it closes when it continues');

for my $time (1 .. 3) {
    $worker = following_worker();
    ok($nginx->reload, 'nginx reloads');
    ok((poll_until { following_worker() != $worker }), 'a new worker follows after a reload');
    ok(one_follows(), '... with one connection');
}

is((() = $nginx->log_since(0) =~ /pgq ring: created/g), 1, 'the ring is kept over reloads');
$nginx->configure(ring => 'poll=200ms posts=500');
$nginx->reload;
ok((poll_until { $nginx->log_since(0) =~ /pgq ring: created, 500 posts/ }), 'a ring of another size is created by a reload');
ok(one_follows(), '... and followed');

done_testing();
