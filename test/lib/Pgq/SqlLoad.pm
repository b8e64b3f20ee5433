package Pgq::SqlLoad;

# Several producers and a reader at a server that may die at any moment; afterwards, what each of them was told is
# compared with posts.
#
#   my $load = Pgq::SqlLoad->new($pg)->start;       some enqueue batches, with keys or without, some insert rows
#   $load->wait_for(20);                          each was told of so many successes from here on
#   $load->stop;                                  the producers end, each after an answer
#   my @complaints = $load->complaints;           the queue is drained, then nothing may be said
#
# A producer that loses its connection comes back; a batch of unknown outcome is then sent again under its own id until
# it is known. Who sends keys fences it first, and when it was not taken sends the messages as another batch. The reader
# goes on from the last id it has seen.

use strict;
use warnings;

use POSIX ();
use Time::HiRes qw(sleep time);

use Pgq::Host qw(temp_dir ended slurp);
use Pgq::Oracle;
use Pgq::Wait qw(poll_until deadline);

my $loads = 0;


# Options: batches, inserts (how many producers of either kind). Every second one of batches sends keys.
sub new {
    my ($class, $pg, %option) = @_;

    return bless {
        pg      => $pg,
        batches => $option{batches} // 2,
        inserts => $option{inserts} // 1,
        dir     => temp_dir('sql_load'),
        number  => ++$loads,
        parent  => $$,
    }, $class;
}


sub start {
    my ($self) = @_;

    $self->{base} = $self->{pg}->safe_psql('select coalesce(max(id), 0) from posts');
    $self->{reader} = $self->_fork(sub { $self->_read });
    push @{ $self->{producers} }, map { my $n = $_; $self->_fork(sub { $self->_produce($n) }) }
        1 .. $self->{batches} + $self->{inserts};

    return $self;
}


# Waits until each producer has been told of so many more successes; false when that takes too long.
sub wait_for {
    my ($self, $more, $seconds) = @_;
    my @count = map { $self->_acknowledged($_) } 1 .. @{ $self->{producers} };

    return poll_until {
        !grep { $self->_acknowledged($_) < $count[ $_ - 1 ] + $more } 1 .. @count;
    } $seconds // 30;
}


sub stop {
    my ($self) = @_;

    $self->_touch('stop');
    push @{ $self->{stuck} }, grep { !defined ended($_, 60) } @{ $self->{producers} };

    return $self;
}


# What is wrong, as sentences. Waits until the queue is drained first. The reader must have seen every post.
sub complaints {
    my ($self, $seconds) = @_;
    my $oracle = $self->{oracle} = Pgq::Oracle->new(complete => 1);
    my @wrong  = map { "producer $_ did not end" } @{ $self->{stuck} || [] };

    $oracle->drain($self->{pg}, $seconds);
    $self->_touch('read');
    push @wrong, 'the reader did not end' if !defined ended($self->{reader}, 30);

    for my $n (1 .. @{ $self->{producers} }) {
        for my $line (split /\n/, slurp("$self->{dir}/$n")) {
            my ($outcome, @messages) = split / /, $line;
            $oracle->told($_, $outcome, data => qq({"sql_load": "$_"})) for @messages;
        }
    }
    $oracle->saw(split /\|/) for grep { !/^#/ } split /\n/, slurp("$self->{dir}/reader");

    return @wrong, $oracle->read($self->{pg}, "id > $self->{base} and data::text ~ 'sql_load'")->complaints;
}


# How many messages the producers were told are accepted, refused (an error was raised) or unknown.
sub count { return $_[0]{oracle}->count($_[1]) }


# ---- the producers and the reader, each a process

sub _touch {
    my ($self, $name) = @_;

    open my $out, '>', "$self->{dir}/$name" or die "$self->{dir}/$name: $!\n";

    return;
}


sub _acknowledged {
    my ($self, $n) = @_;
    my $file = "$self->{dir}/$n";

    return -e $file ? scalar(() = slurp($file) =~ /^accepted/mg) : 0;
}


# A child must run nothing of what this process has at its end.
sub _fork {
    my ($self, $code) = @_;

    defined(my $pid = fork) or die "fork: $!\n";
    return $pid if $pid;

    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
    eval { $code->(); 1 } or print STDERR $@;
    POSIX::_exit(0);
}


# Sends SQL on a session of this process, opened again when it was lost: 'accepted', 'refused' or 'unknown', and the output.
sub _ask {
    my ($self, $sql) = @_;

    $self->{session} //= $self->{pg}->session;
    my $answer = eval { $self->{session}->query($sql, 60) };

    return (accepted => $1) if defined $answer && $answer =~ /\A(.*^|)done\z/ms;
    return ('refused', $answer)
        if defined $answer && $answer =~ /\A(?:psql:\S+ )?ERROR:/ && $answer !~ /FATAL:|PANIC:|connection/;

    eval { delete($self->{session})->quit };
    sleep 0.02;

    return ('unknown', $answer // $@);
}


sub _produce {
    my ($self, $n) = @_;
    my $enqueues = $n <= $self->{batches};
    my $keyed    = $enqueues && $n % 2 == 0;

    open my $out, '>>', "$self->{dir}/$n" or die "$self->{dir}/$n: $!\n";
    $out->autoflush(1);

    for (my $i = 1; !-e "$self->{dir}/stop" && getppid() == $self->{parent}; $i++) {
        my $many     = $enqueues ? 1 + $i % 3 : 1;
        my @messages = map { sprintf '%04x%04x-%04x-4000-8000-%012x', $self->{number}, $n, $_, $i } 1 .. $many;
        my $batch = _batch($n);

        # one that never was, now and then
        $batch = _batch($n) if $keyed && $i % 4 == 0 && $self->_fence($batch);

        my ($outcome) = $self->_ask($enqueues ? _enqueue($keyed, $batch, @messages) : _insert(@messages));
        my $left = deadline(60);
        while ($outcome eq 'unknown' && $enqueues && $left->()) {
            $batch = _batch($n) if $keyed && $self->_fence($batch);
            ($outcome) = $self->_ask(_enqueue($keyed, $batch, @messages));
            $outcome = 'unknown' if $outcome eq 'refused';    # the first attempt may have committed
        }

        print {$out} "$outcome @messages\n";
        sleep 0.003;
    }

    return;
}


sub _insert {
    my ($message) = @_;

    return qq[insert into ngx_pgq.queue (message_id, data) values ('$message', '{"sql_load": "$message"}') returning 'done']
}


sub _batch {
    my ($n) = @_;

    return sprintf '%08x-%04x-7%03x-8%03x-%012x', (map { $_ >> 16, $_ & 0xffff } int(time * 1000)), rand 0x1000, $n, rand 2**32;
}


# A message's key is its id.
sub _enqueue {
    my ($keyed, $batch, @messages) = @_;
    my $ids  = join ',', map { "'$_'" } @messages;
    my $data = join ',', map { qq('{"sql_load": "$_"}') } @messages;
    my $call = $keyed ? "enqueue_keyed('$batch', array[$ids]::uuid[], array[$data], array[$ids])" : "enqueue('$batch', array[$ids]::uuid[], array[$data])";

    return "select 'done' from (select count(*) from ngx_pgq.$call) as refused where count = 0"
}


# Whether it is certain that a batch never will be taken.
sub _fence {
    my ($self, $batch) = @_;
    my ($outcome, $said) = $self->_ask("select 'fenced' where ngx_pgq.fence('$batch'); select 'done'");

    return $outcome eq 'accepted' && $said =~ /fenced/;
}


sub _read {
    my ($self) = @_;
    my $last = $self->{base};

    open my $out, '>>', "$self->{dir}/reader" or die "$self->{dir}/reader: $!\n";
    $out->autoflush(1);

    while (getppid() == $self->{parent}) {
        my $enough = -e "$self->{dir}/read";
        my ($outcome, $rows) = $self->_ask(
            "select id || '|' || message_id from posts where id > $last and data::text ~ 'sql_load' order by id; select 'done'");

        if ($outcome eq 'accepted') {
            for my $row (grep { /^\d/ } split /\n/, $rows) {
                print {$out} "$row\n";
                ($last) = $row =~ /^(\d+)/;
            }
            return if $enough;
        }
        sleep 0.01;
    }

    return;
}


1;
