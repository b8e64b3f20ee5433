# The load client's check can fail: whatever is wrong with posts, by hand, is found and counted; what is right is not.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg)->start;
my $dir   = Pgq::Host::temp_dir('load');
my $count = 300;

my @counts = qw(lost twice altered unexpected unknown_present unknown_twice id_twice dead foreign);


# Runs the load client: its exit status and what its result lines say.
sub load {
    my @arguments = @_;
    my ($status, $out, $err)
        = Pgq::Host::run([ Pgq::Host::build_dir() . '/bench/pgq_load', '--quiet', '--check', $pg->conninfo, @arguments ]);

    return ($status, { $out =~ /^result (\S+) (\S+)$/mg }, "$out$err");
}


# Lets it compare posts with a ledger: the status and the counts that are not 0 must be these.
sub check {
    my ($name, $ledger, $expected, $counts, @arguments) = @_;
    my ($status, $result, $said) = load('--check-only', '--ledger', $ledger, '--settle', 0, @arguments);
    my %seen = map { $_ => $result->{$_} } grep { $result->{$_} } @counts;

    is_deeply([ $status, \%seen ], [ $expected, $counts ], $name) or diag($said);

    return;
}


# After some SQL, which is undone.
sub check_after {
    my ($name, $sql, @rest) = @_;

    $pg->safe_psql($sql);
    check($name, "$dir/ledger", @rest);
    $pg->safe_psql('delete from posts; insert into posts overriding system value select * from good;'
            . 'delete from ngx_pgq.dead_letter');

    return;
}


# With a ledger of which some lines are changed.
sub check_ledger {
    my ($name, $change, @rest) = @_;
    my @lines = split /^/, Pgq::Host::slurp("$dir/ledger");

    $change->(\@lines);
    check($name, Pgq::Host::spew("$dir/changed", @lines), @rest);

    return;
}


# ---- a good run

my ($status, $result, $said) = load('--messages', $count, '--ledger', "$dir/ledger", '--all-ok', $nginx->url('/post'));

is($status, 0, 'a good run is good') or diag($said);
is($result->{ok}, $count, 'each message is acknowledged');
is($result->{checked}, $count, 'each is read back');
is($result->{$_}, 0, "$_: 0") for @counts, qw(refused unknown failed unsent malformed);

$pg->safe_psql('create table good as select * from posts');
check('so is its ledger afterwards', "$dir/ledger", 0, {});
check('even exclusively', "$dir/ledger", 0, {}, '--exclusive');


# ---- posts is tampered with

my $some = 'id in (select id from posts order by id limit 3)';
my $one  = 'id = (select max(id) from posts)';
my $copy = 'insert into posts (at, message_id, data) select at';

check_after('posts that are gone are lost', "delete from posts where $some", 1, { lost => 3 });
check_after('posts that are there again are there twice', "$copy, message_id, data from posts where $some", 1,
    { twice => 3 });
check_after('under another id, too', "$copy, gen_random_uuid(), data from posts where $one", 1, { twice => 1 });
check_after('a post under another id alone is lost and unexpected',
    "update posts set message_id = gen_random_uuid() where $one", 1, { lost => 1, unexpected => 1 });
check_after('one letter changed is altered',
    "update posts set data = replace(data::text, 'x\"}', 'y\"}')::json where $some", 1, { altered => 3 });
check_after('so is a space within', "update posts set data = replace(data::text, ',', ', ')::json where $one", 1,
    { altered => 1 });
check_after('two that changed places are altered, both', <<"END", 1, { altered => 2 });
update posts p set data = o.data from posts o
 where p.id in (select min(id) from posts union select max(id) from posts)
   and o.id in (select min(id) from posts union select max(id) from posts) and o.id <> p.id
END
check_after('everything gone is lost', 'delete from posts', 1, { lost => $count });

my ($run) = Pgq::Host::slurp("$dir/ledger") =~ /^pgq_load ledger (\S+)/;

check_after('a body of this run that was never sent is unexpected',
    "insert into posts (at, message_id, data) values (now(), gen_random_uuid(), '{\"run\":\"$run\",\"n\":999}')", 1,
    { unexpected => 1 });

my $foreign = q{insert into posts (at, message_id, data) values (now(), gen_random_uuid(), '"of another"')};

check_after('a post of others does not count', $foreign, 0, { foreign => 1 });
check_after('but exclusively it is unexpected', $foreign, 1, { unexpected => 1 }, '--exclusive');

my $die = "with dead as (delete from posts where $one returning at, message_id, data)"
    . " insert into ngx_pgq.dead_letter (at, message_id, data, sqlstate, problem) select *, '23514', 'none' from dead";

check_after('a dead letter is a failure', $die, 1, { dead => 1 });
check_after('unless that is well', $die, 0, { dead => 1 }, '--dead-ok');
check_after('a dead letter that is a post as well is there twice', "$die; insert into posts overriding system value"
        . ' select * from good where id = (select max(id) from good)', 1, { dead => 1, twice => 1 }, '--dead-ok');


# ---- the ledger says something else than the truth

check_ledger('a post that was refused is unexpected', sub { $_[0][5] =~ s/ 202 \S+ / 503 - / }, 1, { unexpected => 1 });
check_ledger('one that was not sent, too', sub { $_[0][5] =~ s/ 202 \S+ / 1 - / }, 1, { unexpected => 1 });
check_ledger('one of unknown outcome may be there', sub { $_[0][$_] =~ s/ 202 \S+ / 0 - / for 5, 6 }, 0,
    { unknown_present => 2 });
check_ledger('one id given to two messages', sub { ($_[0][5]) = $_[0][6] =~ /(.*)/s; $_[0][5] =~ s/^\d+/5/ }, 1,
    { id_twice => 1, unexpected => 1 });

my @lines = split /^/, Pgq::Host::slurp("$dir/ledger");
my ($n, $id) = $lines[7] =~ /^(\d+) 202 (\S+)/;
$lines[7] =~ s/ 202 \S+ / 0 - /;
Pgq::Host::spew("$dir/unknown", @lines);

$pg->safe_psql("$copy, message_id, data from posts where message_id = '$id'");
check('but not twice', "$dir/unknown", 1, { unknown_present => 1, unknown_twice => 1 });
$pg->safe_psql("delete from posts where message_id = '$id'");
check('nor need it be there at all', "$dir/unknown", 0, {});


# ---- bodies of a file, told apart by their hashes

Pgq::Host::spew("$dir/bodies", map { "$_\n" } '{"a": 1}', ' [2 ] ', '{"name": "Łódź 中 😀"}', 'null', '{"a": 1}', '{"a": ', '');
($status, $result, $said) = load('--bodies', "$dir/bodies", '--once', '--connections', 2, $nginx->url('/post'));

is($status, 0, 'bodies of a file are found again') or diag($said);
is($result->{ok}, 5, 'those that are good');
is($result->{refused_400}, 2, 'the others are refused');

($status, $result, $said) = load('--bodies', "$dir/bodies", '--messages', 70, '--ledger', "$dir/ledger.file",
    $nginx->url('/post'));

is($status, 0, 'also over and over') or diag($said);
is("$result->{ok} $result->{refused}", '50 20', 'some accepted, some refused');

$pg->safe_psql(q{insert into posts (at, message_id, data) values (now(), gen_random_uuid(), 'null')});
check('one of them too many is there twice', "$dir/ledger.file", 1, { twice => 1 });


# ---- the queue does not drain

$pg->safe_psql('alter system set ngx_pgq.movers = 0');
$pg->reload;
ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type like '%mover%'}, 0), 'no mover is left');

($status, $result, $said) = load('--messages', 10, '--drain', 0.5, $nginx->url('/post'));

is("$status $result->{drained} $result->{lost}", '1 0 10', 'a queue that is not drained is a failure') or diag($said);

done_testing;
