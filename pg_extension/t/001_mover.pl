# Movers are started again after an immediate shutdown and after they were terminated, and each message becomes one post.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'ngx_pgq'\nngx_pgq.movers = 2\n");
$node->start;
$node->safe_psql('postgres', slurp_file('sql/tables.sql'));

my $enqueue = q{select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['%s'])};

sub posts_are {
    my ($expected, $name) = @_;

    $node->poll_query_until('postgres', q{select ngx_pgq.wait_until_drained('1 min')});
    is($node->safe_psql('postgres', q{select string_agg(data::text, ' ' order by id) from posts}), $expected, $name);
}

$node->safe_psql('postgres', sprintf $enqueue, 1);
posts_are('1', 'a message becomes a post');

$node->safe_psql('postgres', 'select ngx_pgq.pause()');
$node->safe_psql('postgres', sprintf $enqueue, 2);
$node->stop('immediate');
$node->start;
posts_are('1 2', 'a message that was in the queue at an immediate shutdown becomes one post');

my $movers = q{select string_agg(pid::text, ' ' order by pid) from pg_stat_activity where backend_type = 'ngx_pgq mover'};
my $before = $node->safe_psql('postgres', $movers);
$node->safe_psql('postgres', q{select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'ngx_pgq mover'});
$node->safe_psql('postgres', sprintf $enqueue, 3);
posts_are('1 2 3', 'a message that was enqueued after the movers were terminated becomes a post');
isnt($node->safe_psql('postgres', $movers), $before, 'movers were started again');

done_testing();
