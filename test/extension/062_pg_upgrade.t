# pg_upgrade keeps the messages of the queue. The newer server moves each of them once, and their posts have greater ids
# than the old posts. The test needs two versions of PostgreSQL with their development packages.

use Pgq;

my $own   = Pgq::Host::pg_version();
my $other = (sort { $b <=> $a } grep { $_ != $own && $_ >= 15 && $_ <= 17 && buildable($_) }
        map { m{/(\d+)/bin/postgres$} ? $1 : () } glob '/usr/lib/postgresql/*/bin/postgres')[0];

# Whether the extension can be built for this version.
sub buildable {
    my ($version) = @_;
    my $config = "/usr/lib/postgresql/$version/bin/pg_config";
    return -x $config && -f (`$config --includedir-server` =~ s/\n//r) . '/postgres.h';
}

plan(skip_all => "instrumented servers cannot be run by pg_upgrade") if $ENV{PGQ_SANITIZE};
plan(skip_all => "PostgreSQL $own is the only version here that ngx_pgq can be built for") if !$other;

# This test builds the extension for the other version.
my %build = ($own => Pgq::Host::build_dir(), $other => Pgq::Host::temp_dir('build'));
my ($old, $new) = sort { $a <=> $b } $own, $other;

# Runs code with this version of PostgreSQL.
sub with {
    my ($version, $code) = @_;
    local $ENV{PGVERSION} = $version;
    local $ENV{PGQ_BUILD} = $build{$version};
    return $code->();
}

my ($status, $out, $err) = with($other, sub {
    Pgq::Host::run([ 'make', '-s', '-C', Pgq::Host::top(), '-f', 'provision/build.mk', "BUILD=$build{$other}", 'private' ], env => { MAKEFLAGS => undef });
});
is($status, 0, "the extension is built for PostgreSQL $other") or diag($out, $err);

# the old server, with messages in the queue
my $from = with($old, sub { Pgq::Postgres->new(name => 'old')->start });
$from->safe_psql(q{alter table posts add constraint no_bad check (data::text <> '"bad"')});
$from->safe_psql(q{insert into ngx_pgq.queue (data) select to_json('moved ' || n) from generate_series(1, 1000) as n});
$from->safe_psql(q{insert into ngx_pgq.queue (data) values ('"bad"')});
with($old, sub {
    ok($from->poll_query_until('select (select count(*) from posts), (select count(*) from ngx_pgq.dead_letter)', '1000|1'),
        "PostgreSQL $old has posts and a dead letter");
    $from->safe_psql('select ngx_pgq.pause()');
    $from->safe_psql(q{insert into ngx_pgq.queue (slot, data) select n % 4, to_json('waits ' || n) from generate_series(1, 3000) as n});
    is($from->safe_psql(q{select count(*) from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"waits, too"'])}), 0, "PostgreSQL $old has messages in the queue");
});
my $messages = 'select message_id, at, data::text from ngx_pgq.queue';
my $posts    = 'select id, message_id, at, data::text from posts';
my ($waiting, $posted) = with($old, sub { map { $from->safe_psql("$_ order by message_id") } $messages, $posts });
with($old, sub { $from->stop });

# pg_upgrade
my $to  = with($new, sub { Pgq::Postgres->new(name => 'new', bare => 1) });
my $dir = $to->own(Pgq::Host::temp_dir('w'));
my ($old_bin, $new_bin) = map { with($_, \&Pgq::Host::pg_bin) } $old, $new;
($status, $out, $err) = Pgq::Host::run(
    [
        "$new_bin/pg_upgrade", '--old-bindir', $old_bin, '--new-bindir', $new_bin, '--old-datadir', $from->data, '--new-datadir', $to->data,
        '--username', 'postgres', '--socketdir', $dir, '--old-port', Pgq::Host::free_port(), '--new-port', Pgq::Host::free_port(),
    ],
    user => Pgq::Host::server_user(), cwd => $dir, env => { map { $_ => undef } grep { /^PG/ } keys %ENV },
);
is($status, 0, "pg_upgrade to PostgreSQL $new succeeds") or diag($out, $err);

with($new, sub {
    $to->start;
    is($to->safe_psql("select current_setting('server_version_num')::integer / 10000"), $new, 'the new server runs');
    ok($to->wait_until_moved, 'the messages of the queue are moved');
    is($to->safe_psql("$posts where id <= 1001 order by message_id"), $posted, 'the old posts are unchanged');
    is($to->safe_psql('select message_id, at, data::text from posts where id > 1001 order by message_id'), $waiting,
        'each message of the queue becomes one post with a greater id than the old posts');
    is($to->safe_psql('select data from ngx_pgq.dead_letter'), '"bad"', 'the dead letter is kept');

    $to->safe_psql('alter table posts drop constraint no_bad; select ngx_pgq.retry_all()');
    $to->safe_psql(q{select * from ngx_pgq.enqueue(gen_random_uuid(), array[gen_random_uuid()], array['"new"'])});
    ok($to->poll_query_until(q{select count(*) from posts where data::text in ('"bad"', '"new"')}, 2), 'a retried dead letter and a new message become posts');
    $to->install;
    is($to->safe_psql("select extversion = default_version from pg_extension join pg_available_extensions on name = extname where extname = 'ngx_pgq'"), 't',
        'the extension has the default version');
    $to->stop;
});

done_testing;
