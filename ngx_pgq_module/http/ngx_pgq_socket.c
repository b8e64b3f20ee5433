/* SPDX-License-Identifier: PostgreSQL */

/*
 * The server's side of a WebSocket (RFC 6455): the handshake, the frames of
 * the client, and the Close frame at the end.  delivery.c sends the posts,
 * publish.c takes those of the client.
 *
 * Invariants:
 *  - a frame is never sent within another one: while the socket is full, only
 *    the last Ping is kept, and is answered later (RFC 6455 5.5.3);
 *  - what a client sends does not increase the memory of its request;
 *  - nothing is read after a Close frame or an error: nginx discards what
 *    follows, until the client closes the connection or lingering_timeout.
 */

#include "ngx_pgq_publish.h"
#include "ngx_pgq_websocket.h"

#include <ngx_sha1.h>


#define NGX_PGQ_SOCKET_INPUT     16384   /* bytes that are read in one event */

#define NGX_PGQ_SOCKET_WAIT      50      /* ms, for answers at the end */

#define NGX_PGQ_SOCKET_GUID      "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


struct ngx_pgq_socket_s {
    ngx_pgq_reader_t        *reader;
    ngx_pgq_publish_t       *publish;   /* NULL: the client may only read */
    ngx_pgq_websocket_t      frames;
    ngx_uint_t               code;      /* of the Close frame; 0: by reason */
    const char              *text;      /* its reason */
    size_t                   pong_len;
    u_char                   pong[NGX_PGQ_WEBSOCKET_CONTROL_MAX];
    unsigned                 pinged:1;  /* pong is to be sent */
};


static ngx_uint_t ngx_pgq_socket_body(ngx_http_request_t *r);
static ngx_uint_t ngx_pgq_socket_key(ngx_str_t *key);
static size_t ngx_pgq_socket_max(ngx_http_request_t *r);
static void ngx_pgq_socket_read_handler(ngx_http_request_t *r);
static void ngx_pgq_socket_timer(ngx_pgq_socket_t *s);
static ngx_int_t ngx_pgq_socket_input(ngx_pgq_socket_t *s, u_char *p,
    u_char *end);
static ngx_int_t ngx_pgq_socket_event(ngx_pgq_socket_t *s,
    ngx_pgq_websocket_event_e kind, ngx_pgq_websocket_event_t *event);
static ngx_int_t ngx_pgq_socket_piece(ngx_pgq_socket_t *s,
    ngx_pgq_websocket_event_t *event);
static ngx_int_t ngx_pgq_socket_ping(ngx_pgq_socket_t *s,
    ngx_pgq_websocket_event_t *event);
static ngx_int_t ngx_pgq_socket_refuse(ngx_pgq_socket_t *s, ngx_uint_t code,
    const char *text);


#define ngx_pgq_socket_full(s)                                                \
    ((s)->publish && ngx_pgq_publish_full((s)->publish))


/* HTTP/1.0 and HTTP/2 have no Upgrade: the request gets another transport */

ngx_uint_t
ngx_pgq_socket_asked(ngx_pgq_reader_t *rd)
{
    return rd->ctx->fields.websocket
           && rd->request->method == NGX_HTTP_GET
           && rd->request->http_version == NGX_HTTP_VERSION_11;
}


/* checks the handshake; NGX_DECLINED: it is refused */

ngx_int_t
ngx_pgq_socket_create(ngx_pgq_reader_t *rd, ngx_pgq_problem_t *problem)
{
    ngx_str_t           *version;
    ngx_pgq_fields_t    *fields;
    ngx_pgq_socket_t    *s;
    ngx_http_request_t  *r;

    r = rd->request;
    fields = &rd->ctx->fields;
    version = fields->websocket_version;

    if (!fields->upgrade || fields->websocket_repeated
        || version == NULL || fields->websocket_key == NULL
        || !ngx_pgq_socket_key(fields->websocket_key)
        || ngx_pgq_socket_body(r))
    {
        problem->kind = NGX_PGQ_PROBLEM_BAD_HANDSHAKE;
        return NGX_DECLINED;
    }

    if (ngx_atoi(version->data, version->len) != 13) {

        if (ngx_pgq_reply_field(r, "Upgrade", "websocket") != NGX_OK
            || ngx_pgq_reply_field(r, "Sec-WebSocket-Version", "13")
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        problem->kind = NGX_PGQ_PROBLEM_UPGRADE_REQUIRED;
        problem->detail = "The version of the WebSocket protocol must be 13.";
        return NGX_DECLINED;
    }

    s = ngx_pcalloc(r->pool, sizeof(ngx_pgq_socket_t));
    if (s == NULL) {
        return NGX_ERROR;
    }

    s->reader = rd;
    s->frames.max = ngx_pgq_socket_max(r);

    rd->socket = s;
    rd->transport = NGX_PGQ_TRANSPORT_WEBSOCKET;

    return ngx_pgq_publish_create(rd, (size_t) s->frames.max, &s->publish,
                                  problem);
}


/* whether the request has a body, which may have been discarded */

static ngx_uint_t
ngx_pgq_socket_body(ngx_http_request_t *r)
{
    ngx_table_elt_t  *len;

    len = r->headers_in.content_length;

    return r->headers_in.chunked
           || (len && ngx_atoof(len->value.data, len->value.len) != 0);
}


/* 16 bytes in base64 */

static ngx_uint_t
ngx_pgq_socket_key(ngx_str_t *key)
{
    u_char     bytes[ngx_base64_decoded_length(24)];
    ngx_str_t  decoded;

    decoded.data = bytes;

    return key->len == 24 && ngx_decode_base64(&decoded, key) == NGX_OK
           && decoded.len == 16;
}


static size_t
ngx_pgq_socket_max(ngx_http_request_t *r)
{
    ngx_pgq_loc_conf_t        *plcf;
    ngx_http_core_loc_conf_t  *clcf;

    plcf = ngx_http_get_module_loc_conf(r, ngx_http_pgq_module);
    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->client_max_body_size == 0
        || clcf->client_max_body_size > (off_t) plcf->stream->max_size)
    {
        return plcf->stream->max_size;
    }

    return (size_t) clcf->client_max_body_size;
}


/* nginx adds "Connection: upgrade", and sends no chunks after status 101 */

ngx_int_t
ngx_pgq_socket_header(ngx_pgq_reader_t *rd)
{
    u_char               hash[20], text[ngx_base64_encoded_length(20)];
    ngx_str_t           *key, accept, digest;
    ngx_sha1_t           sha1;
    ngx_http_request_t  *r;

    r = rd->request;
    key = rd->ctx->fields.websocket_key;

    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, key->data, key->len);
    ngx_sha1_update(&sha1, NGX_PGQ_SOCKET_GUID,
                    sizeof(NGX_PGQ_SOCKET_GUID) - 1);
    ngx_sha1_final(hash, &sha1);

    digest.data = hash;
    digest.len = sizeof(hash);
    accept.data = text;

    ngx_encode_base64(&accept, &digest);

    if (ngx_pgq_reply_field(r, "Upgrade", "websocket") != NGX_OK
        || ngx_pgq_reply_field(r, "Sec-WebSocket-Accept", "%V", &accept)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    r->keepalive = 0;
    r->headers_out.status = NGX_HTTP_SWITCHING_PROTOCOLS;
    ngx_str_set(&r->headers_out.status_line, "101 Switching Protocols");

    return NGX_OK;
}


/* called when the reader has started; the client may have sent frames */

void
ngx_pgq_socket_start(ngx_pgq_socket_t *s)
{
    ngx_http_request_t  *r;

    r = s->reader->request;

    r->read_event_handler = ngx_pgq_socket_read_handler;
    ngx_post_event(r->connection->read, &ngx_posted_events);
}


static void
ngx_pgq_socket_read_handler(ngx_http_request_t *r)
{
    ssize_t            n;
    ngx_buf_t         *b;
    ngx_pgq_ctx_t     *ctx;
    ngx_connection_t  *c;
    ngx_pgq_reader_t  *rd;
    ngx_pgq_socket_t  *s;

    static u_char      input[NGX_PGQ_SOCKET_INPUT];

    c = r->connection;
    ctx = ngx_http_get_module_ctx(r, ngx_http_pgq_module);
    rd = ctx->reader;
    s = rd->socket;
    b = r->header_in;

    if (c->read->timedout) {
        c->read->timedout = 0;
        (void) ngx_pgq_socket_refuse(s, NGX_PGQ_WEBSOCKET_POLICY,
                                     "message too slow");
        return;
    }

    if (b->pos < b->last) {
        /* came with the handshake */
        n = b->last - b->pos;
        b->pos = b->last;

        if (ngx_pgq_socket_input(s, b->last - n, b->last) != NGX_OK) {
            return;
        }
    }

    n = ngx_pgq_socket_full(s) ? NGX_AGAIN
                               : c->recv(c, input, NGX_PGQ_SOCKET_INPUT);

    if (n == 0 || n == NGX_ERROR) {
        c->error = 1;
        ngx_http_finalize_request(r, NGX_HTTP_CLIENT_CLOSED_REQUEST);
        return;
    }

    if (n > 0 && ngx_pgq_socket_input(s, input, input + n) != NGX_OK) {
        return;
    }

    if (c->read->ready && !ngx_pgq_socket_full(s)) {
        ngx_post_event(c->read, &ngx_posted_next_events);
    }

    ngx_pgq_socket_timer(s);

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_pgq_reader_finish(rd, NGX_PGQ_READER_ERROR);
    }
}


/* the rest of a message has to come in time */

static void
ngx_pgq_socket_timer(ngx_pgq_socket_t *s)
{
    ngx_event_t               *rev;
    ngx_http_core_loc_conf_t  *clcf;

    rev = s->reader->request->connection->read;

    if (s->publish && s->publish->partial && !ngx_pgq_socket_full(s)) {
        clcf = ngx_http_get_module_loc_conf(s->reader->request,
                                            ngx_http_core_module);
        ngx_add_timer(rev, clcf->client_body_timeout);

    } else if (rev->timer_set) {
        ngx_del_timer(rev);
    }
}


/* returns NGX_DONE if the reader has ended */

static ngx_int_t
ngx_pgq_socket_input(ngx_pgq_socket_t *s, u_char *p, u_char *end)
{
    ngx_pgq_websocket_event_e  kind;
    ngx_pgq_websocket_event_t  event;

    for ( ;; ) {
        kind = ngx_pgq_websocket_read(&s->frames, &p, end, &event);

        if (kind == NGX_PGQ_WEBSOCKET_MORE) {
            return NGX_OK;
        }

        if (ngx_pgq_socket_event(s, kind, &event) != NGX_OK) {
            return NGX_DONE;
        }
    }
}


static ngx_int_t
ngx_pgq_socket_event(ngx_pgq_socket_t *s, ngx_pgq_websocket_event_e kind,
    ngx_pgq_websocket_event_t *event)
{
    if (kind == NGX_PGQ_WEBSOCKET_ERROR) {
        return ngx_pgq_socket_refuse(s, event->code,
                   event->code == NGX_PGQ_WEBSOCKET_TOO_LARGE
                   ? "message too large"
                   : event->code == NGX_PGQ_WEBSOCKET_BAD_TEXT
                   ? "text is not UTF-8" : "invalid frame");
    }

    if (kind == NGX_PGQ_WEBSOCKET_PIECE) {
        return ngx_pgq_socket_piece(s, event);
    }

    if (event->opcode == NGX_PGQ_WEBSOCKET_PING) {
        return ngx_pgq_socket_ping(s, event);
    }

    if (event->opcode == NGX_PGQ_WEBSOCKET_CLOSE) {
        s->code = event->code == NGX_PGQ_WEBSOCKET_NO_CODE
                  ? NGX_PGQ_WEBSOCKET_NORMAL : event->code;
        s->text = "";
        ngx_pgq_reader_finish(s->reader, NGX_PGQ_READER_CLIENT);
        return NGX_DONE;
    }

    /* a Pong needs no answer */

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_socket_piece(ngx_pgq_socket_t *s, ngx_pgq_websocket_event_t *event)
{
    if (event->opcode == NGX_PGQ_WEBSOCKET_BINARY) {
        return ngx_pgq_socket_refuse(s, NGX_PGQ_WEBSOCKET_UNSUPPORTED,
                                     "binary message");
    }

    if (s->publish == NULL) {
        return ngx_pgq_socket_refuse(s, NGX_PGQ_WEBSOCKET_POLICY,
                                     "messages are not accepted");
    }

    if (ngx_pgq_publish_piece(s->publish, event->data, event->len,
                              event->last)
        != NGX_OK)
    {
        return ngx_pgq_socket_refuse(s, NGX_PGQ_WEBSOCKET_TRY_LATER,
                                     "too many partial messages");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_pgq_socket_ping(ngx_pgq_socket_t *s, ngx_pgq_websocket_event_t *event)
{
    ngx_pgq_reader_t  *rd;

    rd = s->reader;

    ngx_memcpy(s->pong, event->data, event->len);
    s->pong_len = event->len;
    s->pinged = 1;

    if (!rd->opened || rd->blocked) {
        return NGX_OK;
    }

    if (ngx_pgq_socket_step(s) == NGX_ERROR) {
        ngx_pgq_reader_finish(rd, NGX_PGQ_READER_ERROR);
        return NGX_DONE;
    }

    return NGX_OK;
}


/* closes the connection for what the client has sent */

static ngx_int_t
ngx_pgq_socket_refuse(ngx_pgq_socket_t *s, ngx_uint_t code, const char *text)
{
    ngx_log_error(NGX_LOG_INFO, s->reader->request->connection->log, 0,
                  "pgq socket: closed with %ui: %s", code, text);

    s->code = code;
    s->text = text;
    ngx_pgq_reader_finish(s->reader, NGX_PGQ_READER_REFUSED);

    return NGX_DONE;
}


/* sends what waited for the socket; NGX_DECLINED: nothing did */

ngx_int_t
ngx_pgq_socket_step(ngx_pgq_socket_t *s)
{
    u_char  frame[NGX_PGQ_FRAME_TEXT], *p;

    if (!s->pinged) {
        return s->publish ? ngx_pgq_publish_step(s->publish) : NGX_DECLINED;
    }

    s->pinged = 0;

    p = ngx_pgq_websocket_header(frame, NGX_PGQ_WEBSOCKET_PONG, s->pong_len);
    p = ngx_cpymem(p, s->pong, s->pong_len);

    return ngx_pgq_delivery_text(s->reader, frame, p);
}


/*
 * Called at the end of a reader: whether its end has to wait for answers to
 * posts of the client, of which no more are read.
 */

ngx_uint_t
ngx_pgq_socket_waits(ngx_pgq_reader_t *rd)
{
    if (rd->socket == NULL || rd->socket->publish == NULL || rd->blocked) {
        return 0;
    }

    rd->socket->publish->closing = 1;

    if (rd->socket->publish->n == 0) {
        return 0;
    }

    /* a partial message can no longer become complete */
    ngx_pgq_socket_timer(rd->socket);

    rd->end = ngx_current_msec + NGX_PGQ_SOCKET_WAIT;

    return 1;
}


/* sends the Close frame; the socket is not full */

void
ngx_pgq_socket_close(ngx_pgq_socket_t *s, ngx_pgq_reader_end_e reason)
{
    u_char  frame[NGX_PGQ_FRAME_TEXT], *p;

    static const char  *reasons[] = {
        [NGX_PGQ_READER_AGE] = "age",
        [NGX_PGQ_READER_UNTIL] = "until",
        [NGX_PGQ_READER_DRAIN] = "drain"
    };

    if (s->code == 0) {
        s->code = NGX_PGQ_WEBSOCKET_GOING_AWAY;
        s->text = reasons[reason];
    }

    p = ngx_pgq_websocket_close(frame, s->code, s->text);

    (void) ngx_pgq_delivery_text(s->reader, frame, p);

    /* unread input would make the kernel discard the frame */

    s->reader->request->lingering_close = 1;
}
