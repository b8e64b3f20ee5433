package Pgq::SqlLoad;

# Several producers and a reader that use SQL, each a process, while the test ends processes of the server. Pgq::Oracle then
# compares what they were told with posts.
#
#   my $load = Pgq::SqlLoad->new($pg)->start;      some enqueue batches, with keys or without, some insert rows
#   $load->wait_for(20);                           each producer has had 20 more successes
#   $load->stop;                                   each producer ends after its current statement
#   my @complaints = $load->complaints;            after the queue is drained; empty when all is well
#
# A producer that loses its connection reconnects. It sends a batch of unknown outcome again under the same id until the
# outcome is known. A producer with keys fences the batch first; if the fence succeeds it sends the messages as another
# batch. The reader continues after the last id that it has seen.

use strict;
use warnings;

use Time::HiRes qw(sleep time);

use parent 'Pgq::Load';

use Pgq::Host qw(temp_dir ended slurp);
use Pgq::Oracle;
use Pgq::Wait qw(deadline);

my $loads = 0;


# Options: batches, inserts (how many producers of each kind). Every second producer of batches sends keys.
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


# Waits until each producer has had this many more successes; false at the deadline.
sub wait_for { my ($self, $more, $seconds) = @_; return $self->_wait($more, $seconds, 1 .. @{ $self->{producers} }) }


sub stop {
    my ($self) = @_;

    $self->_open('stop');
    push @{ $self->{stuck} }, grep { !defined ended($_, 60) } @{ $self->{producers} };

    return $self;
}


# The complaints of Pgq::Oracle after the queue is drained. The reader must have seen every post.
sub complaints {
    my ($self, $seconds) = @_;
    my $oracle = $self->{oracle} = Pgq::Oracle->new(complete => 1);
    my @wrong  = map { "producer $_ did not end" } @{ $self->{stuck} || [] };

    $oracle->drain($self->{pg}, $seconds);
    $self->_open('read');
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


# How many messages have this outcome: accepted, refused (an error was raised) or unknown.
sub count { return $_[0]{oracle}->count($_[1]) }


# ---- the processes

# Sends SQL on the session of this process, and opens a new one if it was lost. Returns the outcome and the output.
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
    my $out      = $self->_open($n);

    for (my $i = 1; $self->_goes_on; $i++) {
        my $many     = $enqueues ? 1 + $i % 3 : 1;
        my @messages = map { sprintf '%04x%04x-%04x-4000-8000-%012x', $self->{number}, $n, $_, $i } 1 .. $many;
        my $batch = _batch($n);

        # sometimes fence a batch that was never sent
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


# Whether the batch is certain never to be committed.
sub _fence {
    my ($self, $batch) = @_;
    my ($outcome, $said) = $self->_ask("select 'fenced' where ngx_pgq.fence('$batch'); select 'done'");

    return $outcome eq 'accepted' && $said =~ /fenced/;
}


sub _read {
    my ($self) = @_;
    my $last = $self->{base};
    my $out  = $self->_open('reader');

    while (getppid() == $self->{parent}) {
        my $last_read = -e "$self->{dir}/read";
        my ($outcome, $rows) = $self->_ask(
            "select id || '|' || message_id from posts where id > $last and data::text ~ 'sql_load' order by id; select 'done'");

        if ($outcome eq 'accepted') {
            for my $row (grep { /^\d/ } split /\n/, $rows) {
                print {$out} "$row\n";
                ($last) = $row =~ /^(\d+)/;
            }
            return if $last_read;
        }
        sleep 0.01;
    }

    return;
}


1;
