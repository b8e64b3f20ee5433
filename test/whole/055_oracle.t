# The comparison of what clients were told with posts (Pgq::Oracle) reports each broken promise, and nothing else:
# from the logs of test/tools/independent-load, and for each of the loads that the other tests use.

use Pgq;
use Pgq::HttpLoad;
use Pgq::SqlLoad;
use Pgq::Host qw(run temp_dir top spew);
use Pgq::FuzzClients;

my $oracle = top() . '/test/tools/independent-load';
my $dir    = temp_dir('oracle');

sub id { return sprintf '00000000-0000-7000-8000-%012d', $_[0] }

# A row of a post: the message n of writer 1, or other data.
sub row {
    my ($id, $message_id, $n, $data) = @_;

    return "$id|" . id($message_id) . '|' . unpack 'H*', $data // qq({"oracle":"run","writer":1,"n":$n});
}

# Messages 1 and 2 were accepted, 3 was refused, 4 and 5 are unknown; a reader saw message 1 as post 10.
sub logs {
    my (%log) = @_;

    spew("$dir/writer.1", join('', map { "send $_\n" } 1 .. 5) . join '', map { "$_\n" }
        $log{posted} // 'told 1 202 ' . id(1) . ' 0.010', 'told 2 202 ' . id(2) . ' 0.010', 'told 3 503 - 0.010', 'told 4 504 - 9.000', 'told 5 none - 9.000');
    spew("$dir/reader.2", $log{reader} // "saw 10 1 1\n");

    return;
}

sub check {
    my ($posts, @options) = @_;
    my (undef, $out, $err) = run([ $oracle, 'check', @options, $dir, 'run' ], in => join '', map { "$_\n" } @$posts);

    return $err . $out =~ s/^oracle: .*\n//mr;
}

my @good = (row(10, 1, 1), row(11, 2, 2), row(12, 4, 4));

logs();
is(check(\@good), '', 'there is no complaint when all promises are kept');
my ($status, $out) = run([ $oracle, 'check', $dir, 'run' ], in => join "\n", @good);
is("$status $out", "0 oracle: 2 accepted, 1 refused, 2 unknown, 1 seen; 0 broken\n", 'the summary counts the outcomes');

is(check([ @good[ 0, 2 ] ]), "lost: message 1 2 was accepted and is not in posts\n", 'an accepted message that is not in posts is lost');
is(check([ @good, row(13, 2, 2) ]), "message 1 2 is in posts 2 times\n", 'an accepted message that is in posts twice is reported');
is(check([ @good, row(13, 9, 4) ]), "message 1 4 is in posts 2 times\n", 'a message of unknown outcome that is in posts twice is reported');
is(check([ @good, $good[2] ]), "post 12 is there twice\nmessage 1 4 is in posts 2 times\n", 'an id that two posts have is reported');
is(check([ @good, row(13, 3, 3) ]), "message 1 3 was refused (503) and is in posts\n", 'a refused message that is in posts is reported');
is(check([ @good, row(13, 9, 9) ]), "message 1 9 is in posts, but no client sent it\n", 'a message that no writer sent is reported');
is(check([ @good, row(13, 9, 0, '{"oracle":"run","writer":1}') ]), qq(post 13 is altered: {"oracle":"run","writer":1}\n), 'a post that is no message of a writer is reported');
is(check([ @good[ 0, 2 ], row(11, 9, 2) ]), 'message 1 2 was accepted as ' . id(2) . ' and is in posts as ' . id(9) . "\n", 'an accepted message with another id is reported');
is(check([ @good[ 0, 2 ], row(9, 2, 2) ]), "message 1 2 is post 9, and the one accepted before it is post 10\n", 'ids that are not in the order of acceptance are reported');
is(check([ @good[ 0, 2 ], row(9, 2, 2) ], '--no-order'), '', '--no-order accepts ids in any order');

for my $case ([ 10, '' ], [ 11, "a reader saw post 11 as message 1 1; it is now message 1 2\n" ]) {
    my ($post, $complaint) = @$case;
    logs(posted => 'told 1 201 ' . id(1) . " 0.010 $post");
    is(check(\@good), $complaint, "message 1 is post 10, and an answer 201 says that it is post $post");
    is(check([ @good[ 1, 2 ] ]) =~ /lost: message 1 1 was accepted/ ? 'lost' : 'kept', 'lost', "message 1 is lost after an answer 201 with post $post");
}

logs(reader => "saw 7 1 1\n");
is(check(\@good), "a reader saw post 7 as message 1 1; it is now absent\n", 'a post that a reader saw and that is absent is reported');
logs(reader => "saw 11 1 1\n");
is(check(\@good), "a reader saw post 11 as message 1 1; it is now message 1 2\n", 'a post that a reader saw as another message is reported');
logs(reader => "between 7\n");
is(check(\@good), "a reader saw post 7 between posts that it had seen before\n", 'a post that appears between others is reported');

# ---- the loads: a fault is planted in posts after each of them has ended
my %servers  = Pgq::FuzzClients::servers();
my $pg       = $servers{pg};
my $fuzz     = Pgq::FuzzClients->new(seed => 1, next => 500, %servers);
my $http     = Pgq::HttpLoad->new($servers{nginx}, $pg, reader => 1, watch => 0)->start;
my $sql_load = Pgq::SqlLoad->new($pg)->start;

ok($http->wait_for(5) && $sql_load->wait_for(5), 'the loads run');
$fuzz->run(cases => 100);
ok($fuzz->check_posts, 'Pgq::FuzzClients has no complaint when all promises are kept') or diag(join "\n", @{ $fuzz->{wrong} });
is(join("\n", $http->stop->complaints), '', 'Pgq::HttpLoad has no complaint when all promises are kept');
is(join("\n", $sql_load->stop->complaints), '', 'Pgq::SqlLoad has no complaint when all promises are kept');

my %complaints = (
    'Pgq::FuzzClients' => sub { $fuzz->{wrong} = []; $fuzz->check_posts; return @{ $fuzz->{wrong} } },
    'Pgq::HttpLoad'    => sub { return $http->complaints },
    'Pgq::SqlLoad'     => sub { return $sql_load->complaints },
);
my %of = ('Pgq::FuzzClients' => "data::text ~ '^{\"mark\":\"[^\"]+\",\"text\"'", 'Pgq::HttpLoad' => "data::text ~ '\"http_load\"'", 'Pgq::SqlLoad' => "data::text ~ '\"sql_load\"'");

for my $load (sort keys %of) {
    my $one = "id = (select min(id) from posts where $of{$load})";

    for my $plant (
        [ 'a loss'            => "delete from posts where $one", qr/^lost: message .* was accepted and is not in posts$/m ],
        [ 'a duplicate'       => "insert into posts (at, message_id, data) select at, message_id, data from posts where $one", qr/^message .* is in posts 2 times$/m ],
        [ 'an altered message' => "update posts set data = (rtrim(data::text, '}') || ',\"more\":1}')::json where $one", qr/(?:message|post) .* is altered: .*"more":1\}$/m ],
    ) {
        my ($fault, $sql, $pattern) = @$plant;

        $pg->safe_psql("create table kept as table posts; $sql");
        like(join("\n", $complaints{$load}->()), $pattern, "$load reports $fault");
        $pg->safe_psql('truncate posts; insert into posts select * from kept; drop table kept');
    }
    is(join("\n", $complaints{$load}->()), '', "$load has no complaint when the fault is gone");
}

# A message that was refused and appears: the client of the first message is said to have been told so.
$http->{oracle}->told($_, 'refused', answer => 503) for (sort keys %{ $http->{oracle}{told} })[0];
like(join("\n", $http->complaints), qr/^message .* was refused \(503\) and is in posts$/m, 'Pgq::HttpLoad reports a refused message that appears');

done_testing;
