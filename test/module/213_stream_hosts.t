# P11: a reader that is cut and resumes at another web host, while the primary fails and its synchronous standby is promoted,
# gets each post once and in order.

use Pgq;
use Pgq::Stream;

my $old      = Pgq::Postgres->new->start;
my $new      = Pgq::Postgres->new(name => 'standby', backup_of => $old)->start;
my $password = $old->set_password('ngx_pgq_web');

$new->poll_query_until(q{select rolpassword is not null from pg_authid where rolname = 'ngx_pgq_web'});
$old->set(synchronous_standby_names => '*');
$old->poll_query_until(q{select count(*) from pg_stat_replication where sync_state = 'sync'}, 1);

my @host = map {
    Pgq::Nginx->new(
        name      => "web$_",
        conninfo  => 'host=127.0.0.1,127.0.0.1 port=' . $old->port . ',' . $new->port . " dbname=posts user=ngx_pgq_web password=$password",
        ring      => 'posts=100',
        http      => 'pgq_heartbeat 1s;',
        locations => 'location = /stream { pgq_stream main; }',
    )->start
} 1, 2;

my $random = srand;
diag("seed $random");

my @readers = map { Pgq::Stream->new($host[ $_ % 2 ], query => 'after=0', again => 1, objects => undef) } 1 .. 20;
my $client  = Pgq::Client->new($host[0]);
my $sent    = 0;

# Posts messages, and lets some readers change their host after each.
sub load {
    my ($count) = @_;

    for (1 .. $count) {
        is($client->post('/post', qq({"n": $sent}))->{status}, 202, 'a message is accepted') if $_ == $count;
        $client->post('/post', qq({"n": $sent})) if $_ < $count;
        $sent++;

        for my $reader (@readers[ map { rand @readers } 1 .. 3 ]) {
            $reader->cut;
            $reader->{port} = $host[ rand 2 ]->port;
        }

        my $end = Time::HiRes::time() + 0.02;
        Pgq::Stream->pump(sub { Time::HiRes::time() > $end }, 5, @readers);
    }

    return;
}

sub complete {
    my ($what, $pg) = @_;

    ok($pg->poll_query_until('select count(*) from posts', $sent), "$what: each message is a post");
    my @ids = split /\n/, $pg->safe_psql('select id from posts order by id');
    Pgq::Stream->pump(sub { !grep { ($_->ids->[-1] // 0) < $ids[-1] } @readers }, 60, @readers);
    is(join("\n", grep { $_ ne '' } map { $_->complaint(\@ids) } @readers), '', "$what: each reader has each post once and in order");

    return;
}

load(100);
complete('readers that change their host', $old);

$old->kill9;
$new->promote;
load(100);
complete('a failover', $new);

my @resets = map { @{ $_->resets } } @readers;
is(scalar @resets, 0, 'no reader was told that posts are missing');

done_testing;
