package Plot;

# The graphs of bench/mover and bench/compare: SVG without a background, in colors that are readable on a light and on a dark
# page.
#
#   Plot::svg($title, $hold, [ 'ngx_pgq', [ [ $second, $depth, $moved ], … ] ], [ 'another', [ … ] ])
#       depth of the queue and posts a second during a held snapshot, one line for each queue. Seconds are counted from the
#       snapshot, which is held for $hold seconds
#   Plot::bars($title, [ 'accepted', 'in the table' ], [ 'ngx_pgq', 12345, 12000 ], [ 'another', … ])
#       a group of bars for each name; undef is no bar
#   Plot::lines($title, [ 1, 16, 64 ], [ 'ngx_pgq', 123, 456, 789 ], [ 'another', … ])
#       a line for each name, through values at equal distances; undef is no value

use strict;
use warnings;
use utf8;

use List::Util qw(max min sum);

my ($width, $height, $left, $right) = (820, 476, 56, 184);
my @ink = map { "#$_" } qw(2f81f7 d4672a 3fa653 a371f7 c99a17 db5f9b 26a5b0 8c959f b3543f 6a8f2a);
my @panel = ({ top => 72, height => 170 }, { top => 298, height => 140 });


# Formats 1500000 as 1.5 M.
sub _short {
    my ($value) = @_;

    return $value >= 1e6 ? $value / 1e6 . ' M' : $value >= 1e3 ? $value / 1e3 . ' k' : $value;
}


# Formats 1500000 as 1,500,000.
sub _long {
    my $text = sprintf '%.0f', $_[0];
    1 while $text =~ s/^(\d+)(\d{3})/$1,$2/;

    return $text;
}


# A step of 1, 2 or 5 times a power of ten, so that the value has at most the given number of steps.
sub _step {
    my ($value, $most) = @_;
    my $step = 1;

    while (1) {
        for my $times (1, 2, 5) {
            return $step * $times if $value / ($step * $times) <= $most;
        }
        $step *= 10;
    }
}


sub _text {
    my ($x, $y, $text, $class, $anchor) = @_;

    $text =~ s/&/&amp;/g;
    $text =~ s/</&lt;/g;

    return sprintf qq{<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>\n}, $x, $y, $class, $anchor // 'start', $text;
}


sub _line {
    my ($x1, $y1, $x2, $y2, $class) = @_;

    return sprintf qq{<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>\n}, $x1, $y1, $x2, $y2, $class;
}


# The names of the lines are at the right, at the height of their ends, without overlaps and above the bottom.
sub _labels {
    my ($bottom, @labels) = @_;

    @labels = sort { $a->{y} <=> $b->{y} } @labels;

    for my $i (1 .. $#labels) {
        $labels[$i]{y} = max($labels[$i]{y}, $labels[ $i - 1 ]{y} + 30);
    }

    for my $i (reverse 0 .. $#labels) {
        $labels[$i]{y} = min($labels[$i]{y}, $i < $#labels ? $labels[ $i + 1 ]{y} - 30 : $bottom - 14);
    }

    return join '', map { _text($_->{x}, $_->{y}, $_->{name}, "name ink$_->{number}"), _text($_->{x}, $_->{y} + 14, $_->{value}, 'note') } @labels;
}


sub _head {
    my ($high, $label) = @_;
    my $inks = join "\n", map { "path.ink$_ { stroke: $ink[$_] } text.ink$_, rect.ink$_ { fill: $ink[$_] }" } 0 .. $#ink;

    return <<"END";
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $high" width="$width" height="$high" role="img" aria-label="$label">
<style>
text { font: 12px system-ui, sans-serif; fill: #768390 }
.title { font-size: 14px; font-weight: 600 }
.name { font-weight: 600 }
.grid { stroke: #8c959f; stroke-opacity: .28 }
.edge { stroke: #8c959f; stroke-dasharray: 3 3 }
.hold { fill: #8c959f; fill-opacity: .10 }
path { fill: none; stroke-width: 2; stroke-linejoin: round }
$inks
\@media (prefers-color-scheme: light) { .note { fill: #57606a } .title { fill: #1f2328 } }
\@media (prefers-color-scheme: dark) { .note { fill: #9198a1 } .title { fill: #f0f6fc } }
</style>
END
}


sub bars {
    my ($title, $kinds, @groups) = @_;
    my ($bar, $gap, $from) = (14, 12, 110);
    my $group = @$kinds * $bar + $gap;
    my $most  = max(1, map { $_ // 0 } map { @$_[ 1 .. $#$_ ] } @groups);
    my $wide  = $width - $from - 70;
    my $svg   = _head(56 + @groups * $group, $title) . _text(8, 18, $title, 'title');

    $svg .= _text($from + 130 * $_, 38, $kinds->[$_], "name ink$_") for 0 .. $#$kinds;

    for my $number (0 .. $#groups) {
        my ($name, @values) = @{ $groups[$number] };
        my $top = 52 + $number * $group;

        $svg .= _text($from - 8, $top + @$kinds * $bar / 2 + 4, $name, 'note', 'end');

        for my $kind (grep { defined $values[$_] } 0 .. $#values) {
            my $length = $values[$kind] / $most * $wide;
            $svg .= sprintf qq{<rect x="%d" y="%d" width="%.1f" height="%d" class="ink%d"/>\n}, $from, $top + $kind * $bar, $length, $bar - 2, $kind;
            $svg .= _text($from + $length + 6, $top + $kind * $bar + 10, _long($values[$kind]), 'note');
        }
    }

    return "$svg</svg>\n";
}


sub lines {
    my ($title, $places, @lines) = @_;
    my ($top, $high) = (44, 290);
    my $most = max(1, map { $_ // 0 } map { @$_[ 1 .. $#$_ ] } @lines) * 1.02;
    my $step = _step($most, 5);
    my $x    = sub { $left + $_[0] / max(1, $#$places) * ($width - $left - $right) };
    my $y    = sub { $top + $high - $_[0] / $most * $high };
    my $svg  = _head($top + $high + 30, $title) . _text(8, 18, $title, 'title');
    my @labels;

    for (my $value = 0; $value <= $most; $value += $step) {
        $svg .= _line($left, $y->($value), $width - $right, $y->($value), 'grid');
        $svg .= _text($left - 8, $y->($value) + 4, _short($value), 'note', 'end');
    }

    $svg .= _text($x->($_), $top + $high + 20, _long($places->[$_]), 'note', 'middle') for 0 .. $#$places;

    for my $number (reverse 0 .. $#lines) {
        my ($name, @values) = @{ $lines[$number] };
        my @known = grep { defined $values[$_] } 0 .. $#values or next;
        my $ink   = $number % @ink;

        $svg .= sprintf qq{<path d="M%s" class="ink%d"/>\n}, join(' L', map { sprintf '%.1f,%.1f', $x->($_), $y->($values[$_]) } @known), $ink;
        push @labels, { x => $width - $right + 8, y => $y->($values[ $known[-1] ]), name => $name, number => $ink, value => _long($values[ $known[-1] ]) };
    }

    return $svg . _labels($top + $high, @labels) . "</svg>\n";
}


sub svg {
    my ($title, $hold, @courses) = @_;
    my @all  = map { @{ $_->[1] } } @courses;
    my $from = min(map { $_->[0] } @all) - 0.5;
    my $to   = max(map { $_->[0] } @all) + 0.5;
    my $x    = sub { $left + ($_[0] - $from) / ($to - $from) * ($width - $left - $right) };

    my $svg = _head($height, 'Depth of the queue and posts a second while a snapshot is held');

    for my $n (0, 1) {
        my ($top, $high) = @{ $panel[$n] }{qw(top height)};
        my $most = max(1, map { $_->[ $n + 1 ] } @all) * 1.02;
        my $step = _step($most, 5);
        my $y    = sub { $top + $high - $_[0] / $most * $high };

        $svg .= _text($left, $top - 12, ('Messages waiting', 'Posts a second')[$n], 'title');
        $svg .= sprintf qq{<rect x="%.1f" y="%d" width="%.1f" height="%d" class="hold"/>\n}, $x->(0), $top, $x->($hold) - $x->(0), $high;
        $svg .= _line($x->($_), $top, $x->($_), $top + $high, 'edge') for 0, $hold;

        for (my $value = 0; $value <= $most; $value += $step) {
            $svg .= _line($left, $y->($value), $width - $right, $y->($value), 'grid');
            $svg .= _text($left - 8, $y->($value) + 4, _short($value), 'note', 'end');
        }

        $svg .= _text($x->(0) + 6, $top + 16, 'a snapshot is held', 'note') if !$n;

        my @labels;

        # the first line is drawn last, on top of the others
        for my $number (reverse 0 .. $#courses) {
            my ($name, $points) = @{ $courses[$number] };

            $svg .= sprintf qq{<path d="M%s" class="ink%d"/>\n}, join(' L', map { sprintf '%.1f,%.1f', $x->($_->[0]), $y->($_->[ $n + 1 ]) } @$points), $number;

            # at the end of the snapshot: the maximum depth, or the mean rate of the last seconds
            my @held = map { $_->[ $n + 1 ] } grep { $_->[0] > 0 && $_->[0] < $hold } @$points;
            my @tail = splice @{ [@held] }, -min(30, int @held / 4 + 1);

            push @labels, {
                x => $width - $right + 8, y => $y->($n ? sum(@tail) / @tail : $held[-1]), name => $name, number => $number,
                value => $n ? _long(sum(@tail) / @tail) . '/s before it ends' : _long(max(@held)) . ' at most',
            };
        }

        $svg .= _labels($top + $high + 18, @labels);
    }

    my $bottom = $panel[1]{top} + $panel[1]{height};
    my $step   = $hold > 120 ? 60 : _step($hold, 6);

    for (my $second = 0; $second <= $to; $second += $step) {
        $svg .= _text($x->($second), $bottom + 18, $second % 60 == 0 && $step == 60 ? $second / 60 . ' min' : "$second s", 'note', 'middle');
    }

    $svg .= _text($left, 22, $title, 'note');
    utf8::encode($svg);

    return "$svg</svg>\n";
}


1;
