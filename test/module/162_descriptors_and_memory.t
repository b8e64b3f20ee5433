# Reloads do not leak: after many reloads under load, the master and the workers have as many descriptors, as much memory and
# shared memory as after a few, and PostgreSQL has as many connections; no old worker remains. The pool has a ring, and readers
# are attached, which get each post once and in order.
#
# PGQ_RELOADS sets the number of reloads: make check-reload.

use Pgq;
use Pgq::Crowd;
use Pgq::HttpLoad;

use List::Util qw(max sum);
use Time::HiRes qw(time);

my $reloads = $ENV{PGQ_RELOADS} // 40;
my $first   = int($reloads / 4);    # by then malloc and libpq have allocated what they keep
my $workers = 2;
my $lanes   = 3;                    # of a worker: two for POSTs, one for GETs, which connects with the first GET of old posts
my $total   = $lanes * $workers + 1;    # connections, with that of the follower

# The conninfo is long, so that a leak of it is visible.
my $pg    = Pgq::Postgres->new->start;
my $long  = $pg->conninfo(user => 'ngx_pgq_web') . ' passfile=/' . 'x' x 3000;
my $nginx = Pgq::Nginx->new(
    pg        => $pg,
    workers   => $workers,
    conninfo  => $long,
    pool      => "lanes=2 read_lanes=1",
    ring      => 'posts=100 size=1m',
    http      => 'pgq_drain 200ms;',
    locations => 'location = /stream { pgq_stream main; } location = /metrics { pgq_metrics; } location = /status { pgq_status; }',
)->start;

my $not_logged = 0;
$nginx->allow(qr/\[emerg\].* in .*nginx\.conf/);

sub descriptors {
    my ($pid) = @_;
    my @open = glob "/proc/$pid/fd/*";
    return scalar @open;
}

# The memory of a process in kilobytes: anonymous, and shared. Pages of files are not counted, since the kernel decides how
# many of them are mapped.
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

# Returns the figures while no client sends, after the new workers have connected.
sub figures {
    my %now;
    poll_until { Pgq::Client->new($nginx)->get('/get?before=2'); ($now{connections} = $pg->web_sessions) == $total } 20;

    my $master = $nginx->pid;
    my @pids   = sort { $a <=> $b } $nginx->worker_pids;

    $now{workers} = @pids;
    $now{'descriptors of the master'} = descriptors($master);
    $now{'descriptors of the workers'} = 0;
    $now{'descriptors of the workers'} += descriptors($_) for @pids;
    @now{ 'memory of the master', 'shared memory' } = memory($master);

    return \%now;
}

# Configurations that nginx rejects.
my %wrong = (
    qr/invalid conninfo of pgq_pool "main"/ => { conninfo => "$long passwort=1" },
    qr/service of pgq_pool "main" is not found/       => { conninfo => "$long service=nowhere" },
    qr/invalid parameter "lanes=0"/                   => { pool => 'lanes=0' },
);

sub wrong {
    for my $error (sort keys %wrong) {
        my $position = $nginx->log_position;
        $nginx->configure(%{ $wrong{$error} });
        kill 'HUP', $nginx->pid;
        $nginx->wait_for_log($error, $position) or $not_logged++;
        $nginx->configure(conninfo => $long, pool => "lanes=2 read_lanes=1");
    }

    return;
}

# The readers have no posts to wait for while the figures are taken, so that they are all connected.
my $readers = 15;
my $crowd   = Pgq::Crowd->new($nginx, readers => $readers);

my ($after, $late, $slowest, %count) = ({}, 0, 0);
my @worker;    # memory of the new workers with all readers, reload by reload
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
        (poll_until { $readers == sum(Pgq::Client->new($nginx)->get('/metrics')->body =~ /^pgq_open_readers\{.*\} (\d+)$/mg) } 20) or $late++;
        push @worker, sum map { (memory($_))[0] } $nginx->worker_pids;
    }

    $load->wait_for(5);
    $load->stop;
    is($load->failures, '', "no request fails in reloads up to $goal");
    is(join("\n", $load->complaints), '', 'each accepted message is in posts once, and no counter has decreased');
    $count{$_} += $load->count($_) for qw(accepted resent);

    $after->{$goal} = figures();

    # The memory of a worker varies by 100 kB with the heap that it inherits from the master: take the maximum of many workers.
    $after->{$goal}{'memory of the workers'} = max @worker[ -$first .. -1 ];
    diag("after $goal reloads: ", join ', ', map { "$_ $after->{$goal}{$_}" . (/memory/ ? ' kB' : '') } sort keys %{ $after->{$goal} });
}

diag(sprintf '%d reloads in %.1f s, the slowest %.2f s until its old workers were gone; %d messages, %d of them sent again',
    $done, time - $start, $slowest, @count{qw(accepted resent)});

my ($few, $many) = @$after{ $first, $reloads };
is($late, 0, 'the old workers exit after each reload, and the readers return');
is($not_logged, 0, 'invalid configurations are rejected at a reload');
is($many->{$_}, $few->{$_}, "$_ after $reloads reloads: as many as after $first")
    for 'connections', 'workers', 'descriptors of the master', 'descriptors of the workers', 'shared memory';

SKIP: {
    skip 'sanitizers and valgrind keep freed memory', 2 if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};
    cmp_ok($many->{$_} - $few->{$_}, '<', 64, "$_ after $reloads reloads: less than 64 kB more") for grep { !/shared/ } grep { /memory/ } sort keys %$many;
}

is($many->{connections}, $total, 'each lane and the follower have one connection');

my @ids = split /\n/, $pg->safe_psql('select id from posts order by id');
cmp_ok(scalar @ids, '>', 100, 'there were more posts than the ring has');
is($crowd->complaints(\@ids), '', 'each reader has got each post once and in order');
cmp_ok($crowd->opens, '>', 5 * $reloads, 'the readers were cut by the reloads, and have connected again');
$crowd->stop;

done_testing;
