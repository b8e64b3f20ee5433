# The check of the load client (pgq_load) finds and counts each kind of error that is planted in posts, and reports
# nothing else.

use Pgq;

my $pg    = Pgq::Postgres->new->start;
my $nginx = Pgq::Nginx->new(pg => $pg)->start;
my $dir   = Pgq::Host::temp_dir('load');
my $count = 300;

my @counts = qw(lost twice altered unexpected unknown_present unknown_twice id_twice dead foreign);

# Runs the load client. Returns its exit status, its results by name, and its output.
sub load {
    my @arguments = @_;
    my ($status, $out, $err)
        = Pgq::Host::run([ Pgq::Host::build_dir() . '/bench/pgq_load', '--quiet', '--check', $pg->conninfo, @arguments ]);

    return ($status, { $out =~ /^result (\S+) (\S+)$/mg }, "$out$err");
}

# Compares posts with a record of requests: checks the exit status and the counts that are not 0.
sub check {
    my ($name, $record, $expected, $counts, @arguments) = @_;
    my ($status, $result, $output) = load('--check-only', '--record', $record, '--settle', 0, @arguments);
    my %seen = map { $_ => $result->{$_} } grep { $result->{$_} } @counts;

    is_deeply([ $status, \%seen ], [ $expected, $counts ], $name) or diag($output);

    return;
}

# The same after some SQL, which is undone.
sub check_after {
    my ($name, $sql, @rest) = @_;

    $pg->safe_psql($sql);
    check($name, "$dir/record", @rest);
    $pg->safe_psql('delete from posts; insert into posts overriding system value select * from good;'
            . 'delete from ngx_pgq.dead_letter');

    return;
}

# The same with some lines of the record changed.
sub check_record {
    my ($name, $change, @rest) = @_;
    my @lines = split /^/, Pgq::Host::slurp("$dir/record");

    $change->(\@lines);
    check($name, Pgq::Host::spew("$dir/changed", @lines), @rest);

    return;
}

# ---- a good run

my ($status, $result, $output) = load('--messages', $count, '--record', "$dir/record", '--all-ok', $nginx->url('/post'));

is($status, 0, 'a run without errors succeeds') or diag($output);
is($result->{ok}, $count, 'all messages are acknowledged');
is($result->{checked}, $count, 'all messages are compared with posts');
is($result->{$_}, 0, "a run without errors: $_ is 0") for @counts, qw(refused unknown failed unsent malformed);

$pg->safe_psql('create table good as select * from posts');
check('--check-only succeeds with the record of a good run', "$dir/record", 0, {});
check('--exclusive succeeds when posts has only messages of the run', "$dir/record", 0, {}, '--exclusive');

# ---- errors are planted in posts

my $some = 'id in (select id from posts order by id limit 3)';
my $one  = 'id = (select max(id) from posts)';
my $copy = 'insert into posts (at, message_id, data) select at';

check_after('posts that are deleted count as lost', "delete from posts where $some", 1, { lost => 3 });
check_after('posts that are inserted again count as twice', "$copy, message_id, data from posts where $some", 1,
    { twice => 3 });
check_after('a post that is inserted again under another id counts as twice', "$copy, gen_random_uuid(), data from posts where $one", 1, { twice => 1 });
check_after('a post whose id is changed counts as lost and unexpected',
    "update posts set message_id = gen_random_uuid() where $one", 1, { lost => 1, unexpected => 1 });
check_after('a changed letter counts as altered',
    "update posts set data = replace(data::text, 'x\"}', 'y\"}')::json where $some", 1, { altered => 3 });
check_after('an added space counts as altered', "update posts set data = replace(data::text, ',', ', ')::json where $one", 1,
    { altered => 1 });
check_after('two posts that exchange their data count as altered', <<"END", 1, { altered => 2 });
update posts p set data = o.data from posts o
 where p.id in (select min(id) from posts union select max(id) from posts)
   and o.id in (select min(id) from posts union select max(id) from posts) and o.id <> p.id
END
check_after('without any post all messages count as lost', 'delete from posts', 1, { lost => $count });

my ($run) = Pgq::Host::slurp("$dir/record") =~ /^pgq_load record (\S+)/;

check_after('a message of the run that was never sent counts as unexpected',
    "insert into posts (at, message_id, data) values (now(), gen_random_uuid(), '{\"run\":\"$run\",\"n\":999}')", 1,
    { unexpected => 1 });

my $foreign = q{insert into posts (at, message_id, data) values (now(), gen_random_uuid(), '"of another"')};

check_after('a post of another run counts as foreign, which is no failure', $foreign, 0, { foreign => 1 });
check_after('with --exclusive a post of another run counts as unexpected', $foreign, 1, { unexpected => 1 }, '--exclusive');

my $dead_letter = "with dead as (delete from posts where $one returning at, message_id, data)"
    . " insert into ngx_pgq.dead_letter (at, message_id, data, sqlstate, problem) select *, '23514', 'none' from dead";

check_after('a dead letter fails the run', $dead_letter, 1, { dead => 1 });
check_after('with --dead-ok a dead letter is no failure', $dead_letter, 0, { dead => 1 }, '--dead-ok');
check_after('a dead letter that is also a post counts as twice', "$dead_letter; insert into posts overriding system value"
        . ' select * from good where id = (select max(id) from good)', 1, { dead => 1, twice => 1 }, '--dead-ok');

# ---- errors are planted in the record

check_record('a post of a refused message counts as unexpected', sub { $_[0][5] =~ s/ 202 \S+ / 503 - / }, 1, { unexpected => 1 });
check_record('a post of a message that was not sent counts as unexpected', sub { $_[0][5] =~ s/ 202 \S+ / 1 - / }, 1, { unexpected => 1 });
check_record('a message of unknown outcome may be in posts', sub { $_[0][$_] =~ s/ 202 \S+ / 0 - / for 5, 6 }, 0,
    { unknown_present => 2 });
check_record('an id of two messages counts as id_twice', sub { ($_[0][5]) = $_[0][6] =~ /(.*)/s; $_[0][5] =~ s/^\d+/5/ }, 1,
    { id_twice => 1, unexpected => 1 });

my @lines = split /^/, Pgq::Host::slurp("$dir/record");
my ($n, $id) = $lines[7] =~ /^(\d+) 202 (\S+)/;
$lines[7] =~ s/ 202 \S+ / 0 - /;
Pgq::Host::spew("$dir/unknown", @lines);

$pg->safe_psql("$copy, message_id, data from posts where message_id = '$id'");
check('a message of unknown outcome may not be in posts twice', "$dir/unknown", 1, { unknown_present => 1, unknown_twice => 1 });
$pg->safe_psql("delete from posts where message_id = '$id'");
check('a message of unknown outcome may be absent', "$dir/unknown", 0, {});

# ---- bodies of a file, which are distinguished by their hashes

Pgq::Host::spew("$dir/bodies", map { "$_\n" } '{"a": 1}', ' [2 ] ', '{"name": "Łódź 中 😀"}', 'null', '{"a": 1}', '{"a": ', '');
($status, $result, $output) = load('--bodies', "$dir/bodies", '--once', '--connections', 2, $nginx->url('/post'));

is($status, 0, 'bodies of a file are found in posts') or diag($output);
is($result->{ok}, 5, 'valid bodies of a file are acknowledged');
is($result->{refused_400}, 2, 'invalid bodies of a file are refused');

($status, $result, $output) = load('--bodies', "$dir/bodies", '--messages', 70, '--record', "$dir/record.file",
    $nginx->url('/post'));

is($status, 0, 'repeated bodies of a file are found in posts') or diag($output);
is("$result->{ok} $result->{refused}", '50 20', 'each repetition has the same result');

$pg->safe_psql(q{insert into posts (at, message_id, data) values (now(), gen_random_uuid(), 'null')});
check('one post more than a repeated body was acknowledged counts as twice', "$dir/record.file", 1, { twice => 1 });

# ---- the queue does not drain

$pg->set('ngx_pgq.movers' => 0);
ok($pg->poll_query_until(q{select count(*) from pg_stat_activity where backend_type like '%mover%'}, 0), 'with ngx_pgq.movers = 0 there is no mover');

($status, $result, $output) = load('--messages', 10, '--drain', 0.5, $nginx->url('/post'));

is("$status $result->{drained} $result->{lost}", '1 0 10', 'a queue that is not drained fails the run') or diag($output);

done_testing;
