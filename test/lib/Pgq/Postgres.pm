package Pgq::Postgres;

# One private PostgreSQL server of a test: its cluster, its process, its log, and psql in it. PostgreSQL runs as the
# test's user, or as postgres when that is root. It listens on a unix socket, where the test's users are trusted, and
# on 127.0.0.1, where it asks for SCRAM. A cluster is made once in a run and copied from then on.
#
#   my $pg = Pgq::Postgres->new->start;                    ngx_pgq is preloaded; database posts with sql/install.sql
#   my $pg = Pgq::Postgres->new(bare => 1)->start;         an empty cluster
#   $pg->safe_psql('select …'); $pg->conninfo; $pg->stop('immediate');

use strict;
use warnings;

use parent 'Pgq::Log';

use Carp qw(croak);
use Exporter 'import';
use Fcntl qw(:flock);
use Time::HiRes ();

use Pgq::Host qw(
    top pg_bin pg_version temp_dir free_port is_root server_user worker_user
    run spawn alive descendants ended kill_all slurp spew sanitizer_environment reports
);
use Pgq::Session;
use Pgq::Wait qw(poll_until timeout);

our @instances;

my %signal = (smart => 'TERM', fast => 'INT', immediate => 'QUIT');


# Options: name, bare (no database posts), conf (lines for postgresql.conf), database (posts), preload (ngx_pgq),
# initdb (arguments, which forgo the copied cluster), valgrind (all its processes run under it), env (of its processes).
sub new {
    my ($class, %option) = @_;
    my $self = bless {
        name     => $option{name}     // 'postgres',
        database => $option{database} // 'posts',
        port     => free_port(),
        allow    => [],
        %option,
    }, $class;

    $self->{dir}    = temp_dir($self->{name});
    $self->{data}   = "$self->{dir}/data";
    $self->{log}    = "$self->{dir}/log";
    $self->{socket} = temp_dir("$self->{name}.s");

    $self->own($self->{dir});
    $self->own($self->{socket}, 0750, worker_user());

    if ($option{backup_of}) {
        $self->_back_up($option{backup_of});
    } elsif ($option{initdb}) {
        $self->_initdb($self->{data}, @{ $option{initdb} });
    } else {
        $self->_copy($option{bare} ? 'bare' : 'posts');
    }

    $self->_configure;
    push @instances, $self;

    return $self;
}


# Gives a file to the server's user.
sub own {
    my ($self, $file, $mode, $group) = @_;

    chown +(getpwnam server_user())[2], (getpwnam($group // server_user()))[3], $file if is_root();
    chmod $mode, $file if defined $mode;

    return $file;
}


sub name   { return $_[0]{name} }
sub data   { return $_[0]{data} }
sub port   { return $_[0]{port} }
sub socket { return $_[0]{socket} }
sub log    { return $_[0]{log} }
sub pid    { return $_[0]{pid} }


# ---- clusters

sub _initdb {
    my ($self, $data, @arguments) = @_;

    my ($status, $out, $err) = run(
        [
            pg_bin() . '/initdb', "--pgdata=$data", '--username=postgres', '--encoding=UTF8', '--locale=C.UTF-8',
            '--auth-local=trust', '--auth-host=scram-sha-256', '--data-checksums', '--wal-segsize=1', '--no-sync',
            @arguments,
        ],
        user => server_user(),
    );

    croak "initdb: $out$err" if $status;
}


# A copy of the cluster of that kind; the first who needs it makes it, the others wait. The cache is the run's, or
# this test's own when it is run alone.
sub _copy {
    my ($self, $kind) = @_;
    my $cache = $ENV{PGQ_CACHE} || ($self->{cache} = temp_dir('cache'));
    my $from  = "$cache/" . pg_version() . ".$kind";

    chmod 0755, $cache;
    open my $lock, '>', "$from.lock" or croak "$from.lock: $!";
    flock $lock, LOCK_EX or croak "$from.lock: $!";

    $self->_make_template($kind, $from) if !-d $from;
    close $lock;

    _do('cp', '-a', $from, $self->{data});
}


sub _make_template {
    my ($self, $kind, $from) = @_;

    if ($kind eq 'bare') {
        $self->_initdb($self->{data});
    } else {
        $self->_copy('bare');
        $self->_configure;
        $self->start;
        $self->install;
        $self->stop;
    }

    _do('mv', $self->{data}, $from);
    unlink $self->{log};
}


sub _do {
    my ($status, $out, $err) = run([@_]);

    croak "@_: $out$err" if $status;
}


# Database, extension, tables, roles and grants.
sub install {
    my ($self, $database) = @_;
    $database //= $self->{database};

    $self->safe_psql("create database $database", database => 'postgres')
        if $self->safe_psql("select count(*) from pg_database where datname = '$database'", database => 'postgres') eq '0';

    my ($status, $out, $err) = $self->psql(undef, database => $database, file => top() . '/sql/install.sql');
    croak "sql/install.sql: $err" if $status;

    return $self;
}


sub _configure {
    my ($self) = @_;
    my $preload = $self->{preload} // 'ngx_pgq';

    spew(
        "$self->{data}/pg_hba.conf",
        "local  all          all                trust\n",
        "local  replication  all                trust\n",
        "host   all          all  127.0.0.1/32  scram-sha-256\n",
    );

    my $text = slurp("$self->{data}/postgresql.conf");
    $text =~ s/^# ---- this test's.*//ms;
    spew("$self->{data}/postgresql.conf", $text, <<"END", $self->{conf} // '');
# ---- this test's
listen_addresses = '127.0.0.1'
port = $self->{port}
unix_socket_directories = '$self->{socket}'
max_connections = 100
shared_buffers = 64MB
max_wal_size = 1GB
fsync = off
wal_level = replica
max_wal_senders = 8
log_line_prefix = '%m [%p] %q%u@%d '
timezone = UTC
shared_preload_libraries = '$preload'
@{[ $preload =~ /ngx_pgq/ ? "ngx_pgq.databases = '$self->{database}'" : '' ]}
END
}


# Adds lines to postgresql.conf; they count at the next start or reload.
sub append_conf {
    my ($self, $lines) = @_;
    my $file = "$self->{data}/postgresql.conf";

    spew($file, slurp($file), "\n$lines\n");

    return $self;
}


# ---- the process

sub start {
    my ($self, %option) = @_;

    croak "$self->{name} is running" if $self->running;

    $self->{pid} = spawn(
        [ $self->_valgrind, pg_bin() . '/postgres', '-D', $self->{data} ],
        user  => server_user(),
        death => 'QUIT',
        out   => $self->{log},
        env   => { PGDATA => undef, sanitizer_environment($self->{dir}), %{ $self->{env} || {} } },
    );

    return $self if $option{no_wait};

    if (!$self->wait_ready) {
        return if $option{may_fail};
        croak "$self->{name} does not start:\n" . $self->log_since(0);
    }

    return $self;
}


# What it is started by, if it is to be watched. Whatever valgrind says is a complaint.
sub _valgrind {
    my ($self) = @_;

    return if !$self->{valgrind};

    mkdir "$self->{dir}/reports";
    chmod 01777, "$self->{dir}/reports";

    return (
        qw(valgrind --quiet --trace-children=yes --num-callers=25 --error-limit=no --leak-check=no),
        '--suppressions=' . top() . '/test/supp/postgres.valgrind', "--log-file=$self->{dir}/reports/valgrind.%p",
    );
}


# Waits until it takes connections; false when it does not, or is dead.
sub wait_ready {
    my ($self, $seconds) = @_;
    my $file = "$self->{data}/postmaster.pid";

    my $state = poll_until {
        return 'dead' if !$self->running;
        return '' if !-s $file;
        my @line = split /\n/, slurp($file);
        return ($line[0] // 0) == $self->{pid} && ($line[7] // '') =~ /^(?:ready|standby)/ ? 'ready' : '';
    } $seconds // 60;

    return $state eq 'ready';
}


sub running {
    my ($self) = @_;

    return $self->{pid} && alive($self->{pid});
}


# Stops it: smart, fast (default) or immediate. All its processes have to go.
sub stop {
    my ($self, $mode, $seconds) = @_;
    $mode //= 'fast';

    return $self if !$self->{pid};

    my $pid   = $self->{pid};
    my @pids  = descendants($pid);

    kill $signal{$mode} // croak("no mode $mode"), $pid;

    my $status = ended($pid, $seconds // 60);

    if (!defined $status) {
        $self->{stuck} = "$self->{name} does not stop ($mode)";
        kill_all('KILL', $pid, @pids);
        waitpid $pid, 0;
    }

    $self->_reap(@pids);

    return $self;
}


# As if the machine had lost it: the postmaster is killed, and its children go by themselves or are killed, too.
sub kill9 {
    my ($self) = @_;
    my @pids = descendants($self->{pid});

    kill 'KILL', $self->{pid};
    ended($self->{pid}, 30);
    $self->_reap(@pids);

    return $self;
}


sub _reap {
    my ($self, @pids) = @_;

    delete $self->{pid};

    return if poll_until { !grep { alive($_) } @pids } 10;

    $self->{left} = "$self->{name} left processes behind: @{[ grep { alive($_) } @pids ]}";
    kill_all('KILL', @pids);
}


sub restart {
    my ($self, $mode) = @_;

    return $self->stop($mode)->start;
}


sub reload {
    my ($self) = @_;

    kill 'HUP', $self->{pid};

    return $self;
}


sub promote {
    my ($self) = @_;

    $self->safe_psql('select pg_promote(true, 60)', database => 'postgres') eq 't'
        or croak "$self->{name} was not promoted";

    return $self;
}


# A streaming standby of this server, not started yet. Options as for new.
sub standby {
    my ($self, %option) = @_;

    return Pgq::Postgres->new(name => 'standby', %option, backup_of => $self);
}


sub _back_up {
    my ($self, $primary) = @_;

    my ($status, $out, $err) = run(
        [
            pg_bin() . '/pg_basebackup', '-D', $self->{data}, '-h', $primary->{socket}, '-p', $primary->{port},
            '-U', 'postgres', '--checkpoint=fast', '--no-sync', '-X', 'stream', '-R',
        ],
        user => server_user(),
    );

    croak "pg_basebackup: $err" if $status;
}


# ---- asking it

# Options: user (postgres), database (posts), tcp, password.
sub conninfo {
    my ($self, %option) = @_;
    my $host = $option{tcp} ? '127.0.0.1' : $self->{socket};

    return "host=$host port=$self->{port} dbname=" . ($option{database} // $self->{database})
        . ' user=' . ($option{user} // 'postgres')
        . (defined $option{password} ? " password=$option{password}" : '');
}


# Gives a role a password of this run's own and returns it.
sub set_password {
    my ($self, $role) = @_;
    my $password = join '', map { ('a' .. 'z', 0 .. 9)[ rand 36 ] } 1 .. 24;

    $self->safe_psql("alter role $role password '$password'");

    return $password;
}


# Runs SQL (or a file): (exit status, output, error output). 3 is psql's status for an SQL error.
sub psql {
    my ($self, $sql, %option) = @_;
    my @command = (
        pg_bin() . '/psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $self->conninfo(%option),
        defined $option{file} ? ('-f', $option{file}) : ('-f', '-'),
    );

    my ($status, $out, $err) = run(
        \@command,
        in      => $sql,
        env     => { (map { $_ => undef } grep { /^PG(?!Q_|VERSION)/ } keys %ENV), %{ $option{env} || {} } },
        timeout => $option{timeout},
    );

    $out =~ s/\n\z//;

    return ($status, $out, $err);
}


# Runs SQL that must succeed; its output.
sub safe_psql {
    my ($self, $sql, %option) = @_;
    my ($status, $out, $err) = $self->psql($sql, %option);

    croak "psql: status $status\n$err\nin: " . ($sql // $option{file}) if $status;

    return $out;
}


# An open psql session: see Pgq::Session.
sub session {
    my ($self, %option) = @_;

    return Pgq::Session->new(pg_bin() . '/psql', $self->conninfo(%option));
}


# From now on commits wait for standbys of these names, of which none is there, or ('') for none. The checkpointer, which
# reads its settings when it gets to it, has the say: so a commit is tried until one waits, or none does.
sub commits_wait_for {
    my ($self, $names) = @_;
    my @local   = (env => { PGOPTIONS => '-c synchronous_commit=local' }, database => 'postgres');
    my $session = $self->session(database => 'postgres');
    my $pid     = $session->query('select pg_backend_pid()');
    my $is      = '';

    $self->safe_psql("alter system set synchronous_standby_names = '$names'; select pg_reload_conf()", @local);

    my $good = poll_until {
        $session->send("select pg_logical_emit_message(true, '', '')");
        poll_until {
            $is = $self->safe_psql("select case when wait_event = 'SyncRep' then 'waits' when state = 'idle' then 'ended' end
                 from pg_stat_activity where pid = $pid and query ~ 'emit_message'", @local);
            return $is;
        };
        $self->safe_psql("select pg_cancel_backend($pid)", @local) if $is eq 'waits';
        $session->result;
        return $is eq ($names eq '' ? 'ended' : 'waits');
    } 30;

    $session->quit;

    return $good && $self->poll_query_until('show synchronous_standby_names', $names, 30, @local);
}


# Asks again and again until the answer is the expected one ('t'); false when the time is over.
sub poll_query_until {
    my ($self, $sql, $expected, $seconds, %option) = @_;
    $expected //= 't';
    my $last = '';

    my $good = poll_until {
        my ($status, $out, $err) = $self->psql($sql, %option);
        $last = $status ? $err : $out;
        return !$status && $out eq $expected;
    } $seconds // 30;

    Test::More::diag("$sql\nexpected: $expected\nlast seen: $last") if !$good;

    return $good;
}


# What this server did wrong, if anything: called when the test ends and the server is stopped.
sub complaints {
    my ($self) = @_;
    my @complaints = grep { defined } @$self{qw(stuck left)};

    push @complaints, map { "$self->{name}: $_" } $self->log_complaints(
        qr/\bPANIC:|TRAP:|terminated by signal (?:4|6|7|8|11):|AddressSanitizer|runtime error:/,
    );

    return @complaints, reports($self->{name}, $self->{dir});
}


1;
