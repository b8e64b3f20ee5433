package Pgq::FuzzHeaders;

# Requests whose header fields are spelled at random by their grammar (RFC 9110 5.5 and 5.6, RFC 7240, RFC 8941), and the
# expected answer: that of the usual spelling if it is valid, otherwise a refusal. Random are white space, the case of letters,
# quoted strings and their escapes, parameters, empty members of lists, and the lines of a field.
#
#   my $spelling = Pgq::FuzzHeaders->new($random);
#   my ($request, @expect) = $spelling->post($mark);       one request, or two for the same message with one key
#   my ($request, @expect) = $spelling->get($etag);        /get?limit=2&before=3, whose ETag is known
#
# The expected answer is a hash: status (a pattern), code (of a problem), and for a POST json, text or lines (the message),
# applied (Preference-Applied) and again (the id is that of the request before).

use strict;
use warnings;

my $crlf  = "\r\n";
my @tchar = ('a' .. 'z', 'A' .. 'Z', 0 .. 9, split //, q(!#$%&'*+-.^_`|~));
my @qdtext = (@tchar, split(//, ' ,;:=()/<>?@[]{}'), "\t", "\x80", "\xe9", "\xff");

my %type = (
    json => [ 'application/json', 'text/json', 'application/x-json', 'text/x-json', 'application/vnd.api+json', 'x/y+json' ],
    text => ['text/plain'],
    any  => [ '', 'application/octet-stream', 'application/x-www-form-urlencoded', 'text/html', 'image/json', 'application/json-seq', 'text/x-plain', 'x/y' ],
    lines => [ map { my $top = $_; map { ("$top/$_", "$top/x-$_") } qw(ndjson jsonl jsonlines json-lines ldjson) } qw(application text) ],
);
my @charsets = ('iso-8859-1', 'utf-16', 'utf-7', 'utf', 'utf-88', 'latin1', '');


sub new {
    my ($class, $random) = @_;

    return bless { random => $random }, $class;
}


# ---- words

sub _pick   { my $self = shift; return $self->{random}->pick(@_) }
sub _one_in { return $_[0]{random}->one_in($_[1]) }

# Joins up to this many results of the code.
sub _some { my ($self, $most, $code) = @_; return join '', map { $code->() } 1 .. $self->{random}->below($most + 1) }

sub _space { my ($self) = @_; return $self->_pick('', '', ' ', "\t", " \t", "\t  ") }
sub _token { my ($self) = @_; return 'x' . $self->_some(6, sub { $self->_pick(@tchar) }) }

# The same word in upper, lower or mixed case.
sub _letters {
    my ($self, $word) = @_;
    my $how = $self->{random}->below(4);

    return $how == 0 ? uc $word : $how == 1 ? join '', map { $self->_one_in(2) ? uc : lc } split //, $word : $word;
}

# A quoted string with this value.
sub _quoted {
    my ($self, $text) = @_;

    return '"' . join('', map { /["\\]/ || $self->_one_in(4) && /[\x21-\x7e]/ ? "\\$_" : $_ } split //, $text) . '"';
}

sub _word { my ($self, $text) = @_; return length $text && $self->_one_in(2) ? $text : $self->_quoted($text) }

sub _any_word { my ($self) = @_; return $self->_one_in(2) ? $self->_token : $self->_quoted($self->_some(8, sub { $self->_pick(@qdtext, '"', '\\') })) }

# A list, as one or several values of its field.
sub _list {
    my ($self, @members) = @_;
    my $gap = sub { $self->_space . ($self->_one_in(3) ? ',' . $self->_space : '') };
    my @values = ($gap->());

    for my $member (@members) {
        push @values, $gap->() if length $values[-1] > 2 && $self->_one_in(4);
        $values[-1] .= ($values[-1] =~ /[^\s,]\s*$/ ? ',' : '') . $gap->() . $member . $self->_space;
    }
    $values[-1] .= ',' . $self->_space if @members && $self->_one_in(3);

    return @values;
}

# Lines of a field. nginx removes spaces around a value, but not tabs.
sub _lines {
    my ($self, $name, @values) = @_;

    return map { $self->_letters($name) . ':' . $self->_space . $_ . $self->_space . $crlf } @values;
}

# Fields in random order; the lines of each field keep theirs.
sub _head {
    my ($self, $start, @fields) = @_;
    my @order = map { [ $self->{random}->below(1 << 30), $_ ] } @fields;

    return join '', "$start HTTP/1.1$crlf", (map { @{ $_->[1] } } sort { $a->[0] <=> $b->[0] } @order), $crlf;
}


# ---- fields; each returns its lines and what they mean

# Content-Type: the form of the body (json, text, any, lines, unsupported or malformed) and the values.
sub _type {
    my ($self, $form) = @_;
    my $name = $self->_pick(@{ $type{$form} });

    return ($form) if $name eq '';

    my $value = $self->_letters($name) . $self->_parameters;
    my $what  = $self->{random}->below(12);

    if ($what == 0) {
        return ('malformed', $self->_malformed_type($name));
    } elsif ($what <= 5) {
        my $bad = $what == 1;
        my $charset = $bad ? $self->_pick(@charsets) : $self->_letters($self->_pick('utf-8', 'utf8', 'us-ascii'));
        $form = 'unsupported' if $bad;
        $value .= $self->_space . ';' . $self->_space . $self->_letters('charset') . '=' . $self->_word($charset) . $self->_parameters;
    }

    return ($form, $value);
}

sub _parameters {
    my ($self) = @_;

    return $self->_some(2, sub { $self->_space . ';' . $self->_space . ($self->_one_in(5) ? '' : $self->_token . '=' . $self->_any_word) });
}

sub _malformed_type {
    my ($self, $name) = @_;
    my ($top, $sub) = split m{/}, $name;
    my $p = $self->_token;

    return $self->_pick(
        [''], [';'], [$top], ["$top/"], ["/$sub"], ["$top /$sub"], ["$top/ $sub"], ["$top\t/\t$sub"], ["$name/x"], ["$name x"], ["$name,"], [qq("$name")],
        [ $self->_pick(split //, '()<>@,:"[]?={}\\') . $name ], ["\xe9$name"], ["$name\xe9"],
        (map { [ $name . $self->_parameters . ';' . $_ ] } $p, "$p=", "=$p", "$p =x", "$p= x", "$p=\t\"x\"", "$p=(x)", "$p=x y", qq($p="x), qq($p="x\\"), qq($p="x"y), qq($p=x"), "$p=\"\x01\"", "$p=\"\x7f\"", "$p;"),
        [ $name, $name ], [ $name, 'text/plain' ], ["$name, $name"],
    )->@*;
}

# Content-Encoding: whether there is a coding.
sub _coding {
    my ($self) = @_;

    return (0) if !$self->_one_in(6);
    return (0, $self->_list(map { $self->_letters('identity') } 1 .. $self->{random}->below(4))) if $self->_one_in(2);

    return (1, $self->_list($self->_letters('identity'), $self->_pick('gzip', 'br', $self->_token, 'identity;q=1', '"identity"', 'identity identity', ';', '=')));
}

# Prefer: the applied preference for `return`, if any.
sub _prefer {
    my ($self) = @_;

    return ('') if !$self->_one_in(4);

    my ($applied, @members);

    for (0 .. $self->{random}->below(3)) {
        my ($name, $value) = $self->_pick([ return => 'minimal' ], [ return => 'representation' ], [ return => 'none' ], [ wait => 7 ], [ $self->_token, '' ], [ 'x-return', 'minimal' ])->@*;
        my $member = $self->_letters($name);
        $member .= $self->_space . '=' . $self->_space . $self->_word($self->_letters($value)) if $value ne '' || $self->_one_in(2);
        $member .= $self->_some(2, sub { $self->_space . ';' . $self->_space . ($self->_one_in(4) ? '' : $self->_token . $self->_pick('', '= ' . $self->_any_word, "\t=" . $self->_any_word)) });
        push @members, $member;
        $applied //= $value =~ /^(?:minimal|representation)$/ ? "return=$value" : '' if $name eq 'return';
    }

    if ($self->_one_in(5)) {
        push @members, $self->_pick('a b', '=', '"return=minimal"', 'a=', 'a=b/c', 'a="b', 'return==minimal', ';a', "a=\"\x01\"");
        $applied = '';
    }

    return ($applied // '', $self->_list(@members));
}

# Idempotency-Key: a new key in two spellings.
sub _key {
    my ($self, $mark) = @_;
    my $token = $self->_one_in(2);
    my $key   = "s$mark" . $self->_some(8, sub { $token ? $self->_pick(@tchar) : $self->_pick(map { chr } 0x20 .. 0x7e) });

    $key .= 'k' x (255 - length $key) if $self->_one_in(10);

    return map {
        ($token && $self->_one_in(2) ? $key : '"' . $key =~ s/(["\\])/\\$1/gr . '"')
            . $self->_some(2, sub { $self->_space . ';' . $self->_space . lc($self->_token) . $self->_pick('', '=' . $self->_pick('?0', '1.5', '-7', ':YQ==:', '*a/b', '"b;\\"c"', '""')) });
    } 1, 2;
}

sub _malformed_key {
    my ($self) = @_;

    return $self->_pick(
        [''], ['""'], ['"a'], ['a"'], ['"a\\b"'], ["\"a\tb\""], ["\"a\x7f\""], ["\"\xc3\xa9\""], ["\xc3\xa9"], ['"' . 'k' x 256 . '"'], [ 'k' x 256 ],
        ['"a" "b"'], ['"a", "b"'], ['a b'], ['a,b'], ['"a";'], ['"a"; =b'], ['"a";b='], ['"a";b="c'], ['"a";b "c"'], [';a'], [ '"a"', '"a"' ], [ 'a', '' ],
    )->@*;
}

# Host, Origin and Sec-Fetch-Site: whether the origin is foreign, and their lines.
sub _page {
    my ($self) = @_;
    my $host  = $self->_letters('a.example') . $self->_pick('', '', ':80', ':8080');
    my @lines = (Host => [ 'Host:' . $self->_pick('', ' ', '  ') . $host . $crlf ]);
    my $foreign = 0;

    if ($self->_one_in(4)) {
        my $scheme = $self->_pick('http', 'https');
        my @origins = $self->_pick(
            ([ $self->_letters($scheme) . '://' . $self->_letters('a.example') . $self->_pick('', '', ':80', ':8080', ':443') ]) x 8,
            ['null'], [''], ["ftp://$host"], ["$scheme://$host/"], ["$scheme://a.example.net"], ["$scheme://$host $scheme://$host"],
            ["$scheme://$host,$scheme://$host"], ["$scheme://a.ex\tample"], [$host], [ "$scheme://$host", "$scheme://$host" ], [ "$scheme://$host", '' ],
        )->@*;
        my $usual = $scheme eq 'http' ? ':80' : ':443';
        $foreign = @origins != 1 || lc($origins[0]) =~ s/$usual$//r ne "$scheme://" . lc($host) =~ s/$usual$//r;
        push @lines, Origin => [ $self->_lines('Origin', @origins) ];
    }

    if ($self->_one_in(4)) {
        my $site = $self->_pick('none', 'same-origin', 'same-site', 'none', 'same-origin', 'cross-site', '"cross-site"', 'a b', '=');
        $foreign ||= $site =~ /cross|[ =]/;
        push @lines, Site => [ $self->_lines('Sec-Fetch-Site', $self->_list($self->_letters($site), map { $self->_letters($_) } $self->_one_in(3) ? 'none' : ())) ];
    }

    return ($foreign, { @lines });
}

# Fields without an effect.
sub _others {
    my ($self) = @_;
    my $q = sub { $self->_space . ';' . $self->_space . $self->_letters('q') . '=' . $self->_pick('0', '1', '0.5', '1.000', '0.001') };
    my @fields;

    push @fields, [ $self->_lines('Accept', $self->_list(map { $self->_letters($self->_pick('*/*', 'text/html', 'application/*', 'application/json', 'image/png')) . $self->_parameters . $q->() } 0 .. $self->{random}->below(4))) ] if $self->_one_in(2);
    push @fields, [ $self->_lines($self->_pick('Accept-Language', 'Accept-Charset'), $self->_list(map { $self->_token . $q->() } 1 .. 3)) ] if $self->_one_in(4);
    push @fields, [ $self->_lines('Sec-Fetch-' . $self->_pick('Mode', 'Dest', 'User', 'Storage-Access'), $self->_pick('cors', 'navigate', 'document', '?1', 'cross-site')) ] if $self->_one_in(4);
    push @fields, [ $self->_lines($self->_pick('User-Agent', 'X-Origin', 'Origin-Agent', 'Prefers', 'Idempotency-Keys'), $self->_any_word) ] if $self->_one_in(4);

    return @fields;
}


# ---- requests

sub post {
    my ($self, $mark) = @_;
    my $form = $self->_pick(qw(json json text any lines));
    my ($foreign, $page) = $self->_page;
    my ($coded, @coding) = $self->_coding;
    my $expect = $self->_body($form, $mark);
    my @keys   = $self->_one_in(3) ? $self->_key($mark) : ();
    my @bad_key = !@keys && $self->_one_in(8) ? $self->_malformed_key : ();
    my ($requests, @expect) = ('');

    for my $nth (0 .. (@keys ? 1 : 0)) {
        my ($taken, @type)   = $self->_type($form);
        my ($applied, @prefer) = $self->_prefer;
        my %answer = $foreign ? (status => 403, code => 'foreign_origin')
            : $taken eq 'malformed' ? (status => 400, code => 'bad_type')
            : $taken eq 'unsupported' || $coded ? (status => 415, code => 'unsupported_type')
            : @bad_key ? (status => 400, code => 'bad_key')
            : (%$expect, status => '20[12]', applied => $form eq 'lines' ? '' : $applied, minimal => $applied eq 'return=minimal');
        $answer{again} = 1 if $nth && $answer{status} eq '20[12]' && $expect[0]{status} eq '20[12]';
        push @expect, \%answer;

        my $body   = $expect->{body};
        my @length = ("Content-Length: " . length($body) . $crlf);
        if ($self->_one_in(4)) {
            @length = ('Transfer-Encoding:' . $self->_pick('', ' ') . "chunked$crlf");
            $body = sprintf "%x%s%s%s0%s%s", length $body, $crlf, $body, $crlf, $crlf, $crlf;
        }

        $requests .= $self->_head('POST /post', values_of($page), \@length, $self->_others, [ $self->_lines('Content-Type', @type) ],
            [ $self->_lines('Content-Encoding', @coding) ], [ $self->_lines('Prefer', @prefer) ],
            [ $self->_lines('Idempotency-Key', @keys ? $keys[$nth] : @bad_key) ]) . $body;
    }

    return ($requests, @expect);
}

sub values_of { my ($fields) = @_; return map { $fields->{$_} } sort keys %$fields }

# A body of this form and its message.
sub _body {
    my ($self, $form, $mark) = @_;
    my $json = qq({"mark":"$mark","n":[1,2.50,null]});
    my @lines = map { qq({"mark":"$mark","line":$_}) } 0 .. $self->{random}->below(4);

    $form = $self->_pick('json', 'text') if $form eq 'any';

    return $form eq 'json' ? { json => $json, body => $json }
        : $form eq 'text' ? { text => "$mark, a text", body => "$mark, a text" }
        : { lines => \@lines, body => join "\n", @lines };
}


# If-None-Match and If-Match for a page whose ETag is known. nginx compares these fields: it answers 400 to more than one line,
# and may not find a tag after a tab.
sub get {
    my ($self, $etag) = @_;
    my ($foreign, $page) = $self->_page;
    my $name  = $self->_pick('If-None-Match', 'If-None-Match', 'If-Match', '');
    my $weak  = $name eq 'If-None-Match' ? ['', '', 'W/'] : [''];
    my $found = $self->_one_in(2);
    my @tags  = map { $self->_pick(@$weak) . '"' . $self->_some(6, sub { $self->_pick(@tchar) }) . '"' } 1 .. $self->{random}->below(4);

    splice @tags, $self->{random}->below(1 + @tags), 0, $self->_pick(@$weak) . $etag if $found;
    push @tags, '"other"' if !@tags;
    @tags = ('*') if $self->_one_in(8) and $found = 1;

    my @lines  = $name ? $self->_lines($name, $tags[0] eq '*' ? '*' : join ',', $self->_list(@tags)) : ();
    my $lost   = $name && $lines[0] =~ /:[ ,]*\t|\*[ ]*\t/;
    my $other  = $name ? $name eq 'If-Match' ? 412 : 200 : 200;
    my $status = !$name ? 200 : !$found ? $other : $lost ? ($name eq 'If-Match' ? '200|412' : '200|304') : $name eq 'If-Match' ? 200 : 304;

    my %expect = $foreign ? (status => 403, code => 'foreign_origin') : (status => $status);

    return ($self->_head('GET /get?limit=2&before=3', values_of($page), $self->_others, \@lines), \%expect);
}


1;
