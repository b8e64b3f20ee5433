package Pgq::Oracle;

# Compares what clients were told about their messages with what is in posts (P2, P6). A message that was accepted is
# there once, unaltered and under the id that its client was told. One that was refused is absent. One whose outcome is
# unknown is there at most once. Posts of messages that one client had accepted one after the other have ascending
# ids. A post that a reader saw stays.
#
#   my $oracle = Pgq::Oracle->new;
#   $oracle->told($uuid, 'accepted', data => '{"a": 1}');     or 'refused', 'unknown'; the last outcome counts
#   $oracle->ordered(@messages);                              one client had these accepted in this order
#   $oracle->saw($id, $uuid);                                 a reader saw this message as that post
#   my @complaints = $oracle->drain($pg)->read($pg, 'true')->complaints;
#
# The name of a message is its message_id, or the text that the groups of the pattern `message` match in its data.

use strict;
use warnings;

use Carp qw(croak);

use constant MAX_SHOWN => 200;    # bytes of an altered message


# Options: message (a pattern that the data of each post has to match; its groups are the name of the message), foreign (1: posts of messages
# that no client reported are allowed), complete (1: each post has been seen by a reader).
sub new {
    my ($class, %option) = @_;

    return bless { told => {}, posts => [], ordered => [], seen => [], wrong => [], %option }, $class;
}


# Options: id (the message_id that the client was told), data (the message as it has to be in posts), answer (shown).
sub told {
    my ($self, $message, $outcome, %option) = @_;

    croak "outcome $outcome" if $outcome !~ /^(?:accepted|refused|unknown)$/;
    $self->{told}{$message} = { outcome => $outcome, %option };

    return $self;
}


# Whether a client reported an outcome of this message.
sub knows { return exists $_[0]{told}{ $_[1] } }


sub ordered { my ($self, @messages) = @_; push @{ $self->{ordered} }, \@messages; return $self }
sub saw     { my ($self, $id, $message) = @_; push @{ $self->{seen} }, [ $id, $message ]; return $self }


# How many messages have this outcome.
sub count { my ($self, $outcome) = @_; return scalar grep { $_->{outcome} eq $outcome } values %{ $self->{told} } }


# Waits until the queue is empty.
sub drain {
    my ($self, $pg, $seconds) = @_;

    push @{ $self->{wrong} }, 'the queue is not drained'
        if !$pg->poll_query_until('select count(*) from ngx_pgq.queue', 0, $seconds // 30);

    return $self;
}


# The statement that reads the posts which satisfy an SQL condition. Its output is the argument of rows().
sub query { return "select id, message_id, encode(convert_to(data::text, 'UTF8'), 'hex') from posts where $_[0] order by id" }

sub read { my ($self, $pg, $where) = @_; return $self->rows($pg->safe_psql(query($where))) }

# Replaces the posts that were read before.
sub rows {
    my ($self, $rows) = @_;

    $self->{posts} = [];

    for my $row (split /\n/, $rows) {
        my ($id, $message_id, $hex) = $row =~ /\A(\d+)\|([0-9a-f-]+)\|([0-9a-f]*)\z/ or croak "no row of a post: $row";
        my $data = pack 'H*', $hex;
        my @name = $self->{message} ? $data =~ $self->{message} : $message_id;

        push @{ $self->{posts} }, { id => $id, message_id => $message_id, data => $data, message => @name ? "@name" : undef };
    }

    return $self;
}


# What is wrong, as sentences.
sub complaints {
    my ($self) = @_;

    return @{ $self->{wrong} }, $self->_posts, $self->_messages, $self->_order, $self->_readers;
}


sub _posts {
    my ($self) = @_;
    my @wrong;

    @$self{qw(post_of message_of)} = ({}, {});

    for my $post (@{ $self->{posts} }) {
        my ($id, $message) = @$post{qw(id message)};

        push @wrong, "post $id is there twice" if exists $self->{message_of}{$id};
        $self->{message_of}{$id} = $message // 'none';

        if (!defined $message) {
            push @wrong, "post $id is altered: " . substr $post->{data}, 0, MAX_SHOWN;
            next;
        }
        push @wrong, "message $message is in posts, but no client sent it" if !$self->{foreign} && !$self->{told}{$message};
        push @{ $self->{post_of}{$message} }, $post;
    }

    return @wrong;
}


sub _messages {
    my ($self) = @_;
    my ($told, $post_of) = @$self{qw(told post_of)};
    my @wrong;

    for my $message (sort keys %{ { %$told, %$post_of } }) {
        my @posts  = @{ $post_of->{$message} || [] };
        my %told   = %{ $told->{$message} || { outcome => 'unknown' } };
        my $answer = defined $told{answer} ? " ($told{answer})" : '';

        push @wrong, "message $message is in posts " . @posts . ' times' if @posts > 1;
        push @wrong, "lost: message $message was accepted$answer and is not in posts" if $told{outcome} eq 'accepted' && !@posts;
        push @wrong, "message $message was refused$answer and is in posts" if $told{outcome} eq 'refused' && @posts;

        for my $post ($told{outcome} eq 'refused' ? () : @posts) {
            push @wrong, "message $message was accepted as $told{id} and is in posts as $post->{message_id}"
                if defined $told{id} && $post->{message_id} ne $told{id};
            push @wrong, "message $message is altered: " . substr $post->{data}, 0, MAX_SHOWN
                if defined $told{data} && $post->{data} ne $told{data};
        }
    }

    return @wrong;
}


sub _order {
    my ($self) = @_;
    my @wrong;

    for my $messages (@{ $self->{ordered} }) {
        my $last = 0;

        for my $message (grep { $self->{post_of}{$_} } @$messages) {
            my $id = $self->{post_of}{$message}[0]{id};

            push @wrong, "message $message is post $id, and the one accepted before it is post $last" if $id < $last;
            $last = $id;
        }
    }

    return @wrong;
}


sub _readers {
    my ($self) = @_;
    my ($message_of, %seen) = ($self->{message_of});
    my @wrong;

    for my $seen (@{ $self->{seen} }) {
        my ($id, $message) = @$seen;
        my $now = exists $message_of->{$id} ? "message $message_of->{$id}" : 'absent';

        $seen{$id} = 1;
        push @wrong, "a reader saw post $id as message $message; it is now $now" if $now ne "message $message";
    }
    push @wrong, map { "the reader missed post $_" } grep { !$seen{$_} } sort { $a <=> $b } keys %$message_of if $self->{complete};

    return @wrong;
}


1;
