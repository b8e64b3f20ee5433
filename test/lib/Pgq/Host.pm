package Pgq::Host;

# The machine on which a test runs: the build, a temporary directory of the test, free ports, users, and processes, which are
# identified by their pid. Every process that a test starts ends with it.
#
# Environment: PGQ_BUILD (build), PGQ_SANITIZE, PGQ_VALGRIND, PGQ_SLOW, PGVERSION, TMPDIR.

use strict;
use warnings;

use Carp qw(croak);
use Cwd qw(realpath);
use Exporter 'import';
use Fcntl qw(:flock);
use File::Basename qw(dirname);
use File::Path qw(remove_tree);
use File::Temp ();
use IO::Socket::INET;
use POSIX qw(:sys_wait_h setsid);

use Pgq::Wait qw(poll_until);

our @EXPORT_OK = qw(
    top build_dir module_path pg_version pg_bin temp_dir kept free_port is_root server_user worker_user
    has_program run spawn alive descendants ended kill_all adopt_orphans slurp spew sanitizer_environment reports
);

my $top = realpath(dirname(__FILE__) . '/../../..');
my ($base, $keep, @locks);

# nginx is in /usr/sbin, which the PATH of some users lacks.
$ENV{PATH} .= ':/usr/sbin:/sbin';


sub top { return $top }


sub build_dir {
    my $dir = $ENV{PGQ_BUILD} || 'build';

    return realpath($dir =~ m{^/} ? $dir : "$top/$dir") || croak "there is no $dir: make build";
}


sub module_path { return build_dir() . '/nginx/ngx_http_pgq_module.so' }


# The major version of PostgreSQL: PGVERSION, else the newest that is built.
sub pg_version {
    return $ENV{PGVERSION} if $ENV{PGVERSION};

    my ($newest) = sort { $b <=> $a } map { m{/pg(\d+)$} ? $1 : () } glob(build_dir() . '/pg*');

    return $newest // croak 'there is no private installation of PostgreSQL: make build';
}


# The directory of PostgreSQL's executables in the private installation.
sub pg_bin {
    my $version = pg_version();
    my $root    = realpath(build_dir() . "/pg$version");

    return "$root/usr/lib/postgresql/$version/bin";
}


# ---- users

sub is_root { return $> == 0 }

sub server_user { return is_root() ? 'postgres' : scalar getpwuid($>) }

sub worker_user { return is_root() ? 'www-data' : scalar getpwuid($>) }


# Whether a program is installed that only make check-others requires; there its absence is an error.
sub has_program {
    my ($name) = @_;
    my $has = grep { -x "$_/$name" } split /:/, $ENV{PATH};

    croak "there is no $name" if !$has && $ENV{PGQ_OTHERS};

    return $has;
}


# ---- files

# Creates a directory in the temporary directory of the test, which is removed if the test passes. Other users can enter it.
sub temp_dir {
    my ($name) = @_;

    if (!$base) {
        $base = File::Temp::tempdir('ngx_pgq.XXXXXXXX', DIR => $ENV{TMPDIR} || '/tmp');
        chmod 0755, $base;
    }

    my $dir    = "$base/$name";
    my $number = 1;

    while (!mkdir $dir, 0755) {
        $!{EEXIST} or croak "mkdir $dir: $!";
        $dir = "$base/$name" . ++$number;
    }

    return $dir;
}


# Keeps the temporary directory of the test and returns its path, if there is one.
sub kept {
    $keep = 1;

    return $base;
}


sub remove_temp_dir {
    remove_tree($base) if $base && !$keep && !$ENV{PGQ_KEEP};

    unlink map { $_->[0] } @locks;
    rmdir _port_dir();
}


sub slurp {
    my ($file) = @_;

    open my $in, '<:raw', $file or croak "$file: $!";
    local $/;

    return scalar <$in> // '';
}


sub spew {
    my ($file, @text) = @_;

    open my $out, '>:raw', $file or croak "$file: $!";
    print {$out} @text or croak "$file: $!";
    close $out or croak "$file: $!";

    return $file;
}


# ---- ports

# A port on which no process listens. A lock that is held until the test ends reserves it among tests that run at the same
# time.
sub free_port {
    my $dir = _port_dir();
    mkdir $dir, 0700;

    for (1 .. 1000) {
        my $port = 20000 + int rand 12000;

        open my $lock, '>', "$dir/$port" or croak "$dir/$port: $!";
        next if !flock $lock, LOCK_EX | LOCK_NB;

        my $socket = IO::Socket::INET->new(
            LocalAddr => '0.0.0.0', LocalPort => $port, Proto => 'tcp', Listen => 1, ReuseAddr => 1,
        ) or next;

        close $socket;
        push @locks, [ "$dir/$port", $lock ];

        return $port;
    }

    croak 'there is no free port';
}


sub _port_dir { return ($ENV{TMPDIR} || '/tmp') . "/ngx_pgq.ports.$>" }


# ---- processes

# Starts a program and returns its pid. Options: user, env (a hash; undef unsets), in (text), out, err (files, opened for
# appending), cwd, death (the signal that the kernel sends when the test ends).
sub spawn {
    my ($command, %option) = @_;
    my $user    = $option{user} // '';
    my @command = ('setpriv', '--pdeathsig', $option{death} // 'TERM');

    push @command, "--reuid=$user", '--regid=' . (getpwnam $user)[3], '--clear-groups'
        if $user && is_root() && $user ne 'root';

    my %env = %{ $option{env} || {} };
    push @command, 'env', (map { ('-u', $_) } grep { !defined $env{$_} } sort keys %env),
        map { "$_=$env{$_}" } grep { defined $env{$_} } sort keys %env;

    my $in = File::Temp->new;
    print {$in} $option{in} // '';
    $in->flush;
    open my $stdin, '<', "$in" or croak "$in: $!";

    defined(my $pid = fork) or croak "fork: $!";

    if ($pid == 0) {
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
        setsid();

        chdir($option{cwd} // '/')                                     or _exit("chdir: $!");
        open STDIN,  '<&', $stdin                                      or _exit("stdin: $!");
        open STDOUT, '>>', $option{out} // '/dev/null'                 or _exit("out: $!");
        open STDERR, '>>', $option{err} // $option{out} // '/dev/null' or _exit("err: $!");
        exec { $command[0] } @command, @$command or _exit("$command[0]: $!");
    }

    return $pid;
}


sub _exit {
    print STDERR "@_\n";
    POSIX::_exit(127);
}


# Runs a program to its end. Returns exit status, output and error output. The status is -1 when it was killed after the
# timeout. Options as above, and timeout.
sub run {
    my ($command, %option) = @_;
    my $out = File::Temp->new;
    my $err = File::Temp->new;
    my $pid = spawn($command, %option, out => "$out", err => "$err");

    my $status = ended($pid, $option{timeout} // 180);

    if (!defined $status) {
        kill 'KILL', $pid;
        waitpid $pid, 0;
        $status = -1;
    }

    return ($status, slurp("$out"), slurp("$err"));
}


# Waits for a child to end. Returns its exit status (128 + signal when killed), or undef after a timeout.
sub ended {
    my ($pid, $seconds) = @_;
    my $status;

    poll_until {
        my $got = waitpid $pid, WNOHANG;
        return 0 if $got == 0;
        $status = $got == $pid ? ($? & 127 ? 128 + ($? & 127) : $? >> 8) : 0;
        return 1;
    } $seconds // 30;

    return $status;
}


# Whether a process exists and is no zombie.
sub alive {
    my ($pid) = @_;

    return (_stat($pid))[0] // '' ? 1 : 0;
}


# The children of a process and their descendants.
sub descendants {
    my ($root) = @_;
    my (%children, @found);

    for my $dir (glob '/proc/[0-9]*') {
        my ($pid) = $dir =~ /(\d+)$/;
        my (undef, $parent) = _stat($pid);
        push @{ $children{$parent} }, $pid if defined $parent;
    }

    my @look = ($root);

    while (defined(my $pid = shift @look)) {
        push @found, @{ $children{$pid} || [] };
        push @look,  @{ $children{$pid} || [] };
    }

    return @found;
}


# Sends a signal to these processes and waits until they have ended.
sub kill_all {
    my ($signal, @pids) = @_;

    kill $signal, @pids;

    return poll_until { !grep { alive($_) } @pids } 30;
}


# Makes this process the parent of its orphaned descendants, such as daemons, so that it can wait for them and end them.
sub adopt_orphans {
    require 'syscall.ph';
    syscall(SYS_prctl(), 36, 1, 0, 0, 0) == 0 or croak "prctl: $!";

    return;
}


# State and parent of a process; empty when it does not exist or is a zombie.
sub _stat {
    my ($pid) = @_;

    open my $in, '<', "/proc/$pid/stat" or return;
    my $line = <$in> // return;
    my ($state, $parent) = $line =~ /\) (\S) (\d+)/ or return;

    return if $state =~ /[ZX]/;

    return ($state, $parent);
}


# ---- instrumented runs

# The reports in a server's directory, as complaints.
sub reports {
    my ($name, $dir) = @_;

    return map { "$name: $_\n" . slurp($_) } grep { -s } glob "$dir/reports/*";
}


# The environment of a server that loads instrumented code. Its reports are files in the directory reports, where every user
# of the server may write. Leaks are not detected: PostgreSQL does not free memory at exit, and nginx's workers leave memory of
# connections, in functions that have no names in a stripped nginx. Valgrind detects leaks of the module.
sub sanitizer_environment {
    my ($dir) = @_;

    return () if !$ENV{PGQ_SANITIZE};

    chomp(my $path = `gcc -print-file-name=libasan.so`);
    my $asan = realpath($path) // croak 'there is no libasan.so';

    mkdir "$dir/reports";
    chmod 01777, "$dir/reports";

    return (
        LD_PRELOAD   => "$asan:" . build_dir() . '/asan_early.so',
        ASAN_OPTIONS => "detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=0"
            . ":log_path=$dir/reports/sanitizer",
        UBSAN_OPTIONS => "print_stacktrace=1:halt_on_error=1:abort_on_error=1:log_path=$dir/reports/sanitizer",
    );
}


1;
