# After the restore of an older dump, raise_ids keeps pages with lost posts from being shown under the ids of new ones.

use Pgq;

my $pg       = Pgq::Postgres->new->start;
my $conninfo = $pg->conninfo(user => 'ngx_pgq_web');
my $app      = Pgq::Nginx->new(name => 'app', conninfo => $conninfo)->start;
my $web      = Pgq::Nginx->new(
    name      => 'web',
    conninfo  => $conninfo,
    ring      => 'posts=100 poll=200ms',
    http      => 'proxy_cache_path %%PREFIX%%/cache keys_zone=pages:1m;',
    locations => 'location = /page { proxy_pass http://127.0.0.1:' . $app->port . '/get; proxy_cache pages; proxy_cache_valid 200 1h;'
        . ' proxy_ignore_headers Cache-Control; proxy_cache_key $pgq_version; }'
        . ' location = /version { return 200 $pgq_version; }',
)->start;
my $dump  = $web->dir . '/dump';
my ($bin) = reverse sort glob '/usr/lib/postgresql/*/bin';

sub get { return Pgq::Client->new($web)->get($_[0])->body }

sub post {
    my ($text) = @_;

    $pg->safe_psql(qq{insert into ngx_pgq.queue (data) values ('"$text"')});
    $pg->wait_until_moved;
    my $id = $pg->safe_psql('select max(id) from posts');
    ok((poll_until { get('/version') =~ /-$id$/ }), "the host knows a post: $text");
    return;
}

sub run {
    my ($name, @command) = @_;
    my ($status, undef, $error) = Pgq::Host::run(\@command);

    is($status, 0, $name) or diag $error;
    return;
}

post('kept');
run('a dump is made', "$bin/pg_dump", '-Fc', '-f', $dump, $pg->conninfo);
post('lost');
like(get('/page'), qr/"lost"/, 'a page with a later post is cached');

$_->stop for $web, $app;
(my $postgres = $pg->conninfo) =~ s/dbname=posts/dbname=postgres/;
run("$_ database", "$bin/psql", '-XAtqw', '-d', $postgres, '-c', "$_ database posts" . ($_ eq 'drop' ? ' with (force)' : '')) for 'drop', 'create';
run('the dump is restored', "$bin/pg_restore", '-d', $pg->conninfo, $dump);
run('the next id is raised', Pgq::Host::top() . '/patroni/raise_ids', $pg->conninfo);
$_->start for $app, $web;

post('new');
like(get('/page'), qr/"new".*"kept"/, 'the page of the new post is made again');

done_testing;
