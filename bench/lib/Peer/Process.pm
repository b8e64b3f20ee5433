package Peer::Process;

# A program that a peer runs in the foreground, as the user of the servers.
#
#   my $process = Peer::Process->new(command => [...], dir => $dir, ready => sub { … }, env => {…}, stop => 'INT');
#
# start returns when ready returns true. Output is in $dir/output.

use strict;
use warnings;

use Pgq::Host qw(descendants ended kill_all server_user slurp spawn);
use Pgq::Wait qw(poll_until);


sub new {
    my ($class, %option) = @_;

    return bless { ready => sub { 1 }, stop => 'TERM', %option }, $class;
}


sub pid { return $_[0]{pid} }


sub start {
    my ($self) = @_;

    $self->{pid} = spawn($self->{command}, user => server_user(), cwd => $self->{dir}, out => "$self->{dir}/output", env => $self->{env});
    poll_until { $self->{ready}->() } 60 or die "@{ $self->{command} }: not ready\n" . slurp("$self->{dir}/output");

    return $self;
}


sub stop  { my ($self) = @_; return $self->_end($self->{stop}) }

sub kill9 { my ($self) = @_; return $self->_end('KILL') }


sub _end {
    my ($self, $signal) = @_;
    my $pid  = delete $self->{pid} // return;
    my @pids = descendants($pid);

    kill $signal, $pid, $signal eq 'KILL' ? @pids : ();
    ended($pid, 30) // kill 'KILL', $pid;
    kill_all('KILL', @pids);

    return;
}


1;
