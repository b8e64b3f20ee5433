# P3: one side of a TCP connection falls silent, in the middle of its opening or later, and the network is whole again a
# moment after that. No connection of the cluster hangs: messages are accepted again within seconds.

use Pgq;
use Pgq::ClusterTest;

# Segments that carry data are lost; the handshake of TCP, bare acknowledgements and resets pass.
my $data = 'ip length > 52 tcp flags & (syn | rst) == 0';

# What is silenced: who no longer hears, whom, which port's answers or requests.
my %silence = (
    'what the primary sends to its standbys'      => [ \&standbys,  \&primary,   'tcp sport 5432' ],
    'what the standbys send to the primary'       => [ \&primary,   \&standbys,  'tcp dport 5432' ],
    'what the primary sends to the web hosts'     => [ \&webs,      \&primary,   'tcp sport 5432' ],
    'what the web hosts send to the primary'      => [ \&primary,   \&webs,      'tcp dport 5432' ],
    'what HAProxy sends to nginx'                 => [ \&webs,      \&webs,      'tcp sport 5000' ],
    'what Patroni answers to HAProxy'             => [ \&webs,      \&databases, 'tcp sport 8008' ],
    'what members of etcd send to its leader'     => [ \&etcd,      \&others,    'tcp dport 2380' ],
    'what the leader of etcd sends to the others' => [ \&others,    \&etcd,      'tcp sport 2380' ],
    'what etcd answers to Patroni elsewhere'      => [ \&databases, \&databases, 'tcp sport 2379' ],
);

my $cluster = Pgq::Cluster->new;

sub primary   { return $cluster->leader }
sub standbys  { return $cluster->standbys }
sub webs      { return map { $_->name } $cluster->webs }
sub databases { return map { $_->name } $cluster->databases }
sub etcd      { return $cluster->etcd_leader }
sub others    { my $leader = etcd(); return grep { $_ ne $leader } databases() }

sub silence {
    my ($deaf, $mute, $port) = @_;
    my @deaf = $deaf->();
    my @mute = $mute->();

    for my $host (@deaf) {
        my @them = grep { $_ ne $host } @mute;
        $cluster->partition($host, in => @them, "$port $data") if @them;
    }

    return @deaf;
}

# The postmaster starts others, which wait for the reply to SSLRequest: the primary gives them up before the silence ends.
sub end_walreceivers {
    $cluster->on($_, qw(pkill -TERM -f), 'postgres: .*walreceiver') for $cluster->standbys;
    return;
}

# ---- the standbys' connections, while they are opened: the reply to SSLRequest is lost

{
    my $test = Pgq::ClusterTest->new('WAL receivers that are opened in silence', allow => 'refused|unknown|read_failed|timeout');

    for (1 .. 3) {
        $test->round(sub {
            my @deaf = silence(@{ $silence{'what the primary sends to its standbys'} });
            end_walreceivers();
            $test->hold(18);
            $cluster->heal(@deaf);
            my $accepted = $test->accepted;
            ok((poll_until { $test->accepted > $accepted } timeout(20)), 'the network is whole again, and a message is accepted within seconds');
        });
    }

    $test->end;
}

# ---- each connection, open and in use

for my $name (sort keys %silence) {
    my $test = Pgq::ClusterTest->new($name, allow => 'refused|unknown|read_failed|timeout|closed|truncated|unreachable|reader .*');

    $test->round(sub {
        my @deaf = silence(@{ $silence{$name} });
        $test->hold(18);
        $cluster->heal(grep { !($cluster->on($_, qw(nft list table ip pgq_partition)))[0] } @deaf);
        my $accepted = $test->accepted;
        ok((poll_until { $test->accepted > $accepted } timeout(20)), "$name: the network is whole again, and a message is accepted within seconds");
    });

    $test->end;
}

done_testing;
