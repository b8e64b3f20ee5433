package Peer::NgxPgq;

use strict;
use warnings;

use parent 'Peer';

use Pgq::Nginx;
use Server qw(wait_until_drained);


sub name  { return 'ngx_pgq' }

sub table { return 'posts' }

sub url   { return $_[0]{server}{http}->url('/post') }

sub roles { return qw(postgresql worker) }


sub start {
    my ($self) = @_;

    return $self->serve(http => Pgq::Nginx->new(
        pg          => $self->{pg},
        workers     => $self->{workers},
        pool        => 'read_lanes=5',
        connections => $self->{connections} * 2 + 100,
        log_level   => 'notice',
        listen      => 'backlog=4096',
        http        => 'keepalive_requests 1000000000; keepalive_timeout 1h;',
        server      => 'access_log off; location /sub/ { pgq_subscription main; }',
    ));
}


# The worker is the mover. PostgreSQL restarts all of its processes when one is killed.
sub kill {
    my ($self, $role) = @_;

    return $self->SUPER::kill($role) if $role eq 'postgresql';

    CORE::kill 'KILL', split /\n/, $self->{pg}->safe_psql("select pid from pg_stat_activity where backend_type = 'ngx_pgq mover'");

    return;
}


sub consumers {
    my ($self) = @_;

    return ([ 'SQL', 100, 'consumer_sql', $self->{pg}->conninfo ], [ 'HTTP', 100, 'consumer_http', $self->{server}{http}->port ]);
}


# The subscriptions begin with the posts that become visible afterwards.
sub fill {
    my ($self, $count, $posts) = @_;
    my $pg = $self->{pg};

    $self->empty;
    $pg->safe_psql("select ngx_pgq.unsubscribe(name) from ngx_pgq.subscription; select ngx_pgq.subscribe('consume' || n) from generate_series(1, $count) as n");
    $pg->safe_psql(qq(insert into ngx_pgq.queue (data) select (rpad('{"n":' || n || ',"text":"', 98, 'x') || '"}')::json from generate_series(1, $posts) as n));
    wait_until_drained($pg);

    return;
}


# Sets the number of movers.
sub movers {
    my ($self, $count) = @_;
    my $pg = $self->{pg};

    $pg->set('ngx_pgq.movers' => $count);
    $pg->poll_query_until("select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover'", $count);

    return;
}


sub settings {
    return 'Its defaults, without an access log, as for all peers, and with `read_lanes=5`, as 10 consumers share these'
        . ' connections. One mover. The answer contains the id and the message; those of the other peers are shorter. It checks'
        . ' that a message is JSON before it accepts it.';
}


1;
