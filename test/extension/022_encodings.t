# In a database whose encoding is not UTF8, a message is refused only if it has an escape of a character that the encoding
# lacks.

use Pgq;

my $pg   = Pgq::Postgres->new(conf => "ngx_pgq.databases = 'posts, ascii, latin1'\n")->start;
my $call = q{select ordinal || ' ' || sqlstate from ngx_pgq.enqueue(gen_random_uuid(), array(select gen_random_uuid() from generate_series(1, 3)),
    array['"before"', '%s', '"after"'])};

for my $case (
    [ posts  => 'UTF8',      [ '"\u20ac"', '"\u00e4"', '"\u0041"' ], [] ],
    [ latin1 => 'LATIN1',    [ '"\u00e4"', '"\u0041"' ], [ '"\u20ac"', '{"\u20ac": 1}' ] ],
    [ ascii  => 'SQL_ASCII', [ '"\u0041"' ], [ '"\u20ac"', '"\u00e4"', '["\ud83d\ude00"]', '{"a": {"\u00e4": 1}}' ] ],
) {
    my ($database, $encoding, $good, $bad) = @$case;
    my @in = (database => $database);

    if ($database ne 'posts') {
        $pg->safe_psql("create database $database encoding $encoding locale 'C' template template0", database => 'postgres');
        $pg->install($database);
    }
    is($pg->safe_psql(sprintf($call, $_), @in), '', "$encoding: $_ is accepted") for @$good;
    is($pg->safe_psql(sprintf($call, $_), @in), '2 22P05', "$encoding: $_ alone is refused, with 22P05") for @$bad;

    my $messages = 2 * (@$good + @$bad) + @$good;
    ok($pg->poll_query_until('select count(*) from posts', $messages, 40, @in), "$encoding: the accepted messages are posts");
}

done_testing;
