# Reloads leave nothing behind: after many of them, under load, the master and the workers have as many descriptors, as
# much memory and shared memory as after a few, and PostgreSQL as many connections; no old worker is left.
#
# PGQ_RELOADS=200 says how many: make check-reload.

use Pgq;
use Pgq::HttpLoad;

use List::Util qw(max);
use Time::HiRes qw(time);

my $reloads = $ENV{PGQ_RELOADS} // 40;
my $first   = int($reloads / 4);    # what malloc and libpq keep for good is there by then
my $workers = 2;
my $lanes   = 3;                    # of each: two of POSTs, one of GETs, which is there from a worker's first GET on

# Whoever forgets a conninfo forgets this much.
my $pg    = Pgq::Postgres->new->start;
my $long  = $pg->conninfo(user => 'ngx_pgq_web') . ' passfile=/' . 'x' x 3000;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    workers   => $workers,
    conninfo  => $long,
    pool      => "lanes=2 read_lanes=1",
    locations => 'location = /metrics { pgq_metrics; } location = /status { pgq_status; }',
)->start;


my $unsaid = 0;
$nginx->allow(qr/\[emerg\].* in .*nginx\.conf/);


sub descriptors {
    my ($pid) = @_;
    my @open = glob "/proc/$pid/fd/*";
    return scalar @open;
}


# Kilobytes of a process: what it wrote itself, shared with its children or not; and what it shares on purpose. Pages of
# files are not counted: how many of a library's are mapped when one is touched is up to the kernel.
sub memory {
    my ($pid) = @_;
    my %rollup = Pgq::Host::slurp("/proc/$pid/smaps_rollup") =~ /^(\w+):\s+(\d+) kB/mg;
    my $shared = 0;

    for my $line (split /\n/, Pgq::Host::slurp("/proc/$pid/maps")) {
        no warnings 'portable';
        $shared += (hex($2) - hex $1) / 1024 if $line =~ m{^([0-9a-f]+)-([0-9a-f]+) rw-s .* /(?:dev/zero|SYSV)};
    }

    return ($rollup{Anonymous} + ($rollup{Swap} // 0), $shared);
}


sub connections {
    return $pg->safe_psql("select count(*) from pg_stat_activity where usename = 'ngx_pgq_web'");
}


# Taken while nobody sends anything, when the new workers have their lanes.
sub figures {
    my %now;
    poll_until { Pgq::Client->new($nginx)->get('/get'); ($now{connections} = connections()) == $lanes * $workers } 20;

    my $master = $nginx->pid;
    my @pids   = sort { $a <=> $b } $nginx->worker_pids;

    $now{workers} = @pids;
    $now{'descriptors of the master'} = descriptors($master);
    $now{'descriptors of the workers'} = 0;
    $now{'descriptors of the workers'} += descriptors($_) for @pids;
    @now{ 'memory of the master', 'shared memory' } = memory($master);

    return \%now;
}


# A reload that nginx refuses: for a word that libpq does not know, for a service that is not there, for a number.
my %wrong = (
    qr/invalid conninfo of pgq_pool "main"/ => { conninfo => "$long passwort=1" },
    qr/service of pgq_pool "main" is not found/       => { conninfo => "$long service=nowhere" },
    qr/invalid parameter "lanes=0"/                   => { pool => 'lanes=0' },
);

sub wrong {
    for my $said (sort keys %wrong) {
        my $position = $nginx->log_position;
        $nginx->configure(%{ $wrong{$said} });
        kill 'HUP', $nginx->pid;
        $nginx->wait_for_log($said, $position) or $unsaid++;
        $nginx->configure(conninfo => $long, pool => "lanes=2 read_lanes=1");
    }

    return;
}


my ($after, $late, $slowest, %count) = ({}, 0, 0);
my @worker;    # memory of a new worker, reload by reload
my $done  = 0;
my $start = time;

for my $goal ($first, 2 * $first, $reloads) {
    my $load = Pgq::HttpLoad->new($nginx, $pg, new => 1, kept => 1, pause => 0.005)->start;
    $load->wait_for(5);

    while ($done < $goal) {
        wrong() if $done % 5 == 0;

        my $begun = time;
        $nginx->reload;
        (poll_until { $workers == $nginx->worker_pids } 20) or $late++;
        $slowest = time - $begun if time - $begun > $slowest;
        $done++;
        push @worker, (memory(($nginx->worker_pids)[0]))[0];
    }

    $load->wait_for(5);
    $load->stop;
    is($load->failures, '', "no request fails in reloads up to $goal");
    is(join("\n", $load->complaints), '', 'no message is lost, none is there twice, no counter fell');
    $count{$_} += $load->count($_) for qw(accepted resent);

    $after->{$goal} = figures();

    # How the heap it was forked with happens to lie makes a hundred kilobytes: the most of many says more than the last.
    $after->{$goal}{'memory of a worker'} = max @worker[ -$first .. -1 ];
    diag("after $goal reloads: ", join ', ', map { "$_ $after->{$goal}{$_}" . (/memory/ ? ' kB' : '') } sort keys %{ $after->{$goal} });
}

diag(sprintf '%d reloads in %.1f s, the slowest %.2f s until its old workers were gone; %d messages, %d of them sent again',
    $done, time - $start, $slowest, @count{qw(accepted resent)});

my ($few, $many) = @$after{ $first, $reloads };
is($late, 0, 'the old workers leave each time');
is($unsaid, 0, 'wrong configurations are refused');
is($many->{$_}, $few->{$_}, "$_: as after $first reloads, after $reloads")
    for 'connections', 'workers', 'descriptors of the master', 'descriptors of the workers', 'shared memory';

SKIP: {
    skip 'an instrumented run keeps what is freed', 2 if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};
    cmp_ok($many->{$_} - $few->{$_}, '<', 64, "$_: less than 64 kB more") for grep { !/shared/ } grep { /memory/ } sort keys %$many;
}

is($many->{connections}, $lanes * $workers, 'a connection each lane');

done_testing;
