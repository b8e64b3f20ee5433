# The consumers of bench/compare read their whole stock and acknowledge it, and notice a post that is missing.

use Pgq;

my $pg = Pgq::Postgres->new->start;


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


sub consume {
    my ($program, @arguments) = @_;
    my ($status, $out, $error) = Pgq::Host::run([ Pgq::Host::build_dir() . "/bench/$program", @arguments ]);

    return "$status $error" . ($out =~ /^result rate [1-9]\d*$/m ? 'rate' : 'no rate');
}


stock(1);
is(consume('consumer_sql', 2, 250, 100, $pg->conninfo), '0 rate', 'consumers by SQL read their posts');
is($pg->safe_psql('select sum(lag) from ngx_pgq.subscriptions'), 0, 'all posts are acknowledged');
like(consume('consumer_sql', 2, 1, 100, $pg->conninfo), qr/^1 .*: no posts$/m, 'a post that does not come is an error');

stock(2);
like(consume('consumer_sql', 1, 250, 100, $pg->conninfo), qr/^1 .*: not the posts/m, 'another post instead is an error');

done_testing;
