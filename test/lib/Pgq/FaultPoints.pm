package Pgq::FaultPoints;

# A server that is built with fault points (make check-faults). In each case a process fails at a point while producers
# enqueue, and no message may be lost or posted twice.
#
#   my $faults = Pgq::FaultPoints->new;
#   $faults->case('posts-written' => 'kill');
#   $faults->case('posts-written' => 'wait', then => sub { … });    called while a process waits at the point
#   $faults->end;
#
# pg_extension/fault.h has the names of the points.

use strict;
use warnings;

use Test::More;

use Pgq::SqlLoad;
use Pgq::Host qw(build_dir slurp top);
use Pgq::Postgres;
use Pgq::Wait qw(poll_until);

my @batches = qw(batch-table-locked batch-table-truncated batch-table-finished batch-table-committed);
my @keys    = qw(key-leaf-locked key-leaf-truncated keys-finished keys-committed);

# Code that makes a process reach a point which few messages reach.
my %provoke = (
    'letter-written'   => sub { $_[0]->_insert_bad_messages },
    'batch-aborted'    => sub { $_[0]->_insert_bad_messages },
    (map { $_ => sub { $_[0]->_insert_old_batches->_terminate_mover } } @batches),
    (map { $_ => sub { $_[0]->_insert_old_keys->_terminate_mover } } @keys),
    (map { $_ => sub { $_[0]->_terminate_mover } } qw(mover-wanted mover-entered mover-connected)),
);

# Additional faults of a point.
my %also = map { $_ => q{, batch-table-due:force} } @batches;


# All points, except those that are conditions.
sub points {
    my ($table) = slurp(top() . '/pg_extension/fault.h') =~ /define NGX_PGQ_FAULT_POINTS(.*?)#ifdef/s;

    return grep { $_ ne 'batch-table-due' } $table =~ /"([a-z-]+)"/g;
}


# Options: conf (more lines for postgresql.conf).
sub new {
    my ($class, %option) = @_;
    my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nngx_pgq.batch_size = 50\nngx_pgq.rotate_size = 64kB\n" . ($option{conf} // ''))->start;

    $pg->safe_psql("select set_config('ngx_pgq.fault', '', false) from pg_settings where name = 'ngx_pgq.fault'") eq ''
        && $pg->safe_psql("select count(*) from pg_settings where name = 'ngx_pgq.fault'") eq '1'
        or die build_dir() . " has no fault points: make check-faults\n";

    # The faults write these lines to the log.
    $pg->allow(qr/PANIC:  fault at|PANIC:  cannot abort transaction|was terminated by signal [69]:/);
    $pg->safe_psql(q{alter table posts add constraint no_bad check (data::text !~ 'bad message')});

    return bless { pg => $pg, cases => 0, bad => [], inserted => 0 }, $class;
}


sub pg { return $_[0]{pg} }


# Tests a fault at a point under load. Options: then (called with this object when a process has reached the point), name.
sub case {
    my ($self, $point, $action, %option) = @_;
    my $pg   = $self->{pg};
    my $name = $option{name} // "$point: $action";
    my $load = Pgq::SqlLoad->new($pg)->start;

    $load->wait_for(2);
    $self->arm($point, $action);
    $provoke{$point}->($self) if $provoke{$point};

    # A reload makes the launcher start movers at once.
    ok((poll_until { $pg->reload if $provoke{$point}; $self->happened($point) } 30), "$name: a process reaches the point");
    $option{then}->($self) if $option{then};
    $pg->wait_ready;
    ok($load->wait_for(10), "$name: producers continue");

    my @complaints = ($load->stop->complaints, $self->_wrong_state($point));
    splice @complaints, 10 if @complaints > 10;
    is(join("\n", @complaints), '', "$name: accepted messages are in posts once, refused ones are absent");
    $self->set('');

    return $load;
}


# Sets the fault for all processes. A process, and with it the server, may fail at once.
sub set {
    my ($self, $fault) = @_;

    $self->{pg}->safe_psql("alter system set ngx_pgq.fault = '$fault'", database => 'postgres');
    $self->{pg}->reload;

    return $self;
}


# Makes the next process that reaches the point fail. Each fault has a number and happens once, as some processes read the
# setting later than others.
sub arm {
    my ($self, $point, $action) = @_;
    my $number = ++$self->{armed}{$point};

    return $self->set("$point:$action:$number" . ($also{$point} // ''));
}


# Whether the last fault at this point has happened. A fault creates a file.
sub happened {
    my ($self, $point) = @_;

    return -e "$self->{pg}{data}/ngx_pgq.fault.$point." . ($self->{armed}{$point} - 1);
}


sub end {
    my ($self) = @_;

    $self->{pg}->stop;

    return;
}


# Complaints about dead letters, truncated leaves and movers after a fault.
sub _wrong_state {
    my ($self, $point) = @_;
    my $pg = $self->{pg};
    my @wrong;

    my %dead;
    $dead{$_}++ for split /\n/, $pg->safe_psql('select data from ngx_pgq.dead_letter');
    push @wrong, map { "no dead letter of $_" } grep { !$dead{$_} } @{ $self->{bad} };
    push @wrong, map { "dead letter $dead{$_} times: $_" } grep { $dead{$_} > 1 || !/bad message/ } sort keys %dead;

    push @wrong, 'old leaves of the batch table were not truncated'
        if $point =~ /^batch-table-/ && !$pg->poll_query_until("select count(*) from ngx_pgq.batch where at < '2001-01-01'", 0);

    push @wrong, 'the old leaf of the keys was not truncated'
        if $point =~ /^key-leaf-/ && !$pg->poll_query_until("select count(*) from ngx_pgq.key where at < '2001-01-01'", 0);

    # a mover works
    my $marker = "marker " . ++$self->{cases};
    $pg->safe_psql(qq{insert into ngx_pgq.queue (data) values ('"$marker"')});
    push @wrong, 'no mover works'
        if !$pg->poll_query_until(qq{select count(*) from posts where data::text = '"$marker"'}, 1);

    return @wrong;
}


# Inserts messages that posts refuses. The server may crash.
sub _insert_bad_messages {
    my ($self) = @_;

    for (1 .. 2) {
        my $data = '"bad message ' . ++$self->{inserted} . '"';
        my ($status) = $self->{pg}->psql("insert into ngx_pgq.queue (data) values ('$data')");
        push @{ $self->{bad} }, $data if !$status;
    }

    return $self;
}


# Inserts batches with an old date into all leaves of the batch table. It tries again if a mover reaches its point first and the
# server restarts.
sub _insert_old_batches {
    my ($self) = @_;
    my $sql = "
        insert into ngx_pgq.batch (at, slot, batch_id)
        select '2000-01-01', n % 3, gen_random_uuid()
          from generate_series(1, 20) n";

    poll_until { !($self->{pg}->psql($sql))[0] } or die "could not insert old batches\n";

    return $self;
}


# Inserts expired keys into the leaf that is half a rotation away.
sub _insert_old_keys {
    my ($self) = @_;
    my $sql = q{
        insert into ngx_pgq.key (at, slot, digest, fingerprint, message_id)
        select '2000-01-01', ((extract(epoch from clock_timestamp()) - 946684800)::bigint / 43200 + 2) % 4, sha256(uuid_send(gen_random_uuid())), sha256('old'), gen_random_uuid()
          from generate_series(1, 10)};

    poll_until { !($self->{pg}->psql($sql))[0] } or die "could not insert old keys\n";

    return $self;
}


# Terminates the first mover, so that a new one starts.
sub _terminate_mover {
    my ($self) = @_;

    $self->{pg}->psql(q{select pg_terminate_backend(pid) from ngx_pgq.status where mover = 1 and pid is not null});

    return $self;
}


1;
