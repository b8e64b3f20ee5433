package Pgq::Consumers;

# Processes that consume subscriptions by SQL, while the test ends sessions, clients, consumers or the server. Each inserts the
# posts that it processes into the table effect, in the transaction of the acknowledgement. So each post has to be there once.
#
#   my $consumers = Pgq::Consumers->new($pg, orders => 2, all => 4)->start;     how many for each subscription
#   my $consumers = Pgq::Consumers->new($pg, 'orders all' => 6)->start;         each of them takes parts of both
#   $consumers->kill_one('client');      ends a random one: session (of the server), client (psql) or consumer (the process)
#   $consumers->stop;
#   my @complaints = $consumers->complaints(all => '1 = 1');                    which posts each subscription must have had
#   $consumers->count('PQ410');          how often consumers got an error, had posts ("accepted"), or lost a connection ("lost")
#
# There are three kinds of consumers. One fetches, has an effect and acknowledges in one statement. Two take a lease of a second and
# are sometimes slower than that: one keeps its generation when it loses its connection, and names the first post when it
# acknowledges; the other forgets the generation.

use strict;
use warnings;

use Time::HiRes qw(sleep);

use parent 'Pgq::Load';

use Pgq::Host qw(temp_dir ended slurp);


sub new {
    my ($class, $pg, %consumers) = @_;

    $pg->safe_psql('create table if not exists effect (n bigint generated always as identity, subscription text, id bigint, topic text,
                    at timestamptz default clock_timestamp())');

    return bless {
        pg     => $pg,
        dir    => temp_dir('consumers'),
        names  => [ map { ($_) x $consumers{$_} } sort keys %consumers ],
        parent => $$,
    }, $class;
}


sub start {
    my ($self) = @_;

    $self->_spawn($_) for 0 .. $#{ $self->{names} };

    return $self;
}


sub stop {
    my ($self) = @_;

    $self->_open('stop');
    $self->{stuck} = grep { !defined ended($_, 60) } @{ $self->{pids} };

    return $self;
}


# Ends something of a consumer, one that waits for this event if there is one: the default is that it is slow at this moment.
# A consumer that ended is started again. Returns whether it waited.
sub kill_one {
    my ($self, $what, $event) = @_;
    $event //= 'PgSleep';
    my ($waits) = ($self->{pg}->psql(qq{select substr(application_name, 10) from pg_stat_activity where application_name like 'consumer%'
                                           and wait_event = '$event' order by random() limit 1}))[1] =~ /(\d+)/;
    my $n = $waits // int rand @{ $self->{names} };

    if ($what eq 'session') {
        $self->{pg}->psql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'consumer $n'");
    } elsif ($what eq 'client') {
        my ($pid) = Pgq::Host::descendants($self->{pids}[$n]);
        kill 'KILL', $pid if $pid;
    } else {
        kill 'KILL', $self->{pids}[$n];
        ended($self->{pids}[$n]);
        $self->_spawn($n);
    }

    return defined $waits;
}


# Posts that have no effect, or two, or are not in the order of their topic. The arguments name the posts of each subscription.
sub complaints {
    my ($self, %posts) = @_;
    my @wrong = $self->{stuck} ? "$self->{stuck} consumers did not end" : ();

    for my $name (sort keys %posts) {
        push @wrong, map { "$name: $_" } split /\n/, $self->{pg}->safe_psql(qq{
            select format('post %s has %s effects', id, count(effect.id))
              from (select id from posts where $posts{$name}) as expected
              full join (select id from effect where subscription = '$name') as effect using (id)
             group by id having count(effect.id) <> 1 or count(expected.id) <> 1
            union all
            select format('post %s is not in order', id)
              from (select id, lag(id) over (partition by topic order by n) as before from effect where subscription = '$name') as ordered
             where id < before});
    }

    return @wrong;
}


sub count {
    my ($self, $what) = @_;

    return scalar grep { /^\Q$what\E$/ } map { split /\n/, slurp("$self->{dir}/$_") } 0 .. $#{ $self->{names} };
}


# ---- the processes

sub _spawn {
    my ($self, $n) = @_;

    $self->{pids}[$n] = $self->_fork(sub { srand $$; $self->_consume($n) });

    return;
}


sub _consume {
    my ($self, $n) = @_;
    my @names = split ' ', $self->{names}[$n];
    my ($name, $part, $generation) = ('', 'null', 'null');

    @$self{qw(out application)} = ($self->_open($n), "consumer $n");

    while ($self->_goes_on) {
        $name = $names[ rand @names ] if $generation eq 'null';

        if ($n % 3 == 1) {
            my $done = $self->_ask(qq{
                with fetched as materialized (select * from ngx_pgq.fetch('$name')),
                     effects as (insert into effect (subscription, id, topic) select '$name', id, topic from fetched order by id)
                select 'accepted', ngx_pgq.ack('$name', max(id), generation, part, release => true) from fetched group by part, generation});
            sleep 0.01 if $done !~ /accepted/;
            next;
        }

        my $rows = $self->_ask(qq{
            select part, generation, min(id), max(id), string_agg(id::text, ',')
              from ngx_pgq.fetch('$name', 100, '1 s', $part, $generation) group by part, generation});

        if ($rows !~ /\|/) {
            ($part, $generation) = ('null', 'null') if $rows ne 'lost' || $n % 3;
            sleep 0.01;
            next;
        }

        my ($first, $last, $ids);
        ($part, $generation, $first, $last, $ids) = split /\|/, $rows;
        my @slow = map { rand 8 < 1 ? 'select pg_sleep(' . rand(1.5) . ')' : 'select' } 1 .. 2;
        # one message of the protocol: the server ends the transaction also if the client does not live any more
        my $end = $self->_ask(join '\;', $slow[0],
            "insert into effect (subscription, id, topic) select '$name', id, topic from posts where id in ($ids) order by id", $slow[1],
            "select 'accepted', ngx_pgq.ack('$name', $last, $generation, $part" . ($n % 3 ? ')' : ", first => $first)"));
        ($part, $generation) = ('null', 'null') if $end =~ /PQ410/ || $n % 3 && $end eq 'lost';
    }

    return;
}


# The output of SQL, 'lost' if the connection was lost. It is a new one then. Errors are logged.
sub _ask {
    my ($self, $sql) = @_;

    $self->{session} //= eval {
        my $session = $self->{pg}->session;
        $session->query("\\set VERBOSITY sqlstate\nset application_name = '$self->{application}'");
        $session;
    };
    my $answer = $self->{session} && eval { $self->{session}->query($sql, 60) };

    if (!defined $answer || $answer =~ /FATAL:|connection/) {
        eval { delete($self->{session})->quit };
        sleep 0.02;
        $answer = 'lost';
    }
    print { $self->{out} } map { "$_\n" } $answer =~ /(accepted|lost|(?<=ERROR:  )\w{5})/g;

    return $answer;
}


1;
