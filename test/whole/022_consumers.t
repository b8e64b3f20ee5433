# The consumers of bench/compare read their whole stock and acknowledge it, and notice a post that is missing.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg, locations => 'location /sub/ { pgq_subscription main; }')->start;
my @ways  = ([ SQL => 'consumer_sql', $pg->conninfo ], [ HTTP => 'consumer_http', $nginx->port ]);


# Two new subscriptions with 250 posts, of which one has this number instead of 1.
sub stock {
    my ($first) = @_;

    $pg->safe_psql(<<"END");
select ngx_pgq.unsubscribe(name) from ngx_pgq.subscription;
select ngx_pgq.subscribe('consume' || n) from generate_series(1, 2) as n;
insert into ngx_pgq.queue (data) select ('{"n":' || case n when 1 then $first else n end || '}')::json from generate_series(1, 250) as n;
END
    $pg->wait_until_moved;

    return;
}


for my $way (@ways) {
    my ($name, $program, @arguments) = @$way;
    my $consume = sub {
        my ($status, $out, $error) = Pgq::Host::run([ Pgq::Host::build_dir() . "/bench/$program", @_, @arguments ]);
        return "$status $error" . ($out =~ /^result rate [1-9]\d*$/m ? 'rate' : 'no rate');
    };

    stock(1);
    is($consume->(2, 250, 100), '0 rate', "consumers by $name read their posts");
    is($pg->safe_psql('select sum(lag) from ngx_pgq.subscriptions'), 0, "consumers by $name acknowledge all posts");
    like($consume->(2, 1, 100), qr/^1 .*: no posts$/m, "$name: a post that does not come is an error");

    stock(2);
    like($consume->(1, 250, 100), qr/^1 .*: not the posts/m, "$name: another post instead is an error");
}

done_testing;
