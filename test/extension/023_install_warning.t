# sql/install.sql warns when no movers serve the database.

use Pgq;

my $pg   = Pgq::Postgres->new->start;
my $file = Pgq::Host::top() . '/sql/install.sql';

sub install { my ($status, undef, $err) = $pg->psql(undef, file => $file, database => $_[0]); return "$status$err" }

is(install('posts'), '0', 'no warning in a database with movers');

$pg->safe_psql('create database "other-one"', database => 'postgres');
like(install('other-one'), qr/^0.*WARNING:  no movers serve database "other-one"\n.*Add it to ngx_pgq\.databases/s, 'a warning in a database without movers names ngx_pgq.databases');

$pg->safe_psql(q{alter system set ngx_pgq.databases = 'posts, "other-one"'});
$pg->safe_psql('select pg_reload_conf()');
ok($pg->poll_query_until(q{select count(*) > 0 from ngx_pgq.status where database = 'other-one'}, 't'), 'the database gets movers when ngx_pgq.databases names it');
is(install('other-one'), '0', 'no warning when the database has got movers');

$pg = Pgq::Postgres->new(name => 'plain', bare => 1, preload => '', database => 'postgres')->start;
like(install('postgres'), qr/^0.*WARNING:  no movers serve database postgres\n.*Load ngx_pgq via shared_preload_libraries/s, 'the warning names shared_preload_libraries when the library is not preloaded');

done_testing;
