package Pgq::Random;

# A random generator whose results depend on the seed and the number of the case only, on every machine; and mutations of
# bytes.
#
#   my $random = Pgq::Random->new($seed, $case);
#   $random->below(10);   $random->one_in(4);   $random->pick(@list);   $random->mutate($bytes, \@tokens, \@others);

use strict;
use warnings;

use Digest::MD5 qw(md5);

my @numbers = (
    0, 1, -1, 7, 255, 256, 999, 1000, 1001, 65535, 65536, 2147483647, 2147483648, 4294967295, 4294967296,
    9223372036854775807, '9223372036854775808', '18446744073709551616', '99999999999999999999999', '1e3', '0x10', '00', '',
);
my @bytes = ("\0", "\t", "\n", "\r", ' ', '"', '\\', ':', ';', ',', '%', '0', '9', 'a', '{', ']', "\x7f", "\x80", "\xc0", "\xed", "\xf4", "\xff");


sub new {
    my ($class, @seed) = @_;
    my ($high, $low) = unpack 'NN', md5("@seed");

    return bless { state => ($high << 32 | $low) || 1 }, $class;
}


# xorshift
sub below {
    my ($self, $limit) = @_;
    my $state = $self->{state};

    $state ^= $state << 13;
    $state ^= $state >> 7;
    $state ^= $state << 17;
    $self->{state} = $state;

    return ($state >> 11) % ($limit || 1);
}


sub one_in { return $_[0]->below($_[1]) == 0 }
sub pick   { my $self = shift; return $_[ $self->below(scalar @_) ] }


# A length: mostly short, sometimes up to the limit.
sub length {
    my ($self, $limit) = @_;

    return $self->below(1 + $self->pick(1, 10, 100, 100, 1000, $limit)) % ($limit + 1);
}


# Valid UTF-8 without control characters, of about this length.
sub text {
    my ($self, $length) = @_;
    my @characters = ('a' .. 'z', 0 .. 9, ' ', '"', '\\', '/', '{', "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", '&', "'");
    my $piece = join '', map { $self->pick(@characters) } 1 .. ($length < 60 ? $length : 60);

    return $length <= 60 ? $piece : $piece x int($length / 60);
}


# Splits bytes into pieces, from single bytes to the whole.
sub pieces {
    my ($self, $bytes) = @_;
    my $most = $self->pick(1, 7, 100, 1500, 100_000, 100_000, 100_000);
    my @pieces;

    $most = 100 if $most < 100 && CORE::length $bytes > 1500;

    for (my $at = 0; $at < CORE::length $bytes; $at += CORE::length $pieces[-1]) {
        push @pieces, substr $bytes, $at, $most == 1 ? 1 : 1 + $self->below($most);
    }

    return @pieces;
}


# A random range of these bytes: offset and length.
sub _span {
    my ($self, $bytes) = @_;
    my $at = $self->below(1 + CORE::length $bytes);

    return ($at, $self->length(CORE::length($bytes) - $at));
}


my @mutations = (
    sub { my ($self, $bytes) = @_; substr($bytes, $self->below(CORE::length $bytes), 1) ^= chr(1 << $self->below(8)); $bytes },
    sub { my ($self, $bytes) = @_; substr($bytes, $self->below(CORE::length $bytes), 1) = $self->pick(@bytes); $bytes },
    sub { my ($self, $bytes) = @_; substr($bytes, $self->below(CORE::length $bytes), 0) = $self->pick(@bytes); $bytes },
    sub { my ($self, $bytes) = @_; my ($at, $len) = $self->_span($bytes); substr $bytes, $at, $len, ''; $bytes },
    sub { my ($self, $bytes) = @_; my ($at, $len) = $self->_span($bytes); substr $bytes, $at, 0, substr $bytes, $at, $len; $bytes },
    sub { my ($self, $bytes) = @_; substr $bytes, $self->below(CORE::length $bytes) },
    sub { my ($self, $bytes) = @_; substr $bytes, 0, $self->below(CORE::length $bytes) },
    sub {
        my ($self, $bytes) = @_;
        my ($at, $len) = $self->_span($bytes);
        my $taken = substr $bytes, $at, $len, '';
        substr $bytes, $self->below(1 + CORE::length $bytes), 0, $taken;
        $bytes;
    },
    sub {
        my ($self, $bytes) = @_;
        my @found;
        push @found, [ $-[0], $+[0] - $-[0] ] while $bytes =~ /-?[0-9]+/g;
        my $place = $self->pick(@found) // return $bytes;
        substr $bytes, $place->[0], $place->[1], $self->pick(@numbers);
        $bytes;
    },
    (sub {
        my ($self, $bytes, $tokens) = @_;
        substr $bytes, $self->below(1 + CORE::length $bytes), 0, $self->pick(@$tokens);
        $bytes;
    }) x 3,
    sub {
        my ($self, $bytes, $tokens) = @_;
        my @lines = split /(?<=\n)/, $bytes;
        splice @lines, $self->below(1 + @lines), 0, $self->pick(@$tokens);
        join '', @lines;
    },
    sub {
        my ($self, $bytes, undef, $others) = @_;
        my $other = $self->pick(@$others) // return $bytes;
        substr($bytes, 0, $self->below(1 + CORE::length $bytes)) . substr $other, $self->below(1 + CORE::length $other);
    },
);


# Applies one to five mutations. Tokens are words of the format, others are inputs to splice with.
sub mutate {
    my ($self, $bytes, $tokens, $others) = @_;

    for (0 .. $self->below(4)) {
        $bytes = $self->pick(@mutations)->($self, $bytes, $tokens, $others || []) if CORE::length $bytes;
    }

    return $bytes;
}


1;
