# Processes of the server are killed or stopped under load: each acknowledged message is posted once, no refused message
# is posted, and a reader sees ids in the order of commits. Failures between two steps of a batch are in test/faults.

use Pgq;
use Pgq::SqlLoad;

my $pg = Pgq::Postgres->new(conf => "ngx_pgq.movers = 2\nngx_pgq.batch_size = 20\n")->start;
my $pid_of = sub {
    my ($where) = @_;
    my $pid;
    poll_until { my ($status, $out) = $pg->psql("select pid from pg_stat_activity where $where limit 1", database => 'postgres'); $pid = $status ? '' : $out };
    return $pid;
};
my $session = sub { "backend_type = 'client backend' and query ~ '$_[0]' and query !~ 'pg_stat_activity'" };
my $restarts = 0;

# Each action is run three times, each time after more acknowledgements.
my @cases = (
    [ 'a mover is killed'                   => sub { kill 'KILL', $pid_of->("backend_type = 'ngx_pgq mover'"); $restarts++ } ],
    [ 'a session that enqueues is killed'   => sub { kill 'KILL', $pid_of->($session->('enqueue')); $restarts++ } ],
    [ 'a session that inserts is killed'    => sub { kill 'KILL', $pid_of->($session->('insert into')); $restarts++ } ],
    [ 'the launcher is killed'              => sub { kill 'KILL', $pid_of->("backend_type = 'ngx_pgq launcher'"); $restarts++ } ],
    [ 'the postmaster is killed'            => sub { $pg->kill9->start } ],
    [ 'the server is stopped immediately'   => sub { $pg->stop('immediate')->start } ],
    [ 'the server is stopped'               => sub { $pg->stop('fast')->start } ],
    [ 'the movers are terminated'           => sub { $pg->safe_psql("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'ngx_pgq mover'") } ],
    [ 'the movers are cancelled'            => sub { $pg->safe_psql("select pg_cancel_backend(pid) from pg_stat_activity where backend_type = 'ngx_pgq mover'") } ],
    [ 'the producers are terminated'        => sub { $pg->safe_psql("select pg_terminate_backend(pid) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()") } ],
    [ 'the producers are cancelled'         => sub { $pg->safe_psql("select pg_cancel_backend(pid) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()") } ],
);

for my $case (@cases) {
    my ($name, $action) = @$case;
    my $load = Pgq::SqlLoad->new($pg)->start;

    for (1 .. 3) {
        my $position = $pg->log_position;
        my $before   = $restarts;
        $load->wait_for(5) or last;
        $action->();
        $pg->wait_for_log(qr/reinitializing(?:.*\n)*.*ready to accept connections/, $position) if $restarts > $before;
    }

    ok($load->wait_for(5), "$name: producers get acknowledgements again");
    my @complaints = $load->stop->complaints;
    is(join("\n", splice @complaints, 0, 10), '', "$name: each acknowledged message is posted once, each refused one is absent");
}

is(scalar(() = $pg->log_since(0) =~ /reinitializing/g), $restarts, 'the server restarts its processes once for each killed process');
is($pg->safe_psql('select count(*) from ngx_pgq.dead_letter'), 0, 'there is no dead letter');

done_testing;
