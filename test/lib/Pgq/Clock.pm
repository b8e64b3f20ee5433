package Pgq::Clock;

# The clock of a test's server: the machine's clock and a number of seconds, which can change while the server runs. It uses
# libfaketime, which cannot be loaded together with a sanitizer or by valgrind.
#
#   my $clock = Pgq::Clock->new;
#   my $pg    = Pgq::Postgres->new(env => { $clock->environment })->start;
#   $clock->set(-3600);

use strict;
use warnings;

use Pgq::Host qw(build_dir slurp spew temp_dir);


sub new {
    my ($class) = @_;
    my ($library) = glob '/usr/lib/*/faketime/libfaketimeMT.so.1' or die "libfaketime is not installed\n";
    my $dir = temp_dir('clock');

    # The server's user may have no right to read the build.
    spew("$dir/plain_select.so", slurp(build_dir() . '/plain_select.so'));
    chmod 0755, $dir, "$dir/plain_select.so";

    return bless({ dir => $dir, preload => "$dir/plain_select.so:$library" }, $class)->set(0);
}


sub environment {
    my ($self) = @_;

    return (
        LD_PRELOAD                   => $self->{preload},
        FAKETIME_TIMESTAMP_FILE      => "$self->{dir}/seconds",
        FAKETIME_NO_CACHE            => 1,
        FAKETIME_DONT_FAKE_MONOTONIC => 1,
    );
}


sub set {
    my ($self, $seconds) = @_;

    spew("$self->{dir}/seconds.new", sprintf "%+d\n", $seconds);
    rename "$self->{dir}/seconds.new", "$self->{dir}/seconds" or die "$self->{dir}/seconds: $!\n";

    return $self;
}


1;
