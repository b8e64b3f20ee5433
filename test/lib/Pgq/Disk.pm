package Pgq::Disk;

# A small disk in memory, which tests fill.
#
#   my $cannot = Pgq::Disk::cannot();        why there cannot be one here, or undef
#   my $disk = Pgq::Disk->new('wal', 24);    size in megabytes; owned by the server's user
#   $disk->dir; $disk->fill; $disk->make_space;
#
# Disks are mounted in a mount namespace, which needs root. cannot() restarts the test in a new one, so a test calls it first.

use strict;
use warnings;

use Pgq::Host qw(run is_root temp_dir server_user);

my @disks;


sub cannot {
    return 'only root can mount a disk' if !is_root();

    my ($failed, undef, $error) = run([ 'unshare', '--mount', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt' ]);
    return "a disk cannot be mounted here: $error" if $failed;

    if (!$ENV{PGQ_UNSHARED}) {
        local $ENV{PGQ_UNSHARED} = 1;
        exec 'unshare', '--mount', '--propagation', 'private', $^X, $0 or die "unshare: $!\n";
    }

    return;
}


sub new {
    my ($class, $name, $megabytes) = @_;
    my $dir = temp_dir($name);
    my ($failed, undef, $error) = run([ 'mount', '-t', 'tmpfs', '-o', "size=${megabytes}m", 'tmpfs', $dir ]);

    die $error if $failed;
    push @disks, $dir;
    chmod 0700, $dir;
    chown +(getpwnam server_user())[ 2, 3 ], $dir;

    return bless { dir => $dir }, $class;
}


sub dir { return $_[0]{dir} }


sub fill {
    my ($self) = @_;

    run([ 'dd', 'if=/dev/zero', "of=$self->{dir}/full", 'bs=4k', 'status=none' ]);

    return;
}


sub make_space {
    my ($self) = @_;

    unlink "$self->{dir}/full" or die "$self->{dir}: $!\n";

    return;
}


END {
    local $?;
    run([ 'umount', '-l', $_ ]) for @disks;
}


1;
