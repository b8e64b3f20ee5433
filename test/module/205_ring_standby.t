# A ring whose pool reads a hot standby follows it by polls, for a standby sends no notifications. It follows the server
# through its promotion, and goes on at another host of its pool.

use Pgq;
use Pgq::Wait qw(poll_until);

my $pg       = Pgq::Postgres->new->start;
my $standby  = Pgq::Postgres->new(name => 'standby', backup_of => $pg)->start;
my $password = $pg->set_password('ngx_pgq_web');
$standby->poll_query_until(q{select rolpassword is not null from pg_authid where rolname = 'ngx_pgq_web'});

sub nginx {
    my ($attrs, @servers) = @_;

    return Pgq::Nginx->new(
        conninfo  => 'host=' . join(',', ('127.0.0.1') x @servers) . ' port=' . join(',', map { $_->port } @servers)
            . " dbname=posts user=ngx_pgq_web password=$password target_session_attrs=$attrs",
        pool      => 'lanes=1', timeout => '20s', ring => 'poll=500ms',
        locations => 'location = /status { pgq_status; }',
    )->start;
}

sub ring { my $status = eval { Pgq::Client->new($_[0])->get('/status')->json } or return {}; return $status->{pools}[0]{ring} // {} }

sub has_newest {
    my ($nginx, $server) = @_;

    return poll_until { my $newest = $server->safe_psql('select max(id) from posts') || 0; return $newest && (ring($nginx)->{newest} // 0) == $newest } 20;
}

sub insert {
    my ($server) = @_;

    $server->safe_psql(q{insert into ngx_pgq.queue (data) values ('1')});
    return $server->wait_until_moved;
}

insert($pg);
my $reader = nginx('any', $standby);
my $both   = nginx('read-write', $pg, $standby);
ok(has_newest($_, $pg), 'the ring has the posts of the primary') for $both;
ok(has_newest($reader, $pg), 'a ring at a standby has them too');
insert($pg);
ok(has_newest($reader, $pg), '... and the next one');
unlike($reader->log_since(0), qr/\[error\].*(?:LISTEN|recovery)/, 'no error is logged because the standby does not listen');

my $end = $pg->safe_psql('select pg_current_wal_insert_lsn()');
$standby->poll_query_until("select pg_last_wal_replay_lsn() >= '$end'");
my $before = ring($both)->{newest};
$pg->stop('immediate');
$standby->promote;
ok($standby->poll_query_until('select pg_is_in_recovery()', 'f'), 'the standby is promoted');
insert($standby);
ok(has_newest($reader, $standby), 'the ring at the promoted server has the next post');
ok(has_newest($both, $standby), '... and so has the ring that was at the former primary');
unlike($both->log_since(0), qr/pgq ring: reset/, '... and did not read its posts again');
is(ring($both)->{posts}, $standby->safe_psql('select count(*) from posts'), '... and has each post once');
cmp_ok(ring($both)->{newest}, '>', $before, '... and ids have grown');

done_testing;
