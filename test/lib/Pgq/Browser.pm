package Pgq::Browser;

# A headless Chromium, controlled through chromedriver by the WebDriver protocol.
#
#   my $browser = Pgq::Browser->new(width => 1000)->start;
#   $browser->open($nginx->url('/'));
#   $browser->run('return document.title');         runs JavaScript; arguments are arguments[0], …
#   $browser->keys('abc', 'Tab', 'Control+Enter');  presses keys, wherever the focus is
#   $browser->log;                                  the errors of its console since the last call, and violations of the
#                                                   Content-Security-Policy
#
# Each browser has a new profile.

use strict;
use warnings;

use Carp qw(croak);
use HTTP::Tiny;
use JSON::PP ();

use Pgq::Host qw(ended free_port kill_all descendants spawn temp_dir);
use Pgq::Wait qw(poll_until timeout);

my $json = JSON::PP->new->utf8->allow_nonref;
my %key  = (Tab => "\x{e004}", Enter => "\x{e007}", Shift => "\x{e008}", Control => "\x{e009}", Space => ' ',
    Up => "\x{e013}", Down => "\x{e015}", Delete => "\x{e017}");


# The locations of an nginx with the page and what it uses.
sub locations {
    return <<'END';
error_page 400 403 404 405 500 503 /problem;

        location / { pgq_page; }
        location = /post { pgq_post main; }
        location /post/ { pgq_post main; }
        location = /get { pgq_get main; }
        location = /stream { pgq_stream main; }
        location = /status { pgq_status; }
        location = /metrics { pgq_metrics; }
        location = /problem { internal; pgq_problem; }
END
}


# Options: width (1000), height (800).
sub new {
    my ($class, %option) = @_;

    return bless { width => 1000, height => 800, %option }, $class;
}


sub start {
    my ($self) = @_;
    my $dir  = temp_dir('browser');
    my $port = free_port();

    $self->{http} = HTTP::Tiny->new(timeout => timeout(60));
    $self->{base} = "http://127.0.0.1:$port/session";
    $self->{pid}  = spawn([ 'chromedriver', "--port=$port" ], out => "$dir/chromedriver.log", env => { HOME => $dir, TMPDIR => $dir });

    poll_until { $self->{http}->get("http://127.0.0.1:$port/status")->{success} } 30 or croak 'chromedriver does not start';

    # The sandbox does not work as root, and the only pages are ours.
    my $session = $self->_call(POST => '', {
        capabilities => {
            alwaysMatch => {
                'goog:loggingPrefs'  => { browser => 'ALL' },
                'goog:chromeOptions' => {
                    args => [
                        '--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu',
                        "--user-data-dir=$dir/profile", "--window-size=$self->{width},$self->{height}",
                    ],
                },
            },
        },
    });
    $self->{base} .= "/$session->{sessionId}";

    return $self;
}


sub stop {
    my ($self) = @_;
    my @pids = descendants($self->{pid});

    $self->_call(DELETE => '');
    kill 'TERM', $self->{pid};
    defined ended(delete $self->{pid}, 20) or croak 'chromedriver does not end';
    kill_all('KILL', @pids);

    return $self;
}


sub _call {
    my ($self, $method, $path, $body) = @_;
    my $answer = $self->{http}->request($method, "$self->{base}$path", {
        headers => { 'Content-Type' => 'application/json' },
        $method eq 'POST' ? (content => $json->encode($body // {})) : (),
    });
    my $value = eval { $json->decode($answer->{content})->{value} };

    croak "chromedriver: $method $path: " . (ref $value ? $value->{message} : $answer->{content}) if !$answer->{success};

    return $value;
}


sub open { my ($self, $url) = @_; return $self->_call(POST => '/url', { url => $url }) }

sub reload { return $_[0]->_call(POST => '/refresh') }


sub run {
    my ($self, $script, @arguments) = @_;

    return $self->_call(POST => '/execute/sync', { script => $script, args => \@arguments });
}


# The result of a promise.
sub await {
    my ($self, $promise, @arguments) = @_;

    return $self->_call(POST => '/execute/async', {
        script => "const done = arguments[arguments.length - 1]; ($promise).then(done, (error) => done(String(error)))",
        args   => \@arguments,
    });
}


# The text of the first element that a selector finds; '' without one.
sub text { my ($self, $selector) = @_; return $self->run('return document.querySelector(arguments[0])?.textContent ?? ""', $selector) }

sub wait_for_text {
    my ($self, $selector, $pattern, $seconds) = @_;

    return poll_until { $self->text($selector) =~ $pattern } $seconds // 30;
}


sub click { my ($self, $selector) = @_; return $self->run('document.querySelector(arguments[0]).click()', $selector) }


# Presses keys: a name of a key, some with modifiers (Control+Enter), or a text.
sub keys {
    my ($self, @names) = @_;
    my @action;

    for my $name (@names) {
        my @part = $name =~ /^\w+(?:\+\w+)*$/ && $key{ $name =~ s/.*\+//r } ? map { $key{$_} } split /\+/, $name : ();

        push @action, @part
            ? ((map { { type => 'keyDown', value => $_ } } @part), map { { type => 'keyUp', value => $_ } } reverse @part)
            : map { { type => 'keyDown', value => $_ }, { type => 'keyUp', value => $_ } } split //, $name;
    }

    return $self->_call(POST => '/actions', { actions => [ { type => 'key', id => 'keyboard', actions => \@action } ] });
}


# A command of the DevTools protocol.
sub devtools { my ($self, $command, %parameters) = @_; return $self->_call(POST => '/goog/cdp/execute', { cmd => $command, params => \%parameters }) }

sub set_scheme { return $_[0]->devtools('Emulation.setEmulatedMedia', features => [ { name => 'prefers-color-scheme', value => $_[1] } ]) }

sub set_width {
    my ($self, $width) = @_;

    return $self->devtools('Emulation.setDeviceMetricsOverride', width => $width, height => 640, deviceScaleFactor => 1, mobile => JSON::PP::false);
}


# What the console has logged as errors since the last call. Failed requests are included only with an argument.
sub log {
    my ($self, $requests) = @_;

    return map { "$_->{source}: $_->{message}" } grep { $_->{level} eq 'SEVERE' && ($requests || $_->{source} ne 'network') }
        @{ $self->_call(POST => '/se/log', { type => 'browser' }) };
}


1;
