# sql/install.sql warns when no movers serve the database, and says what to do; else it is silent.

use Pgq;

my $pg   = Pgq::Postgres->new->start;
my $file = Pgq::Host::top() . '/sql/install.sql';

sub install { my ($status, undef, $err) = $pg->psql(undef, file => $file, database => $_[0]); return "$status$err" }

is(install('posts'), '0', 'a database that is served: no warning');

$pg->safe_psql('create database "other-one"', database => 'postgres');
like(install('other-one'), qr/^0.*WARNING:  no movers serve database "other-one"\n.*Add it to ngx_pgq\.databases/s, 'one that is not: a warning');

$pg->safe_psql(q{alter system set ngx_pgq.databases = 'posts, "other-one"'});
$pg->safe_psql('select pg_reload_conf()');
ok($pg->poll_query_until(q{select count(*) > 0 from ngx_pgq.status where database = 'other-one'}, 't'), 'it is named in ngx_pgq.databases');
is(install('other-one'), '0', 'and the warning has gone');

$pg = Pgq::Postgres->new(name => 'plain', bare => 1, preload => '', database => 'postgres')->start;
like(install('postgres'), qr/^0.*WARNING:  no movers serve database postgres\n.*Load ngx_pgq via shared_preload_libraries/s, 'without preloading: the warning says so');

done_testing;
