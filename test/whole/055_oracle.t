# The independent check of the queue's promises (test/oracle/oracle) reports each of them that is broken, and nothing else.

use Pgq;
use Pgq::Host qw(run temp_dir top spew);

my $oracle = top() . '/test/oracle/oracle';
my $dir    = temp_dir('oracle');

sub id { return sprintf '00000000-0000-7000-8000-%012d', $_[0] }

# Messages 1 and 2 were accepted, 3 was refused, 4 and 5 are unknown; a reader saw message 1 as post 10.
sub logs {
    my (%log) = @_;

    spew("$dir/writer.1", join('', map { "send $_\n" } 1 .. 5) . join '', map { "$_\n" }
        'told 1 202 ' . id(1) . ' 0.010', 'told 2 202 ' . id(2) . ' 0.010', 'told 3 503 - 0.010', 'told 4 504 - 9.000', 'told 5 none - 9.000');
    spew("$dir/reader.2", $log{reader} // "saw 10 1 1\n");

    return;
}

sub check {
    my ($posts, @options) = @_;
    my (undef, $out) = run([ $oracle, 'check', @options, $dir, 'run' ], in => join '', map { "$_\n" } @$posts);

    return $out =~ s/^oracle: .*\n//mr;
}

my @good = ('10|' . id(1) . '|1|1', '11|' . id(2) . '|1|2', '12|' . id(4) . '|1|4');

logs();
is(check(\@good), '', 'nothing is broken');
my ($status, $out) = run([ $oracle, 'check', $dir, 'run' ], in => join "\n", @good);
is("$status $out", "0 oracle: 2 accepted, 1 refused, 2 unknown, 1 seen; 0 broken\n", 'and that is said');

is(check([ @good[ 0, 2 ] ]),                        "lost: message 1 2, answered 202\n",              'a message that was accepted is lost');
is(check([ @good, '13|' . id(2) . '|1|2' ]),        "message 1 2 is there 2 times\n",                 'one is there twice');
is(check([ @good, '13|' . id(9) . '|1|4' ]),        "message 1 4 is there 2 times\n",                 'an unknown one is there twice');
is(check([ @good, '13|' . id(3) . '|1|3' ]),        "message 1 3 was answered 503 and is there\n",    'a refused one is there');
is(check([ @good, '13|' . id(9) . '|1|9' ]),        "nobody sent message 1 9\n",                      'one that nobody sent is there');
is(check([ @good[ 0, 2 ], '11|' . id(9) . '|1|2' ]), 'message 1 2 was told ' . id(2) . ' and is there as ' . id(9) . "\n", 'one has another id');
is(check([ @good[ 0, 2 ], '9|' . id(2) . '|1|2' ]), "message 1 2 has the id 9, an earlier one of that writer 10\n", 'ids fall');
is(check([ @good[ 0, 2 ], '9|' . id(2) . '|1|2' ], '--no-order'), '', 'which is not looked at when messages waited');

logs(reader => "saw 7 1 1\n");
is(check(\@good), "a reader saw post 7 with message 1 1; it is now gone\n", 'what a reader saw is gone');
logs(reader => "between 7\n");
is(check(\@good), "a reader saw post 7 between posts that it had seen before\n", 'a post appears between others');

done_testing;
