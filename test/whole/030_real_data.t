# Real data: every entry of the JSON files of the package iso-codes (languages, scripts, countries and their parts,
# currencies) is sent concurrently, half of them with \u escapes. posts and GET are compared with the source.

use Pgq;

use JSON::PP ();

my $raw     = JSON::PP->new->utf8->canonical;
my $escaped = JSON::PP->new->ascii->canonical;

my @files = grep { !m{/schema-} } glob '/usr/share/iso-codes/json/*.json';
cmp_ok(scalar @files, '>=', 7, 'iso-codes is installed');

# Each entry has the name of its file, so that equal entries of two files differ.
my (@bodies, %source);

for my $file (@files) {
    my ($name) = $file =~ m{([^/]+)\.json$};

    my $content = JSON::PP->new->utf8->decode(Pgq::Host::slurp($file));
    my ($list) = values %$content;

    for my $entry (@$list) {
        my $message = { from => $name, entry => $entry };
        $source{ $raw->encode($message) }++;
        push @bodies, @bodies % 2 ? $escaped->encode($message) : $raw->encode($message);
    }
}

cmp_ok(scalar @bodies, '>', 10_000, 'the files have more than 10,000 entries');

my $pg    = Pgq::Postgres->new(conf => 'ngx_pgq.movers = 2')->start;
my $nginx = Pgq::Nginx->new(pg => $pg, workers => 2)->start;
my $file  = Pgq::Host::spew(Pgq::Host::temp_dir('bodies') . '/bodies', map { "$_\n" } @bodies);

my ($status, $out, $err) = Pgq::Host::run([
    Pgq::Host::build_dir() . '/bench/pgq_load', '--quiet', '--connections', 32, '--messages', 0, '--bodies', $file, '--once',
    '--all-ok', '--check', $pg->conninfo, $nginx->url('/post'),
]);

is($status, 0, 'the load client finds each message once and unaltered') or diag("$out$err");
like($out, qr/^result ok @{[ scalar @bodies ]}$/m, 'all entries are accepted');

my %posts;

for my $line (split /\n/, $pg->safe_psql('select data from posts')) {
    $posts{ $raw->encode($raw->decode($line)) }++;
}

is(scalar(grep { !$posts{$_} } keys %source), 0, 'no entry is missing from posts');
is(scalar(grep { !$source{$_} } keys %posts), 0, 'posts has nothing but entries');
is(scalar(grep { ($posts{$_} // 0) != $source{$_} } keys %source), 0, 'each entry is in posts as often as in the source');

my %sent = map { $_ => 1 } @bodies;
my ($before, $seen, $altered) = ('', 0, 0);

while (1) {
    my $body = Pgq::Client->new($nginx)->get("/get?limit=1000$before")->{body};
    my @ids  = $body =~ /\{"id":(\d+),"data":/g;
    last if !@ids;

    my @data = $body =~ /\{"id":\d+,"data":(.*?),"at":"\d{4}-\d\d-\d\dT[\d:.]+Z"\}/g;
    $seen    += @data;
    $altered += grep { !$sent{$_} } @data;
    $before   = "&before=$ids[-1]";
}

is($seen, scalar @bodies, 'GET returns all entries, page by page');
is($altered, 0, 'GET returns each entry with the bytes that were sent');

is($pg->safe_psql(q{select data->'entry'->>'name' from posts where data->>'from' = 'iso_3166-1' and data->'entry'->>'alpha_3' = 'CIV'}),
    "C\xc3\xb4te d'Ivoire", 'SQL reads an entry as JSON');

done_testing;
