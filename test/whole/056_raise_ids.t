# P6: patroni/raise_ids raises the next id of a primary that lacks posts, before its movers start. So no id is given twice, also
# if two such primaries have timelines of the same number.

use Pgq;
use Pgq::Host qw(run top pg_bin server_user temp_dir slurp spew);

my $mark = 'ngx_pgq.movers = 0    # ids are not raised';
my $old  = Pgq::Postgres->new->start;

# The server's user may have no access to the sources.
my $script = temp_dir('script') . '/raise_ids';
spew($script, slurp(top() . '/patroni/raise_ids'));
chmod 0755, $script;

sub insert_messages { my ($pg, $name, $count) = @_; $pg->safe_psql("insert into ngx_pgq.queue (data) select to_json('$name ' || n) from generate_series(1, $count) as n") }
sub posts_of { my ($pg, $name) = @_; return split /\|/, $pg->safe_psql("select count(*), min(id), max(id) from posts where data::text like '\"$name %'") }

sub settings { return $_[0]->data . '/postgresql.auto.conf' }

sub raise_ids {
    my ($pg) = @_;
    my ($status, undef, $err) = run([ $script, $pg->conninfo ], user => server_user(), env => { PATH => pg_bin() . ":$ENV{PATH}", LC_ALL => 'C' });
    is($status, 0, 'raise_ids succeeds') or diag($err);
    return;
}

insert_messages($old, 'before', 10);
ok($old->wait_until_moved, 'messages become posts');
my ($behind, $later) = map { $old->standby(name => $_)->start } qw(behind later);
my $at = $old->safe_psql('select pg_current_wal_lsn()');
for my $standby ($behind, $later) {
    ok($standby->poll_query_until("select pg_last_wal_replay_lsn() >= '$at'", 't'), 'a standby has these posts');
}

# ---- a primary that lacks the last posts, with movers stopped as force_failover does
for my $standby ($behind, $later) {
    $standby->stop;
    spew(settings($standby), slurp(settings($standby)), "$mark\n");
}
insert_messages($old, 'lost', 1000);
ok($old->wait_until_moved, 'messages that the standbys lack become posts');
my $lost = $old->safe_psql('select max(id) from posts');
$old->stop('immediate');
for my $standby ($behind, $later) {
    $standby->start;
    $standby->promote;
}

insert_messages($behind, 'new', 20);
is($behind->safe_psql('select count(*) from ngx_pgq.queue'), 20, 'messages wait before ids are raised');
is($behind->safe_psql('show ngx_pgq.movers'), 0, 'the movers are stopped');
$behind->append_conf("synchronous_standby_names = 'absent'");
$behind->safe_psql('select pg_reload_conf()');
ok($behind->poll_query_until('show synchronous_standby_names', 'absent'), 'commits wait for a standby that does not exist');
my $revision = $behind->safe_psql('select n from ngx_pgq.revision');
raise_ids($behind);
cmp_ok($behind->safe_psql('select n from ngx_pgq.revision'), '>', $revision, 'nginx is told to forget posts that are lost');
$behind->append_conf("synchronous_standby_names = ''");
$behind->safe_psql('select pg_reload_conf()');
ok($behind->poll_query_until(q{select count(*) from posts where data::text like '"new %'}, 20), 'the messages become posts when ids are raised');
my (undef, $first, $last) = posts_of($behind, 'new');
cmp_ok($first, '>', $lost + 1_000_000_000, 'their ids are greater than those that are lost');
cmp_ok($last, '<', 2**50, 'their ids are exact in numbers with 53 bits');
unlike(slurp(settings($behind)), qr/movers/, 'the movers start after a restart, too');
is($behind->safe_psql('select count(*), min(id), max(id) from posts where id <= 100'), '10|1|10', 'the posts of before have kept their ids');

# ---- another primary that lacks the posts of both, on a timeline of the same number
is($later->safe_psql(q{select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)}), $behind->safe_psql(q{select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)}),
    'two primaries have timelines of the same number');
insert_messages($later, 'again', 20);
raise_ids($later);
ok($later->poll_query_until(q{select count(*) from posts where data::text like '"again %'}, 20), 'messages of the second primary become posts');
cmp_ok((posts_of($later, 'again'))[1], '>', $last, 'their ids are greater than those of the first');

# ---- again, and without an identity
raise_ids($later);
insert_messages($later, 'more', 1);
ok($later->wait_until_moved, 'a message after a second call becomes a post');
cmp_ok((posts_of($later, 'more'))[1], '>', (posts_of($later, 'again'))[2], 'a second call raises the id again');

done_testing;
