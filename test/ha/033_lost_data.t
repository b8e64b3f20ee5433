# P3: one direction of a TCP connection loses all data, while it is opened or later, and is then repaired. No
# connection of the cluster hangs: messages are accepted within seconds after the repair.

use Pgq;
use Pgq::ClusterTest;

# Segments with data are dropped. The TCP handshake, bare acknowledgements and resets pass.
my $data = 'ip length > 52 tcp flags & (syn | rst) == 0';

# Which data is dropped: receivers, senders, and the port of requests or answers.
my %lost = (
    'no data from the primary to its standbys'      => [ \&standbys,  \&primary,   'tcp sport 5432' ],
    'no data from the standbys to the primary'       => [ \&primary,   \&standbys,  'tcp dport 5432' ],
    'no data from the primary to the web hosts'     => [ \&webs,      \&primary,   'tcp sport 5432' ],
    'no data from the web hosts to the primary'      => [ \&primary,   \&webs,      'tcp dport 5432' ],
    'no data from HAProxy to nginx'                 => [ \&webs,      \&webs,      'tcp sport 5000' ],
    'no data from Patroni to HAProxy'             => [ \&webs,      \&databases, 'tcp sport 8008' ],
    'no data from members of etcd to its leader'     => [ \&etcd,      \&others,    'tcp dport 2380' ],
    'no data from the leader of etcd to the others' => [ \&others,    \&etcd,      'tcp sport 2380' ],
    'no data from etcd to Patroni on other hosts'      => [ \&databases, \&databases, 'tcp sport 2379' ],
);

my $cluster = Pgq::Cluster->new;

sub primary   { return $cluster->leader }
sub standbys  { return $cluster->standbys }
sub webs      { return map { $_->name } $cluster->webs }
sub databases { return map { $_->name } $cluster->databases }
sub etcd      { return $cluster->etcd_leader }
sub others    { my $leader = etcd(); return grep { $_ ne $leader } databases() }

sub drop {
    my ($to, $from, $port) = @_;
    my @receivers = $to->();
    my @senders   = $from->();

    for my $host (@receivers) {
        my @others = grep { $_ ne $host } @senders;
        $cluster->partition($host, in => @others, "$port $data") if @others;
    }

    return @receivers;
}

# The new WAL receivers wait for the reply to SSLRequest. The primary gives up these connections before the repair.
sub end_walreceivers {
    $cluster->on($_, qw(pkill -TERM -f), 'postgres: .*walreceiver') for $cluster->standbys;
    return;
}

# ---- connections of standbys that are being opened: the reply to SSLRequest is lost

{
    my $test = Pgq::ClusterTest->new('connections of WAL receivers opened without answers', allow => 'refused|unknown|read_failed|timeout');

    for (1 .. 3) {
        $test->round(sub {
            my @receivers = drop(@{ $lost{'no data from the primary to its standbys'} });
            end_walreceivers();
            $test->hold(18);
            $cluster->heal(@receivers);
            my $accepted = $test->accepted;
            ok((poll_until { $test->accepted > $accepted } timeout(20)), 'WAL receivers: a message is accepted within seconds after the repair');
        });
    }

    $test->end;
}

# ---- connections that are in use

for my $name (sort keys %lost) {
    my $test = Pgq::ClusterTest->new($name, allow => 'refused|unknown|read_failed|timeout|closed|truncated|unreachable|reader .*');

    $test->round(sub {
        my @receivers = drop(@{ $lost{$name} });
        $test->hold(18);
        $cluster->heal(grep { !($cluster->on($_, qw(nft list table ip pgq_partition)))[0] } @receivers);
        my $accepted = $test->accepted;
        ok((poll_until { $test->accepted > $accepted } timeout(20)), "$name: a message is accepted within seconds after the repair");
    });

    $test->end;
}

done_testing;
