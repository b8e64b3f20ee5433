package Server;

# The PostgreSQL of a measuring script: its settings, and the wait for an empty queue. An nginx without the module.

use strict;
use warnings;

use Exporter 'import';

use Pgq::Host qw(is_root worker_user);
use Pgq::Nginx;
use Pgq::Postgres;
use Pgq::Wait qw(poll_until);

our @EXPORT_OK = qw(start_postgres wait_until_drained other_nginx);


# Starts a server with this number of movers and these further settings. No checkpoint begins by itself during a measurement.
sub start_postgres {
    my ($movers, $conf) = @_;

    return Pgq::Postgres->new(conf => <<"END" . ($conf // '') . "\n")->start;
fsync = on
synchronous_commit = on
shared_buffers = 512MB
max_wal_size = 8GB
min_wal_size = 4GB
checkpoint_timeout = 30min
ngx_pgq.movers = $movers
END
}


sub wait_until_drained {
    my ($pg) = @_;

    poll_until { $pg->safe_psql('select not exists (select from ngx_pgq.queue)') eq 't' } 600
        or die "the queue does not drain\n";

    return;
}


# Returns an nginx with other modules, by their names, that is not started. Options: name, modules, workers, connections, listen
# (parameters), http and locations (lines).
sub other_nginx {
    my (%option) = @_;
    my $user    = is_root() ? 'user ' . worker_user() . ';' : '';
    my $modules = join "\n", map { "load_module /usr/lib/nginx/modules/$_.so;" } @{ $option{modules} || [] };

    return Pgq::Nginx->new(name => $option{name}, workers => $option{workers}, config => <<"END");
$user
worker_processes $option{workers};
worker_rlimit_nofile $option{connections};
pid %%PREFIX%%/nginx.pid;
error_log %%PREFIX%%/error.log notice;
$modules

events { worker_connections $option{connections}; }

http {
    access_log off;
    client_body_temp_path %%PREFIX%%/temp/body;
    proxy_temp_path %%PREFIX%%/temp/proxy;
    fastcgi_temp_path %%PREFIX%%/temp/fastcgi;
    uwsgi_temp_path %%PREFIX%%/temp/uwsgi;
    scgi_temp_path %%PREFIX%%/temp/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    @{[ $option{http} // '' ]}

    server {
        listen 127.0.0.1:%%PORT%% backlog=4096 @{[ $option{listen} // '' ]};
        @{[ $option{locations} // '' ]}
    }
}
END
}


1;
