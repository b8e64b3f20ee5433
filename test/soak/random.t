# P1 to P3: faults of the cluster's hosts in a random order, each for a random time, sometimes two at once, under load, for
# PGQ_SECONDS (3600). The clocks of the hosts differ by up to three days and jump. PGQ_SEED repeats the order. What holds
# for each fault alone (test/ha/) has to hold for all of them; it is checked after every five, so that a failure shows when.

use Pgq;
use Pgq::Random;
use Pgq::ClusterTest;

my $seconds = $ENV{PGQ_SECONDS} || 3600;
my $seed    = $ENV{PGQ_SEED} || time;
my $cluster = Pgq::Cluster->new;
my $end     = time + $seconds;
my @web     = map { $_->name } $cluster->webs;

my $leader  = sub { return $cluster->leader };
my $standby = sub { my ($random) = @_; return $random->pick($cluster->standbys) };
my $any     = sub { my ($random) = @_; return $random->pick(map { $_->name } $cluster->databases) };
my $web     = sub { my ($random) = @_; return $random->pick(@web) };
my $kill    = sub { my ($unit) = @_; return sub { $cluster->must($_[0], qw(systemctl kill --kill-whom=all --signal=KILL), $unit) } };
my $does    = sub { my ($what) = @_; return sub { $cluster->do_to($what => $_[0]) } };
my $cut     = sub {
    my ($way) = @_;
    return sub { my ($host) = @_; $cluster->partition($host, $way, grep { $_ ne $host } map { $_->name } $cluster->databases) };
};
my $heal    = sub { $cluster->heal($_[0]) };

# Each fault: its name, its host, what causes it, and what repairs it unless it ends by itself. There is one fault of a
# database host at a time, so that a quorum is left.
my @database_faults = (
    [ 'postmaster killed', $any,     sub { $cluster->kill_postmaster(@_) } ],
    [ 'Patroni killed',    $any,     sub { $cluster->must($_[0], qw(systemctl kill --kill-whom=main --signal=KILL patroni)) } ],
    [ 'etcd killed',       $any,     $kill->('etcd') ],
    [ 'off',               $leader,  $does->('off'),    $does->('up') ],
    [ 'off',               $standby, $does->('off'),    $does->('up') ],
    [ 'restarted',         $any,     $does->('down'),   $does->('up') ],
    [ 'frozen',            $leader,  $does->('freeze'), $does->('thaw') ],
    [ 'frozen',            $standby, $does->('freeze'), $does->('thaw') ],
    [ 'network off',       $any,     $does->('cut'),    $does->('join') ],
    [ 'receives nothing',  $any,     $cut->('in'),      $heal ],
    [ 'sends nothing',     $any,     $cut->('out'),     $heal ],
    [ 'switchover',        $leader,  sub { $cluster->switchover } ],
    [ 'mover killed',      $leader,  sub {
        $cluster->must($_[0], 'kill', '-9', $cluster->safe_psql('select pid from ngx_pgq.status where mover is not null and pid is not null limit 1'));
    } ],
);
my @web_faults = (
    [ 'HAProxy killed',   $web, $kill->('haproxy') ],
    [ 'HAProxy reloaded', $web, sub { $cluster->must($_[0], qw(systemctl reload haproxy)) } ],
    [ 'HAProxy stopped',  $web, sub { $cluster->must($_[0], qw(systemctl stop haproxy)) }, sub { $cluster->must($_[0], qw(systemctl start haproxy)) } ],
    [ 'nginx reloaded',   $web, sub { $cluster->must($_[0], qw(systemctl reload nginx)) } ],
    [ 'nginx killed',     $web, $kill->('nginx') ],
    [ 'off',              $web, $does->('off'), $does->('up') ],
);

# Clocks differ by up to three days, and not by multiples of any period.
my @hosts = map { $_->name } $cluster->databases, $cluster->webs;
my %clock;
my $jump  = sub {
    my ($random, $host) = @_;
    my $offset = $random->below(518_401) - 259_200;

    diag(sprintf '%s %s: the clock jumps to %+d s', scalar localtime, $host, $offset);
    $cluster->clock($host, $clock{$host} = $offset);
};

diag("PGQ_SEED=$seed");
$jump->(Pgq::Random->new($seed, 'clock', $_), $_) for @hosts;
ok($cluster->settled(180), 'before the first fault each member is the primary or a synchronous standby');

# Two faults within 30 seconds may keep a client waiting for longer than its timeout.
for (my $case = 1; time < $end; $case++) {
    my $test = Pgq::ClusterTest->new("soak $seed/$case", allow => 'closed|unreachable|timeout|truncated|refused|unknown|read_failed|reader .*', log => qr/exited on signal 9/,
        load => { order => 0 });

    for my $round (1 .. 5) {
        my $random = Pgq::Random->new($seed, $case, $round);
        my @faults = $random->one_in(4) ? ($random->pick(@database_faults), $random->pick(@web_faults))
            : $random->one_in(3) ? $random->pick(@web_faults) : $random->pick(@database_faults);
        my @at = map { [ $_->[1]->($random), @$_[ 0, 2, 3 ] ] } @faults;
        my ($closed) = grep { my $web = $web[$_]; grep { $_->[0] eq $web && $_->[1] eq 'off' } @at } 0 .. $#web;

        $test->round(sub {
            for (@at) {
                my ($host, $name, $do) = @$_;
                diag(sprintf '%s %s: %s', scalar localtime, $host, $name);
                $do->($host);
            }
            my @up = grep { my $host = $_; !grep { $_->[0] eq $host } @at } @hosts;
            $jump->($random, $random->pick(@up)) if $random->one_in(2);
            $test->hold($random->below(30));
        }, closed => $closed, repair => sub {
            for (reverse @at) {
                my ($host, $undo) = @$_[ 0, 3 ];
                $undo->($host) if $undo;
            }
        });
    }

    $test->end;
    for my $host (@hosts) {
        ok((poll_until { abs(($cluster->clock_of($host) // 1e9) - $clock{$host}) < 60 } 60), "after five faults the clock of $host has its offset");
    }
    last if !Test::More->builder->is_passing;
}

$cluster->true_clock(@hosts);

done_testing;
