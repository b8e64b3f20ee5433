# The commands in README.md and docs/ work, and print what the documents show.
#
# Blocks tagged `sh` are run in a copy of the repository, after `make run`. In blocks without a tag, lines that begin with
# "$ " are run. Their output is compared with the lines below, if there are any, except for ids, times and numbers of posts;
# a line that begins with "posts=# " is input of psql. A block whose tag has a second word is not run: the word is the
# reason, and its commands have to exist.

use Pgq;
use Pgq::Host qw(run temp_dir top slurp spew free_port pg_version);
use Cwd qw(realpath);
use utf8;

my %reason = (
    cluster => 'needs a cluster',
    vagrant => 'needs Vagrant',
    hosts   => 'needs hosts of your own',
    long    => 'takes too long',
);

# ---- the blocks of a document: [ language, second word, text, line ]

sub blocks {
    my ($text) = @_;
    my (@block, $open);
    my $number = 0;

    for my $line (split /\n/, $text) {
        $number++;
        if ($line =~ /^( *)```(\S*) ?(\S*)$/) {
            $open = $open ? undef : [ $2, $3, '', $number, $1 ];
            push @block, $open if $open;
        } elsif ($open) {
            $open->[2] .= $line =~ s/^$open->[4]//r . "\n";
        } elsif ($line =~ /^(?: {4}|\t)\S/) {
            push @block, [ 'indented', '', $line =~ s/^\s+//r . "\n", $number ];
        }
    }

    return @block;
}


# The commands of a block, each with its input and the documented output.
sub commands {
    my ($text) = @_;
    my (@command, $now);

    for my $line (split /\n/, $text) {
        if ($line =~ /^\$ (.*)/) {
            push @command, $now = { command => $1, input => '', output => '' };
        } elsif ($line =~ /^\w+=[*]?[#>] (.*)/) {
            $now->{input} .= "$1\n";
        } elsif ($now) {
            $now->{output} .= "$line\n";
        }
    }

    return @command;
}


sub documents { return ('README.md', map { s{.*/(docs/)}{$1}r } sort glob top() . '/docs/*.md') }


# ---- a copy of the repository, with links to the build

my $dir  = temp_dir('commands');
my $tree = "$dir/tree";
my ($port, $monitor) = (free_port(), free_port());
my %env = (PORT => $port, MONITOR => $monitor, LISTEN => '127.0.0.1', PGVERSION => pg_version(), MAKEFLAGS => undef, MAKELEVEL => undef,
    map { $_ => undef } grep { /^(?:PG(?!VERSION)|DB_)/ } keys %ENV);

mkdir $tree;
run([ 'sh', '-c', 'tar -C "$1" --exclude=./build --exclude=./run --exclude=./.git --exclude=./.vagrant -c . | tar -C "$2" -x', 'sh', top(), $tree ]);
mkdir "$tree/build";
symlink realpath($_), "$tree/build/" . s{.*/}{}r for glob top() . '/build/*';    # the plain build, also in an instrumented run
spew("$tree/provision/build.mk", "%:\n\t\@:\nall:\n\t\@:\n");    # do not build again

# Runs a script. A block may contain whole suites, whose programs are built first if they are missing.
sub sh {
    my ($script, $input) = @_;
    my $seconds = timeout(600);
    my $file    = spew("$dir/input", $input // '');
    my ($status, $out, $err) = run([ 'bash', '-c', 'cd "$1" && exec bash -euo pipefail -c "$2" < "$3"', 'bash', $tree, $script, $file ],
        env => \%env, timeout => $seconds);

    return ($status, $out, $status == -1 ? "$err\nkilled after $seconds seconds\n" : $err);
}

END { sh('provision/dev/run stop') if $tree && -d "$tree/run" }


# ---- text that differs between runs

sub normal {
    my ($text) = @_;

    for ($text) {
        s/\b127\.0\.0\.1:$port\b/127.0.0.1:8000/g;
        s/\b127\.0\.0\.1:$monitor\b/127.0.0.1:8001/g;
        s/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/UUID/g;
        s/\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|\+00)?/TIME/g;
        s/"(id|next|post|generation)":\d+/"$1":N/g;
        s/"stamp": \d+/"stamp": N/g;
        s/^\(\d+ rows?\)$//mg;
        s/^ *\d+ (?=\|)/N /mg;
        s/-{3,}/---/g;
        s/[ \t]+/ /g;
        s/^ | $//mg;
        s/\n+/\n/g;
        s/\A\n|\n\z//g;
    }

    return $text;
}


my ($status, $out, $err) = sh('make run');
is($status, 0, 'make run starts the servers') or diag("$out$err");
my %target = map { $_ => 1 } slurp("$tree/Makefile") =~ /^([a-z][a-z-]*):/mg;
my $usage  = slurp("$tree/provision/cluster/cluster");
my @not_run;
my $taken = '';    # of the last answer to a consumer: what acknowledges it

for my $document (documents()) {
    my @blocks = blocks(slurp("$tree/$document"));

    for (@blocks) {
        my ($language, $word, $text, $line) = @$_;
        my $where    = "$document, line $line";
        my @commands = $language =~ /^(?:|console)$/ ? commands($text) : ();

        if ($language eq 'sh' && $word) {
            ok($reason{$word}, "$where: the tag $word is known");
            is(missing($text), '', "$where: the commands exist");
            push @not_run, map { "$where: $_ (" . ($reason{$word} // $word) . ')' } grep { /^\w/ } split /\n/, $text;
        } elsif ($language eq 'sh') {
            ($status, $out, $err) = sh($text =~ s/:8000\b/:$port/gr =~ s/:8001\b/:$monitor/gr);
            is($status, 0, "$where: " . ($text =~ /^(.*)/)[0] . ' succeeds') or diag("$out$err");
        } elsif (@commands) {
            compare($where, $_) for @commands;
        } else {
            unlike($text, qr{^\s*(?:sudo )?(?:make|vagrant|curl|psql|provision/\S+|test/run) \S}m, "$where: no command without a tag")
                if $language =~ /^(?:|indented|bash|shell)$/;
        }
    }
}

sub compare {
    my ($where, $command) = @_;
    my $script = $command->{command} =~ s/:8000\b/:$port/gr =~ s/:8001\b/:$monitor/gr =~ s/"upto": \d+, "generation": \d+/$taken/r;

    poll_until { (sh(q(provision/dev/with-database psql -XAtc 'select count(*) from ngx_pgq.queue')))[1] =~ /^0$/ } 10;
    my ($status, $out, $err) = sh($script, $command->{input});
    is($status, 0, "$where: $command->{command} succeeds") or diag("$out$err");
    return if $command->{output} !~ /\S/ && $script !~ m{/sub/};
    $taken = qq("upto": $1, "generation": $2) if $out =~ /"next":(\d+),"generation":(\d+)/;
    $out =~ s/^(?:BEGIN|COMMIT|INSERT 0 \d+)\n//mg if $command->{input};
    is(normal($out), normal($command->{output}), "$where: the output of $command->{command}") or diag($err);
    return;
}

# Commands of a text that do not exist: targets of make, files of the repository, commands of the cluster.
sub missing {
    my ($text) = @_;
    my @missing;

    $text =~ s/\\\n/ /g;

    for my $line (split /\n/, $text) {
        push @missing, "make $1" if $line =~ /^make ([a-z-]+)/ && !$target{$1};
        push @missing, "cluster $1" if $line =~ m{^provision/cluster/cluster (\S+)} && $usage !~ m{^#\s+provision/cluster/cluster (?:\S+\|)*\Q$1\E(?:\||\s)}m;
        push @missing, $1 if $line =~ m{^(?:KIT/)?(provision/\S+)} && !-x "$tree/$1";
        push @missing, $1 if $line =~ m{/usr/local/lib/ngx_pgq/(\w+)} && !-x "$tree/patroni/$1" && !-e "$tree/patroni/$1";
    }

    return join ', ', @missing;
}

note("not run: $_") for @not_run;
cmp_ok(scalar @not_run, '>', 0, scalar(@not_run) . ' commands are not run, see above');
is((sh('make stop'))[0], 0, 'make stop');

done_testing;
