package Pgq::Nginx;

# A private nginx of a test, with the module: its configuration, its processes, its error log. It runs in the foreground as a
# child of the test, so that its exit status is known. At the end of the test it quits gracefully, and so reports connections
# that were left open. An nginx that is to be upgraded has to be a daemon; the test then adopts its processes.
#
#   my $nginx = Pgq::Nginx->new(pg => $pg)->start;              /post and /get on a free port
#   my $nginx = Pgq::Nginx->new(conninfo => '…', pool => 'lanes=1 tickets=4', workers => 2, locations => '…');
#   $nginx->url('/post'); $nginx->reload; $nginx->log_contains(qr/…/);

use strict;
use warnings;

use parent 'Pgq::Server';

use Carp qw(croak);
use IO::Socket::INET;

use Pgq::Host qw(
    top module_path temp_dir free_port is_root worker_user
    spawn alive descendants ended kill_all adopt_orphans slurp spew sanitizer_environment reports
);
use Pgq::Wait qw(poll_until);

our @instances;

my $endpoints = <<'END';
error_page 400 404 405 408 411 412 413 414 421 500 501 502 503 504 505 /problem;
error_page 494 =431 /problem;

        location = /post { pgq_post main; }
        location = /get  { pgq_get main; }
        location / { return 404; }
        location = /problem { internal; pgq_problem; }
END


# Options, all with a default:
#   pg (a Pgq::Postgres), user (ngx_pgq_web), conninfo (that of pg)       the server of the pool main
#   pool      further parameters of pgq_pool; pools: whole lines instead of it
#   ring      parameters of pgq_ring for this pool, '' for none; undef: no ring
#   timeout   pgq_timeout
#   workers (1), connections (1024, of a worker), master (on), daemon (off), log_level (info), env (a hash)
#   main, events, http, server, locations     lines for these places
#   endpoints lines instead of the server's error_page and its locations /post, /get, / and /problem
#   listen    parameters of the listen directive; config: the whole text, with %%PORT%%, %%PREFIX%%, %%HEAD%% replaced
sub new {
    my ($class, %option) = @_;
    my $self = bless {
        name        => 'nginx',
        workers     => 1,
        connections => 1024,
        master      => 'on',
        daemon      => 'off',
        log_level   => 'info',
        port        => free_port(),
        allow       => [],
        %option,
    }, $class;

    $self->{dir} = temp_dir($self->{name});
    $self->{conninfo} //= $self->{pg} ? $self->{pg}->conninfo(user => $self->{user} // 'ngx_pgq_web') : '';

    for my $name ('', qw(/body /proxy /fastcgi /uwsgi /scgi)) {
        mkdir "$self->{dir}/temp$name", 0755;
    }

    if (is_root()) {
        my (undef, undef, $uid, $gid) = getpwnam worker_user();
        chown $uid, $gid, glob "$self->{dir}/temp/*";
    }

    $self->configure;
    push @instances, $self;

    return $self;
}


sub dir   { return $_[0]{dir} }
sub port  { return $_[0]{port} }
sub log   { return "$_[0]{dir}/error.log" }

# How HTTP/2 without TLS is enabled: a parameter of listen, or a line of the server since 1.25.
sub http2 { return `/usr/sbin/nginx -v 2>&1` =~ m{nginx/1\.2[0-4]\.} ? (listen => 'http2') : (server => 'http2 on;') }

sub url   { return "http://127.0.0.1:$_[0]{port}" . ($_[1] // '') }
sub lanes { return ($_[0]{pool} // '') =~ /\blanes=(\d+)/ ? $1 : 2 }
sub read_lanes { return ($_[0]{pool} // '') =~ /\bread_lanes=(\d+)/ ? $1 : 1 }


# Writes nginx.conf, with changed options if there are any, which apply after the next start or reload.
sub configure {
    my ($self, %option) = @_;
    %$self = (%$self, %option);

    my %text = (
        HEAD   => $self->_head,
        PREFIX => $self->{dir},
        PORT   => $self->{port},
    );

    my $config = $self->{config} // $self->_config;
    $config =~ s/%%(\w+)%%/$text{$1} \/\/ croak "no %%$1%%"/ge;
    spew("$self->{dir}/nginx.conf", $config);

    return $self;
}


sub _head {
    my ($self) = @_;
    my $user = is_root() ? 'user ' . worker_user() . ';' : '';
    my $dir  = $self->{dir};

    return <<"END";
$user
master_process $self->{master};
worker_processes $self->{workers};
pid $dir/nginx.pid;
error_log $dir/error.log $self->{log_level};
load_module @{[ module_path() ]};
@{[ $self->{main} // '' ]}

events {
    worker_connections $self->{connections};
    @{[ $self->{events} // '' ]}
}
END
}


sub _config {
    my ($self) = @_;
    my $pools = $self->{pools} // qq{pgq_pool main "$self->{conninfo}" @{[ $self->{pool} // '' ]};};
    my $ring  = defined $self->{ring} ? "pgq_ring main $self->{ring};" : '';
    my $dir   = $self->{dir};
    my $wait  = $self->{timeout} ? "pgq_timeout $self->{timeout};" : '';
    my $endpoints = $self->{endpoints} // $endpoints;

    return <<"END";
%%HEAD%%

http {
    access_log $dir/access.log;
    client_body_temp_path $dir/temp/body;
    proxy_temp_path $dir/temp/proxy;
    fastcgi_temp_path $dir/temp/fastcgi;
    uwsgi_temp_path $dir/temp/uwsgi;
    scgi_temp_path $dir/temp/scgi;

    $pools
    $ring
    $wait
    @{[ $self->{http} // '' ]}

    server {
        listen 127.0.0.1:%%PORT%% @{[ $self->{listen} // '' ]};
        $endpoints
        @{[ $self->{locations} // '' ]}
        @{[ $self->{server} // '' ]}
    }
}
END
}


# ---- the processes

sub _command {
    my ($self) = @_;
    my @nginx = (
        '/usr/sbin/nginx', '-p', $self->{dir}, '-c', "$self->{dir}/nginx.conf", '-e', "$self->{dir}/error.log",
        '-g', "daemon $self->{daemon};",
    );

    return @nginx if !$ENV{PGQ_VALGRIND};

    mkdir "$self->{dir}/reports";

    return (
        'valgrind', '--quiet', '--keep-debuginfo=yes', '--error-exitcode=99', '--leak-check=full', '--show-leak-kinds=definite',
        '--errors-for-leak-kinds=definite', '--num-callers=30', "--log-file=$self->{dir}/reports/valgrind.%p",
        (map { "--suppressions=$_" } glob top() . '/test/supp/*.valgrind'), @nginx,
    );
}


# Starts it and waits until it accepts connections.
sub start {
    my ($self) = @_;

    croak "$self->{name} is running" if $self->running;

    adopt_orphans() if $self->{daemon} eq 'on';

    $self->{pid} = spawn(
        [ $self->_command ],
        out => "$self->{dir}/output",
        env => { sanitizer_environment($self->{dir}), %{ $self->{env} || {} } },
    );

    if ($self->{daemon} eq 'on') {
        ended($self->{pid}, 30);
        $self->{pid} = $self->_pid_file;
    }

    my $state = poll_until {
        return 'dead' if !$self->running;
        return $self->_connects && ($self->{master} eq 'off' || $self->worker_pids == $self->{workers}) ? 'ready' : '';
    } 30;

    if ($state ne 'ready') {
        $self->stop('TERM');
        croak "$self->{name} does not start:\n" . $self->output . $self->log_since(0);
    }

    return $self;
}


sub _connects {
    my ($self) = @_;

    return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 1);
}


# Runs nginx -t. Returns its exit status and output.
sub test {
    my ($self) = @_;

    my ($status, $out, $err) = Pgq::Host::run([
        '/usr/sbin/nginx', '-t', '-p', $self->{dir}, '-c', "$self->{dir}/nginx.conf", '-e', "$self->{dir}/test.log",
    ], env => { sanitizer_environment($self->{dir}), %{ $self->{env} || {} } });

    return ($status, $out . $err);
}


# Without the manager and the loader of a cache, which are children of the master, too. The log names them: under valgrind
# the titles of processes do not.
sub worker_pids {
    my ($self) = @_;

    return $self->{pid} if $self->{master} eq 'off';

    my %cache = map { $_ => 1 } $self->log_since(0) =~ /start cache \w+ process (\d+)/g;

    return grep { !$cache{$_} } descendants($self->{pid});
}


# Ends it by a signal: QUIT (gracefully) or TERM. Returns its exit status; undef when it had to be killed after this many seconds.
sub stop {
    my ($self, $signal, $seconds) = @_;
    $signal //= 'QUIT';
    $self->{leaked} //= $self->leaked_connections if $signal eq 'QUIT' && $self->running;

    return 0 if !$self->{pid};

    my $status = $self->end_by($signal, $seconds // 20);
    $self->{status} = $status if $status;

    return $status;
}


# Kills master and workers.
sub kill9 {
    my ($self) = @_;
    my $pid = delete $self->{pid};
    my @pids = descendants($pid);

    kill 'KILL', $pid, @pids;
    ended($pid, 10);
    kill_all('KILL', @pids);

    return $self;
}


# Reloads the configuration; true when the new workers run and the old ones have ended or are shutting down.
sub reload {
    my ($self) = @_;
    my %old = map { $_ => 1 } $self->worker_pids;

    kill 'HUP', $self->{pid};

    return poll_until {
        my $log = $self->log_since(0);
        return $self->{workers} == (grep { !$old{$_} } $self->worker_pids)
            && !grep { alive($_) && $log !~ / $_#$_: gracefully shutting down/ } keys %old;
    } 30;
}


# ---- upgrade of the executable, in the steps of nginx's manual

# Starts a new master with new workers, which is this server from then on. Returns the pid of the old master; false when the
# new one does not start.
sub new_binary {
    my ($self) = @_;
    my $old = $self->{pid};
    my $new = 0;

    kill 'USR2', $old;
    poll_until {
        $new = $self->_pid_file;
        return $new && $new != $old && $self->{workers} == descendants($new);
    } 30 or return 0;

    $self->{pid} = $new;

    return $old;
}


# Shuts down the workers of the old master, and finds those that are left. The new master is a child of the old one.
sub stop_workers { return kill 'WINCH', $_[1] }

sub old_workers {
    my ($self, $old) = @_;
    my %new = map { $_ => 1 } $self->{pid}, descendants($self->{pid});

    return grep { !$new{$_} } descendants($old);
}


# Ends a master: the old one, or the new one if the old one's workers were started again (HUP).
sub quit_master {
    my ($self, $master) = @_;

    kill 'QUIT', $master;

    return defined ended($master, 30);
}


# The whole upgrade.
sub upgrade {
    my ($self) = @_;
    my $old = $self->new_binary or return 0;

    $self->stop_workers($old);

    return poll_until { !$self->old_workers($old) } 30 && $self->quit_master($old);
}


# The pid in nginx.pid; 0 while the file is renamed or empty.
sub _pid_file {
    my ($self) = @_;
    my $text = eval { slurp("$self->{dir}/nginx.pid") } || 0;

    return $text + 0;
}


# ---- its logs

sub output     { return $_[0]->_text('output') }
sub access_log { return $_[0]->_text('access.log') }

sub _text { my ($self, $name) = @_; return -e "$self->{dir}/$name" ? slurp("$self->{dir}/$name") : '' }


# The value of a metric; -1 if /metrics does not have it.
sub metric {
    my ($self, $name) = @_;

    return Pgq::Client->new($self)->get('/metrics')->body =~ /^\Q$name\E (\d+)$/m ? $1 : -1;
}


# Waits until the only worker has received what clients have sent: it answers a later request.
sub wait_until_received {
    my ($self) = @_;

    Pgq::Client->new($self)->get('/nowhere');

    return;
}


# Posts these requests, each a body or a reference to a body and headers, so that they are in one batch: the only lane waits
# for a lock until all of them wait. Returns the client whose message holds the lane, and the clients of the batch.
sub post_in_one_batch {
    my ($self, @requests) = @_;
    my $lock = $self->{pg}->lock_table;
    my $send = sub { return Pgq::Client->new($self)->send_post('/post', @_) };

    my $first = $send->('"first"');
    $self->{pg}->wait_for_lock;
    my @clients = map { $send->(ref $_ ? @$_ : $_) } @requests;
    $self->wait_until_received;
    $lock->release;

    return ($first, @clients);
}


# A leak: more connections to the database than the workers have lanes. Called while both servers run.
sub leaked_lanes {
    my ($self) = @_;
    my $pg = $self->{pg};

    return if !$pg || $self->{pools} || $self->{config} || !$self->running || !$pg->running;

    my $most  = ($self->lanes + $self->read_lanes) * $self->{workers} + (defined $self->{ring} ? 1 : 0);
    my $user  = $self->{user} // 'ngx_pgq_web';
    my $count = '';

    poll_until {
        my ($status, $out) = $pg->psql(
            "select count(*) from pg_stat_activity where backend_type = 'client backend' and usename = '$user'",
        );
        $count = $out;
        return $status || $count <= $most;
    } 10 and return;

    return "$self->{name} holds $count connections to the database: more than $most lanes";
}


# The open sockets of the workers.
sub sockets {
    my ($self) = @_;

    return map { (readlink // '') =~ /^socket:\[(\d+)\]$/ ? $1 : () } map { glob "/proc/$_/fd/*" } $self->worker_pids;
}


# The open connections of clients, with those that were reset: port and state of each. Takes the ports of listen directives
# other than its own.
sub clients {
    my ($self, @ports) = @_;
    my %port   = map { $_ => 1 } $self->port, @ports;
    my %kernel = map { $_->{inode} => $_ } _kernel_sockets();

    return map {
        my $socket = $kernel{$_} // { port => 'unknown', state => 'reset' };
        $socket->{state} ne 'listen' && ($port{ $socket->{port} // '' } || $socket->{state} eq 'reset') ? "$socket->{port} $socket->{state}" : ();
    } $self->sockets;
}


# A leak: a connection that a worker keeps although the peer has closed it. Called before a graceful quit.
sub leaked_connections {
    my ($self) = @_;
    my @leaked;

    poll_until {
        my %state = map { $_->{inode} => $_->{state} } _kernel_sockets();
        @leaked = grep { ($state{$_} // '') =~ /^(?:|close_wait)$/ } $self->sockets;
        return !@leaked;
    } 10 and return;

    return "$self->{name} keeps " . @leaked . ' connections that the peer has closed';
}


# The kernel's sockets. A connection that was reset is not among them.
sub _kernel_sockets {
    my @sockets;

    for my $table (qw(tcp tcp6 udp udp6 unix)) {
        open my $in, '<', "/proc/net/$table" or next;
        my $head = <$in>;

        while (my $line = <$in>) {
            my @field = split ' ', $line;
            push @sockets, $table eq 'unix' ? { inode => $field[6], state => 'unix' }
                : { inode => $field[9], port => hex $field[1] =~ s/.*://r,
                    state => $table =~ /tcp/ && { '08' => 'close_wait', '0A' => 'listen' }->{ $field[3] } || 'open' };
        }
    }

    return @sockets;
}


# The errors that fail the test. Called after the server is stopped.
sub complaints {
    my ($self) = @_;
    my @complaints = grep { defined } @$self{qw(stuck left leaked)};

    push @complaints, "$self->{name} ended with status $self->{status}" if $self->{status};

    push @complaints, map { "$self->{name}: $_" } $self->log_complaints(
        qr/\[(?:alert|emerg)\]|open socket|AddressSanitizer|runtime error:/, $self->output,
    );

    return @complaints, reports($self->{name}, $self->{dir});
}


1;
