/* SPDX-License-Identifier: PostgreSQL */

/*
 * What a reader sends: the next text or group after its cursor, as a chain of
 * buffers that are used again.  ngx_pgq_reader.c owns the readers.
 *
 * Invariants:
 *  - a reader has at most one group in the output of nginx, and sends nothing
 *    else until all of it is taken;
 *  - the cursor only grows, except by a reset, which the client is told;
 *  - a group is released when its request has no more output, or with the
 *    memory of the request: HTTP/2 may send a frame after the request ended.
 */

#include "ngx_pgq_reader.h"


#define NGX_PGQ_DELIVERY_PIECES  32      /* buffers of one output */


static ngx_int_t ngx_pgq_delivery_locate(ngx_pgq_reader_t *rd,
    ngx_pgq_ring_state_t *state);
static ngx_int_t ngx_pgq_delivery_send(ngx_pgq_reader_t *rd,
    ngx_pgq_frame_group_t *group);
static ngx_buf_t *ngx_pgq_delivery_piece(ngx_pgq_reader_t *rd,
    ngx_chain_t ***last);
static ngx_int_t ngx_pgq_delivery_answer(ngx_pgq_reader_t *rd,
    ngx_pgq_frame_group_t *group);


/*
 * Sends one text or one group.  NGX_OK: there may be more to send; NGX_AGAIN:
 * the reader waits; NGX_DONE: it has ended.
 */

ngx_int_t
ngx_pgq_delivery_step(ngx_pgq_reader_t *rd)
{
    u_char                  text[NGX_PGQ_FRAME_TEXT];
    ngx_int_t               rc;
    ngx_pgq_readers_t      *readers;
    ngx_pgq_ring_state_t    state;
    ngx_pgq_frame_group_t  *group;

    if (rd->blocked) {
        return NGX_AGAIN;
    }

    if (rd->socket && rd->opened) {
        rc = ngx_pgq_socket_step(rd->socket);

        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    if (rd->asking || rd->failed) {
        return NGX_AGAIN;
    }

    readers = rd->readers;

    if (!rd->opened) {
        rd->opened = 1;

        if (rd->transport == NGX_PGQ_TRANSPORT_PAGE) {
            ngx_pgq_reader_end_at(rd, ngx_current_msec + rd->heartbeat,
                                  NGX_PGQ_READER_ANSWERED);
            return NGX_OK;
        }

        return ngx_pgq_delivery_text(rd, text,
                                     ngx_pgq_frame_open(text, rd->transport));
    }

    if (rd->next) {
        group = rd->next;
        rd->next = NULL;

        return ngx_pgq_delivery_send(rd, group);
    }

    ngx_pgq_ring_state(readers->db->ring, &state);

    if (!state.loaded) {
        return NGX_AGAIN;
    }

    if (!rd->located) {
        return ngx_pgq_delivery_locate(rd, &state);
    }

    if (rd->epoch != state.epoch) {
        /* ids may have gone back, by a restore */
        rd->epoch = state.epoch;
        rd->checked = 0;
    }

    if (rd->cursor >= state.newest) {
        /* this host may be behind the one that has sent the id */
        return rd->cursor == state.newest || rd->checked
               ? NGX_AGAIN : ngx_pgq_history_ask(rd, &state);
    }

    /* posts that came during the round are for the next one */

    if (readers->round && rd->checked && rd->cursor >= readers->upto) {
        return NGX_AGAIN;
    }

    rd->checked = 1;

    group = ngx_pgq_frame_find(&readers->cache, rd->transport, &state,
                               rd->cursor);
    if (group) {
        return ngx_pgq_delivery_send(rd, group);
    }

    if (rd->cursor < state.since) {
        return ngx_pgq_history_ask(rd, &state);
    }

    rc = ngx_pgq_frame_ring(&readers->cache, rd->transport, readers->db->ring,
                            &state, rd->cursor, &group);

    switch (rc) {

    case NGX_OK:
        return ngx_pgq_delivery_send(rd, group);

    case NGX_DECLINED:
        /* overwritten meanwhile: the next step reads the new state */
        return NGX_OK;

    case NGX_DONE:
        return ngx_pgq_history_ask(rd, &state);

    default:
        return rc;
    }
}


/* finds the cursor of a reader that starts */

static ngx_int_t
ngx_pgq_delivery_locate(ngx_pgq_reader_t *rd, ngx_pgq_ring_state_t *state)
{
    ngx_pgq_ring_entry_t  e;

    rd->epoch = state->epoch;

    switch (rd->start) {

    case NGX_PGQ_READER_UNKNOWN:
        return ngx_pgq_delivery_reset(rd, NGX_PGQ_RESET_UNKNOWN,
                                      state->since + 1, state->newest);

    case NGX_PGQ_READER_ID:
        ngx_pgq_metrics_resume(rd->cursor >= state->since
                               ? NGX_PGQ_METRICS_FROM_RING
                               : NGX_PGQ_METRICS_FROM_DATABASE);
        return ngx_pgq_delivery_located(rd, rd->cursor);

    case NGX_PGQ_READER_NEWEST:
        break;
    }

    if (rd->newest == 0) {
        return ngx_pgq_delivery_located(rd, state->newest);
    }

    if (rd->filter || rd->newest > state->end - state->first) {
        return ngx_pgq_history_ask(rd, state);
    }

    if (ngx_pgq_ring_entry(rd->readers->db->ring, state->end - rd->newest, &e)
        != NGX_OK)
    {
        return NGX_OK;
    }

    return ngx_pgq_delivery_located(rd, e.id - 1);
}


ngx_int_t
ngx_pgq_delivery_located(ngx_pgq_reader_t *rd, int64_t cursor)
{
    u_char  text[NGX_PGQ_FRAME_TEXT], *last;

    rd->located = 1;
    rd->cursor = cursor;
    rd->ctx->cursor = cursor;

    last = ngx_pgq_frame_start(text, rd->transport, cursor);

    return last == text ? NGX_OK : ngx_pgq_delivery_text(rd, text, last);
}


/* tells the client that it has missed posts; it goes on after the newest */

ngx_int_t
ngx_pgq_delivery_reset(ngx_pgq_reader_t *rd, ngx_pgq_reset_e reason,
    int64_t oldest, int64_t newest)
{
    u_char  text[NGX_PGQ_FRAME_TEXT], *last;

    ngx_pgq_metrics_resume(NGX_PGQ_METRICS_FROM_RESET);

    rd->located = 1;
    rd->checked = 1;
    rd->cursor = newest;
    rd->ctx->cursor = newest;

    last = ngx_pgq_frame_reset(text, rd->transport, reason, oldest, newest);

    if (rd->transport != NGX_PGQ_TRANSPORT_PAGE) {
        return ngx_pgq_delivery_text(rd, text, last);
    }

    rd->body.len = last - text;
    rd->body.data = ngx_pnalloc(rd->request->pool, rd->body.len);
    if (rd->body.data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(rd->body.data, text, rd->body.len);
    ngx_pgq_reader_finish(rd, NGX_PGQ_READER_ANSWERED);

    return NGX_DONE;
}


/* takes over the holder of the group */

static ngx_int_t
ngx_pgq_delivery_send(ngx_pgq_reader_t *rd, ngx_pgq_frame_group_t *group)
{
    u_char           *data;
    ngx_uint_t        i, n, pieces;
    ngx_buf_t        *b;
    ngx_chain_t      *out, **last;
    ngx_pgq_frame_t  *frame;

    if (rd->transport == NGX_PGQ_TRANSPORT_PAGE) {
        return ngx_pgq_delivery_answer(rd, group);
    }

    if (rd->filter && group->topics == 0) {
        /* no filter admits a post without a topic */
        rd->cursor = group->upto;
        ngx_pgq_frame_release(group);
        return NGX_OK;
    }

    rd->group = group;
    out = NULL;
    last = &out;
    b = NULL;
    n = 0;
    pieces = 0;

    for (i = ngx_pgq_frame_after(group, rd->cursor); i < group->n; i++) {
        frame = &group->frames[i];

        if (!ngx_pgq_frame_admitted(group, frame, rd->filter)) {
            continue;
        }

        data = group->data + frame->begin;

        if (b == NULL || b->last != data) {

            if (pieces++ == NGX_PGQ_DELIVERY_PIECES) {
                break;
            }

            b = ngx_pgq_delivery_piece(rd, &last);
            if (b == NULL) {
                return NGX_ERROR;
            }

            b->memory = 1;
            b->pos = data;
        }

        b->last = group->data + frame[1].begin;
        rd->ctx->cursor = frame->id;
        n++;
    }

    rd->cursor = i == group->n ? group->upto : group->frames[i - 1].id;

    if (out == NULL) {
        ngx_pgq_frame_release(group);
        rd->group = NULL;
        return NGX_OK;
    }

    b->flush = 1;
    rd->ctx->frames += n;
    ngx_pgq_metrics_add(NGX_PGQ_METRICS_FRAMES, n);

    return ngx_pgq_delivery_output(rd, out);
}


ngx_int_t
ngx_pgq_delivery_text(ngx_pgq_reader_t *rd, u_char *text, u_char *last)
{
    ngx_buf_t    *b;
    ngx_chain_t  *out, **next;

    out = NULL;
    next = &out;

    b = ngx_pgq_delivery_piece(rd, &next);
    if (b == NULL) {
        return NGX_ERROR;
    }

    if (last > text) {
        rd->group = ngx_pgq_frame_text(text, last - text);
        if (rd->group == NULL) {
            return NGX_ERROR;
        }

        b->memory = 1;
        b->pos = rd->group->data;
        b->last = b->pos + (last - text);
    }

    b->flush = 1;

    return ngx_pgq_delivery_output(rd, out);
}


/* adds an empty buffer to a chain */

static ngx_buf_t *
ngx_pgq_delivery_piece(ngx_pgq_reader_t *rd, ngx_chain_t ***last)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = ngx_chain_get_free_buf(rd->request->pool, &rd->free);
    if (cl == NULL) {
        return NULL;
    }

    b = cl->buf;
    ngx_memzero(b, sizeof(ngx_buf_t));

    b->tag = (ngx_buf_tag_t) &ngx_http_pgq_module;

    **last = cl;
    *last = &cl->next;

    return b;
}


/* sends the chain, or more of what the socket has not taken */

ngx_int_t
ngx_pgq_delivery_output(ngx_pgq_reader_t *rd, ngx_chain_t *out)
{
    ngx_int_t                  rc;
    ngx_event_t               *wev;
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_pgq_ring_state_t       state;
    ngx_http_core_loc_conf_t  *clcf;

    r = rd->request;
    c = r->connection;
    wev = c->write;

    rd->sent = ngx_current_msec;

    rc = ngx_http_output_filter(r, out);

    ngx_chain_update_chains(r->pool, &rd->free, &rd->busy, &out,
                            (ngx_buf_tag_t) &ngx_http_pgq_module);

    if (rc == NGX_ERROR || c->error) {
        return NGX_ERROR;
    }

    if (rd->busy == NULL && !c->buffered) {

        if (rd->group) {
            ngx_pgq_frame_release(rd->group);
            rd->group = NULL;
        }

        return NGX_OK;
    }

    if (!rd->blocked) {
        rd->blocked = 1;
        ngx_pgq_ring_state(rd->readers->db->ring, &state);
        rd->mark = state.position;
        ngx_pgq_reader_move(rd, &rd->readers->blocked);
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (!wev->delayed) {
        ngx_add_timer(wev, clcf->send_timeout);
    }

    return ngx_handle_write_event(wev, clcf->send_lowat) == NGX_OK
           ? NGX_AGAIN : NGX_ERROR;
}


/* answers a long poll with the posts of the group, which it releases */

static ngx_int_t
ngx_pgq_delivery_answer(ngx_pgq_reader_t *rd, ngx_pgq_frame_group_t *group)
{
    u_char           *p;
    ngx_uint_t        i;
    ngx_pgq_frame_t  *frame;

    rd->group = group;

    p = ngx_pnalloc(rd->request->pool, group->size + NGX_PGQ_FRAME_TEXT);
    if (p == NULL) {
        return NGX_ERROR;
    }

    rd->body.data = p;
    p = ngx_cpymem(p, "{\"msg\":[", sizeof("{\"msg\":[") - 1);

    for (i = ngx_pgq_frame_after(group, rd->cursor);
         i < group->n && rd->ctx->frames < rd->limit;
         i++)
    {
        frame = &group->frames[i];

        if (!ngx_pgq_frame_admitted(group, frame, rd->filter)) {
            continue;
        }

        p = ngx_cpymem(p, group->data + frame->begin,
                       frame[1].begin - frame->begin);
        rd->ctx->frames++;
    }

    rd->cursor = i == group->n ? group->upto : group->frames[i - 1].id;

    rd->group = NULL;
    ngx_pgq_frame_release(group);

    if (rd->ctx->frames == 0) {
        return NGX_OK;
    }

    /* the last comma */
    p--;

    p = ngx_sprintf(p, "],\"next\":%L}", rd->cursor);

    rd->body.len = p - rd->body.data;
    rd->ctx->cursor = rd->cursor;

    ngx_pgq_metrics_add(NGX_PGQ_METRICS_FRAMES, rd->ctx->frames);
    ngx_pgq_reader_finish(rd, NGX_PGQ_READER_ANSWERED);

    return NGX_DONE;
}


/* the response to a long poll, which may be over without a post */

ngx_int_t
ngx_pgq_delivery_page(ngx_pgq_reader_t *rd)
{
    ngx_str_t            type;
    ngx_http_request_t  *r;

    r = rd->request;

    if (!rd->located) {
        return ngx_pgq_reply_unavailable(r, rd->readers->db->reads,
                                         rd->problem);
    }

    if (rd->body.len == 0) {
        rd->body.data = ngx_pnalloc(r->pool, NGX_PGQ_FRAME_TEXT);
        if (rd->body.data == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        rd->body.len = ngx_sprintf(rd->body.data, "{\"msg\":[],\"next\":%L}",
                                   rd->cursor)
                       - rd->body.data;
    }

    type = ngx_pgq_transports[rd->transport].type;

    return ngx_pgq_reply_body(r, NGX_HTTP_OK, &type, rd->body.data,
                              rd->body.len);
}
