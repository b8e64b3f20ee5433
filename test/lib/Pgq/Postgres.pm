package Pgq::Postgres;

# A private PostgreSQL server of a test: its cluster, its process, its log, and psql. PostgreSQL runs as the test's user, or as
# postgres when that is root. It listens on a unix socket, which trusts the test's users, and on 127.0.0.1, with SCRAM. The
# cluster is initialized once in a run and then copied.
#
#   my $pg = Pgq::Postgres->new->start;                    ngx_pgq is preloaded; database posts with sql/install.sql
#   my $pg = Pgq::Postgres->new(bare => 1)->start;         an empty cluster
#   $pg->safe_psql('select …'); $pg->conninfo; $pg->stop('immediate');

use strict;
use warnings;

use parent 'Pgq::Server';

use Carp qw(croak);
use Fcntl qw(:flock);

use Pgq::Host qw(
    top pg_bin pg_version temp_dir free_port is_root server_user worker_user
    run spawn slurp spew sanitizer_environment reports
);
use Pgq::Session;
use Pgq::Wait qw(poll_until);

our @instances;

my %signal = (smart => 'TERM', fast => 'INT', immediate => 'QUIT');


# Options: name, bare (no database posts), conf (lines for postgresql.conf), database (posts), preload (ngx_pgq),
# initdb (arguments, instead of a copied cluster), valgrind (for all its processes), env (of its processes).
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


# Copies the template cluster of this kind. The first test that needs it creates it, others wait. A test that is run alone
# has its own cache.
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


# Creates a database with the extension, tables, roles and grants.
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


# Adds lines to postgresql.conf, which apply after the next start or reload.
sub append_conf {
    my ($self, $lines) = @_;
    my $file = "$self->{data}/postgresql.conf";

    spew($file, slurp($file), "\n$lines\n");

    return $self;
}


# ---- the process

sub start {
    my ($self) = @_;

    croak "$self->{name} is running" if $self->running;

    $self->{pid} = spawn(
        [ $self->_valgrind, pg_bin() . '/postgres', '-D', $self->{data} ],
        user  => server_user(),
        death => 'QUIT',
        out   => $self->{log},
        env   => { PGDATA => undef, sanitizer_environment($self->{dir}), %{ $self->{env} || {} } },
    );

    $self->wait_ready or croak "$self->{name} does not start:\n" . $self->log_since(0);

    return $self;
}


# The command of valgrind, with the option valgrind. Each report of valgrind fails the test.
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


# Waits until it accepts connections; false when it ends or at the deadline.
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


# Stops it: smart, fast (default) or immediate. All of its processes have to end.
sub stop {
    my ($self, $mode, $seconds) = @_;
    $mode //= 'fast';

    $self->end_by($signal{$mode} // croak("no mode $mode"), $seconds // 60) if $self->{pid};

    return $self;
}


# Kills the postmaster. The other processes have to end by themselves.
sub kill9 {
    my ($self) = @_;

    $self->end_by('KILL', 30);

    return $self;
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


# Creates a streaming standby of this server and does not start it. Options as for new.
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


# ---- SQL

# Options: user (postgres), database (posts), tcp, password.
sub conninfo {
    my ($self, %option) = @_;
    my $host = $option{tcp} ? '127.0.0.1' : $self->{socket};

    return "host=$host port=$self->{port} dbname=" . ($option{database} // $self->{database})
        . ' user=' . ($option{user} // 'postgres')
        . (defined $option{password} ? " password=$option{password}" : '');
}


# Gives a role a random password and returns it.
sub set_password {
    my ($self, $role) = @_;
    my $password = join '', map { ('a' .. 'z', 0 .. 9)[ rand 36 ] } 1 .. 24;

    $self->safe_psql("alter role $role password '$password'");

    return $password;
}


# Runs SQL or a file. Returns exit status, output and error output. The status of an SQL error is 3.
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


# Runs SQL that must succeed and returns its output.
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


# Locks tables, by default one that enqueue() needs, until release() of the session that is returned.
sub lock_table {
    my ($self, $tables) = @_;
    my $session = $self->session;

    $session->query('begin; lock table ' . ($tables // 'ngx_pgq.batch'));

    return $session;
}


# Lets a mover that inserts this message into posts wait while a session holds the advisory lock 42.
sub hold_message {
    my ($self, $message) = @_;

    return $self->safe_psql(qq{
        create function hold_message() returns trigger language plpgsql as \$\$
        begin
            if new.data::text = '"$message"' then
                perform pg_advisory_xact_lock(42);
            end if;
            return null;
        end \$\$;
        create trigger hold_message after insert on posts for each row execute function hold_message();
        alter function hold_message() owner to ngx_pgq_owner;
    });
}


# Waits until this number of movers wait for a lock.
sub wait_for_movers {
    my ($self, $count) = @_;

    return $self->poll_query_until(
        "select count(*) from pg_stat_activity where backend_type = 'ngx_pgq mover' and wait_event_type = 'Lock'", $count);
}


# Waits until this many sessions of nginx, by default one, wait for a lock.
sub wait_for_lock {
    my ($self, $count) = @_;
    $count //= 1;

    return $self->poll_query_until(
        "select count(*) >= $count from pg_stat_activity where usename = 'ngx_pgq_web' and wait_event_type = 'Lock'",
    );
}


# Waits until no message is in the queue: each one is a post or a dead letter.
sub wait_until_moved {
    my ($self) = @_;

    return $self->poll_query_until('select count(*) from ngx_pgq.queue', 0);
}


# The number of posts whose data match a pattern of LIKE, after all messages are moved.
sub count_posts {
    my ($self, $pattern) = @_;
    $pattern //= '%';

    $self->wait_until_moved;

    return $self->safe_psql("select count(*) from posts where data::text like \$\$$pattern\$\$ escape ''");
}


# The process IDs of nginx's sessions.
sub web_sessions {
    my ($self) = @_;

    return split ' ', $self->safe_psql("select string_agg(pid::text, ' ' order by pid) from pg_stat_activity where usename = 'ngx_pgq_web'");
}


sub terminate_web_sessions {
    my ($self) = @_;

    $self->safe_psql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'ngx_pgq_web'");

    return;
}


# Changes settings, or resets those whose value is undef, and reloads the configuration. Processes apply it a moment later.
sub set {
    my ($self, %setting) = @_;

    for my $name (sort keys %setting) {
        my $value = $setting{$name};
        $self->safe_psql('alter system ' . (defined $value ? "set $name = '$value'" : "reset $name"));
    }

    return $self->reload;
}


# Starts pgbench with one SQL command and returns its pid. Its files are NAME.sql, NAME.out and NAME.err.
sub pgbench {
    my ($self, $name, $sql, @options) = @_;

    spew("$name.sql", $sql =~ s/\s+/ /gr, ";\n");

    return spawn(
        [ pg_bin() . '/pgbench', '-n', '-h', $self->{socket}, '-p', $self->{port}, '-U', 'postgres', '-f', "$name.sql", @options, $self->{database} ],
        out => "$name.out", err => "$name.err",
    );
}


# Makes commits wait for standbys of these names, none of which exists, or for none (''). The setting applies when the
# checkpointer has read it: so commits are tried until one waits or none does.
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


# Repeats a query until its result is the expected one ('t'); false at the deadline.
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


# What fails the test at its end, after the server is stopped.
sub complaints {
    my ($self) = @_;
    my @complaints = grep { defined } @$self{qw(stuck left)};

    push @complaints, map { "$self->{name}: $_" } $self->log_complaints(
        qr/\bPANIC:|TRAP:|terminated by signal (?:4|6|7|8|11):|AddressSanitizer|runtime error:/,
    );

    return @complaints, reports($self->{name}, $self->{dir});
}


1;
