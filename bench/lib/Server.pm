package Server;

# The PostgreSQL of a measuring script: its settings, and the wait for an empty queue.

use strict;
use warnings;

use Exporter 'import';

use Pgq::Postgres;
use Pgq::Wait qw(poll_until);

our @EXPORT_OK = qw(start_postgres wait_until_drained);


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


1;
