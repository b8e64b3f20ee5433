package Compare;

# Offers messages to a peer of bench/compare and measures what it makes of them.
#
#   my $compare = Compare->new(pg => $pg);
#   my $run = $compare->offer($peer, seconds => 10, connections => 64, size => 100);
#
# See offer for what a run is.

use strict;
use warnings;

use List::Util qw(max sum);
use Time::HiRes qw(sleep time);

use Figures qw(cpu cpu_of_ended private);
use Pgq::Host qw(build_dir descendants ended run slurp spawn temp_dir);
use Pgq::Wait qw(poll_until);


sub new {
    my ($class, %option) = @_;

    return bless { dir => temp_dir('compare'), %option }, $class;
}


# Offers messages: in a closed loop, or with a rate in an open one. Options: seconds, connections, size, rate, messages; at, a list
# of [ second, code ] that is called when its time has come; record, to compare them with the table later; keep, not to empty the
# table before; undrained, not to wait until the messages are in the table; memory, to read it.
#
# Returns the results of pgq_load and, for a peer with a table,
#   samples     [ second, messages moved ], ten times a second
#   moved_rate  messages that reached the table a second, without the first third of the time
#   silence     the longest time without a new row, in seconds
#   depth       messages that were accepted and not moved when the load ended
#   cpu         by role, with postgresql and client: microseconds of a message
#   wal, written    bytes of a message: of WAL; on the device that has the data, by all of this machine, until all is in the table
#   memory      private memory by role in MB, at the end of the load: reading it stops the processes for tens of milliseconds
sub offer {
    my ($self, $peer, %option) = @_;
    my $out = "$self->{dir}/load." . ++$self->{runs};
    my @at  = @{ $option{at} || [] };

    my @command = (
        build_dir() . '/bench/pgq_load', '--quiet', '--no-ids', '--status-ok', '200,201,202', '--timeout', 60,
        '--messages', $option{messages} // 0, '--connections', $option{connections}, '--size', $option{size},
        ($option{seconds} ? ('--seconds', $option{seconds}, '--warmup', $option{seconds} / 10) : ()),
        ($option{rate} ? ('--rate', int $option{rate}) : ()),
        ($option{record} ? ('--record', $option{record}, '--give-up', 60) : ()),
        $peer->url,
    );

    my $moved   = $self->_counter($peer, $option{keep});
    my %before  = $self->_spent($peer);
    my $pid     = spawn(\@command, out => $out);
    my $start   = time;
    my @samples = ([ 0, $moved->() // 0 ]);
    my $status;

    while (!defined $status) {
        $status = ended($pid, 0.1);

        if (@at && time - $start >= $at[0][0]) {
            (shift @at)->[1]->();
        }

        my $count = $moved->();
        push @samples, [ time - $start, $count ] if defined $count && !defined $status;
    }

    my $memory = $option{memory} && $self->_memory($peer);
    my $text   = slurp($out);
    my %result = $text =~ /^result (\S+) (\S+)$/mg;
    die "pgq_load, @{[ $peer->name ]}: status $status\n$text" if $status && !$option{record};

    $self->_drain($peer, $moved, $result{ok}, $option{keep}) if $peer->table && !$option{undrained};
    my %after = $self->_spent($peer);

    return {
        %result,
        _cost(\%before, \%after, max(1, $result{ok}), $result{client_us}),
        memory     => $memory,
        samples    => \@samples,
        silence    => _silence(@samples),
        moved_rate => _rate(grep { $_->[0] >= $samples[-1][0] / 3 } @samples),
        depth      => $result{ok} - $samples[-1][1],
    };
}


# Lets consumers of a peer read their whole stock in this way. Returns their results, and cpu, wal and written of a post.
sub consume {
    my ($self, $peer, $way, $count, $posts) = @_;
    my (undef, $batch, $program, @arguments) = @$way;

    $self->{pg}->safe_psql('checkpoint');
    $peer->fill($count, $posts);
    $self->_settle($peer);

    my %before = $self->_spent($peer, 1);
    my ($status, $text, $error) = run([ build_dir() . "/bench/$program", $count, $posts, $batch, @arguments ], timeout => 120);
    die "$program: status $status\n$error" if $status;
    my %after  = $self->_spent($peer, 1);
    $peer->empty;
    my %result = $text =~ /^result (\S+) (\S+)$/mg;

    return { %result, _cost(\%before, \%after, $count * $posts, $result{client_us}) };
}


# Waits until the processes of a peer and of PostgreSQL use less than a tenth of a core: they write or compact what has come.
sub _settle {
    my ($self, $peer) = @_;
    my $used = sub { my %pids = $self->_pids($peer); sum(map { eval { cpu($_) } // 0 } map { @$_ } values %pids) };

    return poll_until {
        my $before = $used->();
        sleep 0.5;
        $used->() - $before < 0.05;
    } 60;
}


# What one of so many messages has cost: cpu, wal and written.
sub _cost {
    my ($before, $after, $count, $client_us) = @_;

    return (
        cpu     => { client => $client_us, map { $_ => max(0, $after->{cpu}{$_} - $before->{cpu}{$_}) / $count * 1e6 } keys %{ $after->{cpu} } },
        wal     => ($after->{wal} - $before->{wal}) / $count,
        written => defined $before->{written} ? ($after->{written} - $before->{written}) / $count : undef,
    );
}


sub _rate {
    my (@samples) = @_;

    return @samples > 1 ? ($samples[-1][1] - $samples[0][1]) / ($samples[-1][0] - $samples[0][0]) : 0;
}


sub _silence {
    my (@samples) = @_;
    my ($longest, $since) = (0, $samples[0]);

    for my $sample (@samples, [ $samples[-1][0], -1 ]) {
        next if $sample->[1] == $since->[1];
        $longest = max($longest, $sample->[0] - $since->[0]);
        $since = $sample;
    }

    return $longest;
}


# A function that returns the number of messages that have come into the table since; undef while PostgreSQL does not answer.
sub _counter {
    my ($self, $peer, $keep) = @_;
    my $session;

    return sub { 0 } if !$peer->table;

    $peer->empty if !$keep;
    $self->{pg}->safe_psql('checkpoint');
    my $start = $peer->moved;

    return sub {
        my $count = eval { ($session ||= $self->{pg}->session)->query($peer->moved_sql) };
        undef $session if ($count // '') !~ /^\d+$/;

        return $session ? $count - $start : undef;
    };
}


# Waits until all accepted messages are in the table, or none has come for longer than a peer pauses. A crash of PostgreSQL leaves a gap in the
# ids, so the rows are counted at the end.
sub _drain {
    my ($self, $peer, $moved, $accepted, $keep) = @_;
    my ($last, $since) = (-1, time);

    return poll_until {
        my $count = $moved->() // $last;
        ($last, $since) = ($count, time) if $count != $last;
        return time - $since > $peer->longest_pause
            || $count >= $accepted && ($keep || $self->{pg}->safe_psql("select count(*) from @{[ $peer->table ]}") >= $accepted);
    } 600;
}


# What the processes of a peer and of PostgreSQL have used so far. A process that has ended, or ends meanwhile, is not included,
# except for sessions with this option.
sub _spent {
    my ($self, $peer, $sessions) = @_;
    my %pids = $self->_pids($peer);
    my %cpu  = map { $_ => sum(0, map { eval { cpu($_) } // 0 } @{ $pids{$_} }) } keys %pids;
    $cpu{postgresql} += cpu_of_ended($self->{pg}->pid) if $sessions;

    return (
        cpu     => \%cpu,
        wal     => $self->{pg}->safe_psql("select pg_current_wal_insert_lsn() - '0/0'"),
        written => $self->_written,
    );
}


# Bytes that the device of the data has been told to write. /proc/<pid>/io counts whole folios, which are larger than what is
# written of them. undef where the files are on no block device.
sub _written {
    my ($self) = @_;
    my $device = (stat $self->{dir})[0];
    my $stat   = eval { slurp(sprintf '/sys/dev/block/%d:%d/stat', $device >> 8 & 0xfff, $device & 0xff) } // return;

    return (split ' ', $stat)[6] * 512;
}


sub _pids {
    my ($self, $peer) = @_;

    return ($peer->pids, postgresql => [ $self->{pg}->pid, descendants($self->{pg}->pid) ]);
}


sub _memory {
    my ($self, $peer) = @_;
    my %pids = $self->_pids($peer);

    return { map { $_ => sum(0, map { eval { private($_) } // 0 } @{ $pids{$_} }) / 1024 } keys %pids };
}


# Compares the record of a run with the table: messages that were acknowledged and are not there, or there more than once.
sub check {
    my ($self, $peer, $record) = @_;
    my ($head, @lines) = split /\n/, slurp($record);
    my ($run)  = $head =~ /^pgq_load record (\S+)/ or die "$record: $head\n";
    my %acked  = map { /^(\d+) \d+ (\S+)/ && $2 ne '-' ? ($1 => 1) : () } @lines;
    my ($lost, $twice) = (scalar keys %acked, 0);

    for my $row (split /\n/, $self->{pg}->safe_psql(
        "select data->>'n', count(*) from @{[ $peer->table ]} where data->>'run' = '$run' group by 1")) {
        my ($n, $count) = split /\|/, $row;
        $lost-- if $acked{$n};
        $twice += $count - 1;
    }

    return (acked => scalar keys %acked, lost => $lost, twice => $twice);
}


1;
