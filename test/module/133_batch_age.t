# P2: a batch of unknown outcome is not sent again when the database may have removed its batch id, for example after the
# host was suspended. Changes of the wall clock affect neither this nor /status.

use Pgq;
use Pgq::Host qw(run spew temp_dir top);
use Pgq::Wire;

plan skip_all => 'the library of sanitizers or valgrind must be loaded first' if $ENV{PGQ_SANITIZE} || $ENV{PGQ_VALGRIND};

my $dir = temp_dir('clocks');
chmod 0755, $dir;
my ($status, $out, $err) = run([ 'cc', '-shared', '-fPIC', "-DCLOCKS=\"$dir\"", '-o', "$dir/clocks.so", top() . '/test/tools/clocks.c' ]);
is("$status$out$err", '0', 'the library that changes the clocks is built');

sub set_clock { my ($name, $seconds) = @_; spew("$dir/$name.new", $seconds); return rename "$dir/$name.new", "$dir/$name" }
set_clock($_, 0) for qw(wall boot);

my $pg     = Pgq::Postgres->new->start;
my $wire   = Pgq::Wire->new($pg)->start;
my $nginx  = Pgq::Nginx->new(pg => $pg, conninfo => $wire->conninfo(user => 'ngx_pgq_web'), pool => 'lanes=1', timeout => '60s',
    env => { LD_PRELOAD => "$dir/clocks.so" }, locations => 'location = /status { pgq_status; }')->start;
my $client = Pgq::Client->new($nginx);
my $closed = { in => 'connect', before => 'ReadyForQuery', do => 'hold', times => 0 };

sub pool_status { return Pgq::Client->new($nginx)->get('/status')->status }

# Posts a message, cuts the connection after the commit, and sets a clock before the lane connects again. Returns the
# answer's status, how often the batch was sent again, and the number of its posts.
sub sent_again {
    my ($message, $clock, $seconds) = @_;
    $wire->plan({ in => 'enqueue', before => 'ReadyForQuery', do => 'cut' }, $closed);
    $client->send_post('/post', $message);
    poll_until { $wire->happened } 30;
    set_clock($clock, $seconds);
    poll_until { pool_status() == 503 } 30;
    $wire->plan;
    $wire->cut;
    my $answer = $client->answer(timeout => 60)->status;
    my $sent   = grep { length == 32 } $wire->sent;
    set_clock($clock, 0);
    return "$answer, sent again: $sent, posts: " . $pg->count_posts($message);
}

is(sent_again('"at once"', boot => 0), '202, sent again: 1, posts: 1', 'a batch of unknown outcome is sent again');
is(sent_again('"290 s"', boot => 290), '202, sent again: 1, posts: 1', 'a batch of unknown outcome is sent again after a suspension of 290 s');
is(sent_again('"310 s"', boot => 310), '504, sent again: 0, posts: 1', 'a batch of unknown outcome is not sent again after a suspension of 310 s');
is(sent_again('"3 days"', boot => 259_213), '504, sent again: 0, posts: 1', 'a batch of unknown outcome is not sent again after a suspension of 3 days');
is(sent_again("\"wall $_\"", wall => $_), '202, sent again: 1, posts: 1', "a batch of unknown outcome is sent again when the wall clock is changed by $_ s") for 1, -1, 311, -311, 4381, -4381, 259_213, -259_213;

# ---- /status
for my $seconds (3671, -3671) {
    ok((poll_until { pool_status() == 200 } 30), 'the status is 200 when the lane is connected');
    set_clock('wall', $seconds);
    is(pool_status(), 200, "the status is 200 when the wall clock is changed by $seconds s");
    $wire->plan($closed);
    $wire->cut;
    ok((poll_until { pool_status() == 503 } 30), 'the status is 503 when the lane is not connected');
    $wire->plan;
    $wire->cut;
    set_clock('wall', 0);
}

done_testing;
