package Compare::Report;

# Writes RESULTS.md of bench/compare and its graphs, from what has been measured so far.
#
#   Compare::Report::write($dir, option => \%option, figure => \%figure, peers => \@peers, connections => [...], sizes => [...],
#       marks => [...], machine => [ lines ], command => '…')

use strict;
use warnings;
use utf8;

use List::Util qw(max min sum);
use Text::Wrap qw(wrap);

use Figures qw(median);
use Pgq::Host qw(spew);
use Plot;

$Text::Wrap::columns = 120;
$Text::Wrap::huge    = 'overflow';


# A number with three digits of precision, or with commas.
sub _number {
    my ($value) = @_;

    return '–' if !defined $value;
    return sprintf $value < 10 ? '%.2f' : '%.1f', $value if $value < 100 && $value != int $value;

    my $text = sprintf '%.0f', $value;
    1 while $text =~ s/^(\d+)(\d{3})/$1,$2/;

    return $text;
}


# The median of a figure of several runs, and its range if there are several.
sub _spread {
    my ($what, @runs) = @_;
    my @values = map { $_->{$what} } @runs or return '–';

    return _number(median(@values)) . (@values > 1 ? ' (' . _number(min(@values)) . '–' . _number(max(@values)) . ')' : '');
}


sub _table {
    my ($head, @rows) = @_;

    return join '', map({ '| ' . join(' | ', @$_) . " |\n" } $head, [ ('---') x @$head ], @rows), "\n";
}


sub _text { return wrap('', '', join(' ', @_) =~ s/\s+/ /gr) . "\n\n" }


sub _median_rate {
    my ($figure, $work) = @_;
    my @runs = @{ $figure->{accept}{$work} || [] };

    return @runs ? median(map { $_->{rate} } @runs) : undef;
}


# The medians of the runs at half load: a hash, with the same hashes in it.
sub _half {
    my ($figure) = @_;
    my @runs = @{ $figure->{half} || [] } or return;

    return _medians(@runs);
}


sub _medians {
    my (@runs) = @_;

    return { map { my $key = $_; my @values = map { $_->{$key} // () } @runs;
        $key => ref $values[0] eq 'HASH' ? _medians(@values) : ref $values[0] || !@values ? undef : median(@values) } keys %{ $runs[0] } };
}


sub write {
    my ($dir, %run) = @_;
    my ($option, $figure, $peers) = @run{qw(option figure peers)};
    my @names  = map { $_->name } @$peers;
    my @stored = map { $_->name } grep { $_->table } @$peers;
    my $work   = "$option->{connections} $option->{size}";
    my $of     = sub { my ($name, @path) = @_; my $value = $figure->{$name}; $value = $value && $value->{$_} for @path; $value };

    my $text = "# ngx_pgq and what else could be used\n\n" . _text(
        'One run of `make bench-compare`: every peer accepts messages by HTTP and brings them into a table of one PostgreSQL, with',
        'fsync and synchronous_commit on. Peers, PostgreSQL and the load client share the cores of one machine, and rounds of the',
        'peers alternate. Values are medians, with the range of the rounds. An acknowledgement is a 2xx answer. The head of',
        '`bench/compare` explains the parts; [README.md](README.md) describes the method.') . join('', map { "- $_\n" } @{ $run{machine} }) . "\n";

    $text .= "## Summary\n\n" . _text("$option->{connections} connections, messages of $option->{size} bytes. The ceiling is an nginx that answers 202 and",
        'stores nothing. `In the table` is the rate at which the number of waiting messages does not grow.')
        . _table(
            [ 'peer', 'accepted/s', 'in the table/s', 'ms at half load, p50 and p99', 'CPU µs a message', 'acknowledged and lost by kill -9', 'longest outage, s' ],
            map {
                my $name = $_;
                my ($half, $kill) = (_half($figure->{$name}), $of->($name, 'kill'));
                [
                    $name, _spread('rate', @{ $of->($name, 'accept', $work) || [] }), _number($of->($name, 'sustained')),
                    $half ? _number($half->{p50_ms}) . ' · ' . _number($half->{p99_ms}) : '–',
                    _number(_cpu($half)),
                    $kill ? _number(sum(map { $_->{lost} } values %$kill)) : '–',
                    $kill ? _number(max(map { $_->{outage}, $_->{silence} } values %$kill) + 0) : '–',
                ];
            } @names,
        )
        . "![messages accepted, and in the table, a second](compare.svg)\n\n";

    $text .= "## What ngx_pgq loses\n\n" . (join('', _losses(\%run)) || "Nothing that was measured here.\n") . "\n";

    $text .= "## Accepted messages a second, by connections\n\n" . _table([ 'peer', map { _number($_) } @{ $run{connections} } ],
        map { my $name = $_; [ $name, map { _spread('rate', @{ $of->($name, 'accept', "$_ $option->{size}") || [] }) } @{ $run{connections} } ] } @names)
        . "![accepted messages a second by connections](compare-connections.svg)\n\n"
        . "## Latency in ms, p50 and p99, by connections\n\n" . _table([ 'peer', map { _number($_) } @{ $run{connections} } ],
        map { my $name = $_; [ $name, map { my @runs = @{ $of->($name, 'accept', "$_ $option->{size}") || [] };
            @runs ? _number(median(map { $_->{p50_ms} } @runs)) . ' · ' . _number(median(map { $_->{p99_ms} } @runs)) : '–' } @{ $run{connections} } ] } @names)
        . "## Accepted messages a second, by size in bytes\n\n" . _table([ 'peer', map { _number($_) } @{ $run{sizes} } ],
        map { my $name = $_; [ $name, map { _spread('rate', @{ $of->($name, 'accept', "$option->{connections} $_") || [] }) } @{ $run{sizes} } ] } @names);

    my @roles = qw(http broker worker postgresql client);
    $text .= "## At half load\n\n" . _text('An open loop at half of the rate at which messages reach the table. A latency counts from the time when the request was',
        'due. Bytes written are those that the device wrote, until all messages were in the table.')
        . _table([ 'peer', 'messages/s', 'p50 ms', 'p99 ms', (map { "CPU µs, $_" } @roles), 'WAL bytes', 'bytes written', map { "MB, $_" } @roles[ 0 .. 3 ] ],
        map { my $name = $_; my $half = _half($figure->{$name}); my @runs = @{ $of->($name, 'half') || [] };
            [ $name, _number($half->{rate}), map({ _spread($_, @runs) } qw(p50_ms p99_ms)),
                map { _number($_) } (map { $half->{cpu}{$_} } @roles), @$half{qw(wal written)}, map { $half->{memory}{$_} } @roles[ 0 .. 3 ] ] } @stored);

    $text .= "## While a snapshot is held for $option->{hold} seconds\n\n" . _text('Half load. `Behind`: messages that were due and had not reached the table, at most.')
        . _table([ 'peer', 'in the table/s before', 'at the end', 'ratio', 'behind' ],
        map { my $held = $of->($_, 'held'); [ $_, map { _number($_) } @$held{qw(before end)}, $held && $held->{before} ? $held->{end} / $held->{before} : undef, $held->{behind} ] } @stored);

    $text .= "## kill -9 at half load\n\n" . _text('The processes of one role are killed and started again at once. Without an acknowledgement, and without a new row:',
        'the longest time in the run.')
        . _table([ 'peer', 'killed', 'acknowledged', 'lost', 'in the table twice', 'not accepted', 's without an acknowledgement', 's without a row' ],
        map { my $name = $_; map { my $kill = $figure->{$name}{kill}{$_}; [ $name, $_, map { _number($_) } @$kill{qw(acked lost twice failed outage silence)} ] } sort keys %{ $of->($name, 'kill') || {} } } @stored);

    my @marks = @{ $run{marks} };
    $text .= "## How cost grows\n\n" . _text('CPU of a message in µs, without the client, and p99 in ms, at half load, after so many messages have passed through.',
        "Each peer had $option->{growth} seconds.")
        . _table([ 'peer', map { _number($_) } @marks ], map { my $name = $_;
            [ $name, map { my $at = $of->($name, 'growth', $_); $at ? _number($at->{cpu}) . ' · ' . _number($at->{p99_ms}) : '–' } @marks ] } @stored)
        . "![CPU of a message by messages passed through](compare-growth.svg)\n\n";

    $text .= _table([ 'movers of ngx_pgq', 'accepted/s', 'in posts/s meanwhile', 'posts/s of a backlog' ],
        map { my $at = $figure->{ngx_pgq}{movers}{$_}; [ $_, map { _number($_) } @$at{qw(rate moved_rate backlog)} ] } sort { $a <=> $b } keys %{ $figure->{ngx_pgq}{movers} })
        if $figure->{ngx_pgq}{movers};

    $text .= _consume(\%run) . "## How each peer is set up\n\n" . _text('The Debian packages of this machine. Each nginx has the same number of workers, no access log, and connections of clients',
        'are kept alive.') . join('', map {
            my @versions = map { "$_->[0] $_->[1]" } $_->versions;
            wrap('- ', '  ', '**' . $_->name . '** ' . $_->settings . (@versions ? ' (' . join(', ', @versions) . ')' : '')) . "\n";
        } @$peers);

    $text =~ s/\n+\z/\n/;
    utf8::encode($text);
    spew("$dir/RESULTS.md", $text);

    my @by_rate = sort { ($of->($b, 'sustained') // 1e12) <=> ($of->($a, 'sustained') // 1e12) } @names;
    my $cpu = sub { my ($at) = @_; return $at && $at->{cpu} };
    spew("$dir/compare.svg", Plot::bars("Messages a second, $option->{connections} connections, $option->{size} bytes", [ 'accepted', 'in the table' ],
        map { [ $_, _median_rate($figure->{$_}, $work), $of->($_, 'sustained') ] } @by_rate));
    spew("$dir/compare-connections.svg", Plot::lines('Accepted messages a second, by connections', $run{connections},
        map { my $name = $_; [ $name, map { _median_rate($figure->{$name}, "$_ $option->{size}") } @{ $run{connections} } ] } @stored));
    spew("$dir/compare-growth.svg", Plot::lines('CPU microseconds of a message, by messages passed through', \@marks,
        map { my $name = $_; [ $name, map { $cpu->($of->($name, 'growth', $_)) } @marks ] } @stored)) if @marks;

    return;
}


# The section about consumers; each way of a peer has a row. '' if they were not measured.
sub _consume {
    my ($run) = @_;
    my $stock = $run->{option}{stock};
    my @counts = @{ $run->{subscriptions} };
    my @rows;

    for my $peer (grep { $_->can('consumers') } @{ $run->{peers} }) {
        for my $way ($peer->consumers) {
            my ($name, $batch) = @$way;
            my $all = $run->{figure}{ $peer->name }{consume}{$name} or next;
            my ($one, @more) = map { _medians(@{ $all->{$_} }) } @counts;
            push @rows, [
                $peer->name, $name, (map { _spread('rate', @{ $all->{$_} }) } @counts), map({ $batch > 1 ? _number($one->{$_}) : '–' } qw(p50_ms p99_ms)),
                (map { _number(_cpu($_)) . ' + ' . _number($_->{cpu}{client}) } $one, @more), map { _number($one->{$_}) } qw(wal written),
            ];
        }
    }

    return '' if !@rows;
    return "## Consumers with acknowledgement\n\n" . _text(
        'A stock of posts of 100 bytes is read by consumers with one connection each, and acknowledged in batches of 100:', _number($stock),
        'posts for one subscription,', _number($stock / 5), 'for each of 10, which have the same posts. RabbitMQ has a queue for each subscription, which',
        'a fan-out exchange has filled. Posts a second are of all consumers together. A batch of ngx_pgq is a fetch and the',
        'acknowledgement, which has been flushed then; one of RabbitMQ lasts until 100 messages have come, and their acknowledgement is written to the socket.')
        . _table([ 'peer', 'consumers', map({ "posts/s, $_" } @counts), 'p50 ms of a batch, 1', 'p99 ms, 1', map({ "CPU µs, servers + client, $_" } @counts),
            'WAL bytes, 1', 'bytes written, 1' ], @rows);
}


# CPU of a message without the client.
sub _cpu {
    my ($run) = @_;
    my $cpu = $run && $run->{cpu} or return;

    return sum(map { $cpu->{$_} } grep { $_ ne 'client' } keys %$cpu);
}


# Lines about the figures in which another peer is better.
sub _losses {
    my ($run) = @_;
    my ($option, $figure) = @$run{qw(option figure)};
    my @others = grep { $_ ne 'ngx_pgq' && $_ ne 'ceiling' } map { $_->name } @{ $run->{peers} };
    my @lines;

    my $compare = sub {
        my ($what, $unit, $sign, $value) = @_;
        my $own = $value->('ngx_pgq') // return;
        my ($best) = sort { $sign * $value->($b) <=> $sign * $value->($a) } grep { defined $value->($_) } @others;
        return if !defined $best || $sign * $value->($best) <= $sign * $own;
        push @lines, sprintf "- %s: %s %s of %s, %s of ngx_pgq\n", $what, _number($value->($best)), $unit, $best, _number($own);
    };

    for my $work (map({ "$_ $option->{size}" } @{ $run->{connections} }), map { "$option->{connections} $_" } grep { $_ != $option->{size} } @{ $run->{sizes} }) {
        my ($connections, $size) = split ' ', $work;
        $compare->("accepted, $connections connections, $size bytes", 'a second', 1, sub { _median_rate($figure->{ $_[0] }, $work) });
    }

    $compare->('in the table', 'a second', 1, sub { $figure->{ $_[0] }{sustained} });
    $compare->("latency at half load, $_", 'ms', -1, do { my $p = $_; sub { (_half($figure->{ $_[0] }) || {})->{"${p}_ms"} } }) for qw(p50 p99);
    $compare->('CPU of a message at half load', 'µs', -1, sub { _cpu(_half($figure->{ $_[0] })) });
    $compare->("$_->[1] of a message at half load", 'bytes', -1, do { my $what = $_->[0]; sub { (_half($figure->{ $_[0] }) || {})->{$what} } }) for [ wal => 'WAL' ], [ written => 'writes' ];
    $compare->('private memory at half load', 'MB', -1, sub { my $memory = (_half($figure->{ $_[0] }) || {})->{memory}; $memory && sum(values %$memory) });
    $compare->("$_->[1], longest of the kills", 's', -1, do { my $what = $_->[0]; sub { my $kill = $figure->{ $_[0] }{kill}; $kill && max(map { $_->{$what} } values %$kill) } })
        for [ outage => 'without an acknowledgement' ], [ silence => 'without a new row' ];

    for my $way (sort keys %{ $figure->{ngx_pgq}{consume} }) {
        for my $count (@{ $run->{subscriptions} }) {
            $compare->("posts to consumers by $way, subscriptions: $count", 'a second', 1, sub {
                my $consume = $figure->{ $_[0] }{consume} || {};
                max(map { median(map { $_->{rate} } @{ $_->{$count} }) } grep { $_ } $_[0] eq 'ngx_pgq' ? $consume->{$way} : values %$consume);
            });
        }
    }

    return @lines;
}


1;
