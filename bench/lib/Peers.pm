package Peers;

# The nginx modules of Debian that send messages to readers: nchan, and push-stream (from Debian 13 on). Each is set up as
# its documentation says: memory for all messages of a run, which are kept for readers that resume.
#
#   Peers::installed()                                 names of peers
#   my ($nginx, $post, $stream) = Peers::start('nchan', workers => 2, connections => 20000, messages => 2000);

use strict;
use warnings;

use Server qw(other_nginx);

my $modules = '/usr/lib/nginx/modules';

my %peer = (
    nchan => {
        module => 'ngx_nchan_module',
        post   => '/pub',
        stream => '/sub',
        http   => 'nchan_shared_memory_size 256m;',
        locations => <<'END',
        location = /pub {
            nchan_publisher;
            nchan_channel_id bench;
            nchan_message_buffer_length %%MESSAGES%%;
            nchan_message_timeout 10m;
        }
        location = /sub {
            nchan_subscriber eventsource;
            nchan_channel_id bench;
        }
END
    },
    push_stream => {
        module => 'ngx_http_push_stream_module',
        post   => '/pub?id=bench',
        stream => '/sub?id=bench',
        http   => <<'END',
    push_stream_shared_memory_size 256m;
    push_stream_max_messages_stored_per_channel %%MESSAGES%%;
    push_stream_message_ttl 10m;
END
        locations => <<'END',
        location = /pub {
            push_stream_publisher admin;
            push_stream_channels_path $arg_id;
            push_stream_store_messages on;
            client_max_body_size 32k;
            client_body_buffer_size 32k;
        }
        location = /sub {
            push_stream_subscriber eventsource;
            push_stream_channels_path $arg_id;
            push_stream_message_template '{"id":~id~,"data":~text~}';
            push_stream_ping_message_interval 10s;
        }
END
    },
);


sub installed { return grep { -e "$modules/$peer{$_}{module}.so" } sort keys %peer }


# Starts the nginx of a peer; returns it, and its URLs for posting and reading.
sub start {
    my ($name, %option) = @_;
    my $peer = $peer{$name} // die "there is no peer $name\n";
    my ($http, $locations) = map { s/%%MESSAGES%%/2 * $option{messages}/gre } @$peer{qw(http locations)};

    my $nginx = other_nginx(
        %option, name => $name, modules => [ $peer->{module} ], listen => 'reuseport', http => $http, locations => $locations,
    )->start;

    return ($nginx, map { $nginx->url($peer->{$_}) } qw(post stream));
}


1;
