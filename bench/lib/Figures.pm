package Figures;

# Functions of the measuring scripts: median, slope, CPU and memory of a process.

use strict;
use warnings;

use Exporter 'import';
use List::Util qw(sum);

use Pgq::Host qw(slurp);

our @EXPORT_OK = qw(median slope cpu cpu_of_all cpu_of_ended private);


sub median {
    my @sorted = sort { $a <=> $b } @_;

    return @sorted % 2 ? $sorted[ $#sorted / 2 ] : ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2;
}


# The slope of the regression line through points [ x, y ].
sub slope {
    my (@points) = @_;
    my $x = sum(map { $_->[0] } @points) / @points;
    my $y = sum(map { $_->[1] } @points) / @points;
    my $square = sum(map { ($_->[0] - $x)**2 } @points);

    return $square ? sum(map { ($_->[0] - $x) * ($_->[1] - $y) } @points) / $square : 0;
}


# CPU seconds of processes with their threads, in nanosecond resolution if the kernel has it.
sub cpu {
    my (@pids) = @_;

    return sum(0, map { cpu_of_all("/proc/$_") } @pids);
}


# The same of one process with all its threads, given by its directory of /proc.
sub cpu_of_all {
    my ($process) = @_;

    return sum(0, map { _cpu($_) } glob "$process/task/*");
}


sub _cpu {
    my ($process) = @_;

    return (split ' ', slurp("$process/schedstat"))[0] / 1e9 if -e "$process/schedstat";

    my ($rest) = slurp("$process/stat") =~ /\) (.*)/;
    my @field = split ' ', $rest;

    return ($field[11] + $field[12]) / 100;
}


# CPU seconds of the children of a process that have ended, in hundredths.
sub cpu_of_ended {
    my ($pid) = @_;
    my ($rest) = slurp("/proc/$pid/stat") =~ /\) (.*)/;
    my @field = split ' ', $rest;

    return ($field[13] + $field[14]) / 100;
}


# Private memory of a process in kB. Only private mappings count: a page of shared memory that only this process has
# touched is also reported as private.
sub private {
    my ($pid) = @_;
    my ($sum, $shared) = (0, 0);

    for my $line (split /\n/, slurp("/proc/$pid/smaps")) {
        $shared = $1 eq 's' if $line =~ /^[0-9a-f]+-[0-9a-f]+ ...([ps]) /;
        $sum += $1 if !$shared && $line =~ /^Private_(?:Clean|Dirty):\s+(\d+) kB/;
    }

    return $sum;
}


1;
