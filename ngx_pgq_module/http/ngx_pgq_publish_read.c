/* SPDX-License-Identifier: PostgreSQL */

/*
 * Reads and checks a message of a WebSocket: an object with the member post,
 * which is sent to the database as it is, and topic, key and ref.
 *
 * Invariants:
 *  - a post passes the same checks as the body of a POST of JSON;
 *  - an object with an unknown member, or with one twice, is refused: it may
 *    be a misspelled topic or key;
 *  - ref is known also of a message that is refused, if it is JSON.
 */

#include "ngx_pgq_publish.h"
#include "ngx_pgq_json.h"
#include "ngx_pgq_member.h"
#include "ngx_pgq_topic.h"

#include <cjson/cJSON.h>


static ngx_int_t ngx_pgq_publish_read_members(u_char *data, size_t len,
    ngx_pgq_publish_message_t *m);
static ngx_int_t ngx_pgq_publish_read_topic(ngx_pgq_publish_t *p,
    ngx_pgq_publish_message_t *m, ngx_pgq_problem_t *problem);
static ngx_int_t ngx_pgq_publish_read_key(ngx_pgq_publish_t *p,
    ngx_pgq_publish_message_t *m, ngx_pgq_problem_t *problem);
static ssize_t ngx_pgq_publish_read_text(ngx_str_t *value, u_char *text);


ngx_int_t
ngx_pgq_publish_read(ngx_pgq_publish_t *p, ngx_pgq_publish_message_t *m,
    u_char *data, size_t len, ngx_pgq_problem_t *problem)
{
    ngx_int_t              rc;
    ngx_pgq_loc_conf_t    *plcf;
    ngx_pgq_json_error_t   err;

    ngx_str_null(&m->post);
    ngx_str_null(&m->topic);
    ngx_str_null(&m->key);
    ngx_str_null(&m->ref);

    plcf = ngx_http_get_module_loc_conf(p->reader->request,
                                        ngx_http_pgq_module);

    /* the post is one level below the message */

    if (ngx_pgq_json_check(data, len, (unsigned) plcf->depth + 1, &err) != 0) {
        *ngx_slprintf(m->detail, m->detail + sizeof(m->detail) - 1,
                      "%s, at byte %uz", err.problem, err.offset) = '\0';

        problem->kind = NGX_PGQ_PROBLEM_NOT_JSON;
        problem->detail = (char *) m->detail;
        return NGX_DECLINED;
    }

    if (ngx_pgq_publish_read_members(data, len, m) != NGX_OK
        || m->post.len == 0)
    {
        problem->kind = NGX_PGQ_PROBLEM_BAD_MESSAGE;
        return NGX_DECLINED;
    }

    rc = ngx_pgq_publish_read_topic(p, m, problem);

    return rc == NGX_OK ? ngx_pgq_publish_read_key(p, m, problem) : rc;
}


/* a name with escapes is unknown */

static ngx_int_t
ngx_pgq_publish_read_members(u_char *data, size_t len,
    ngx_pgq_publish_message_t *m)
{
    ngx_int_t          rc;
    ngx_str_t         *value;
    ngx_uint_t         i;
    const u_char      *pos;
    ngx_pgq_member_t   member;

    static const struct {
        ngx_str_t      name;
        size_t         offset;
    } names[] = {
        { ngx_string("\"post\""), offsetof(ngx_pgq_publish_message_t, post) },
        { ngx_string("\"topic\""),
          offsetof(ngx_pgq_publish_message_t, topic) },
        { ngx_string("\"key\""), offsetof(ngx_pgq_publish_message_t, key) },
        { ngx_string("\"ref\""), offsetof(ngx_pgq_publish_message_t, ref) },
        { ngx_null_string, 0 }
    };

    pos = data;
    rc = NGX_OK;

    while (ngx_pgq_member_next(&pos, data + len, &member)) {

        for (i = 0; names[i].name.len; i++) {
            if (member.name_len == names[i].name.len
                && ngx_memcmp(member.name, names[i].name.data,
                              member.name_len)
                   == 0)
            {
                break;
            }
        }

        value = (ngx_str_t *) ((u_char *) m + names[i].offset);

        if (names[i].name.len == 0 || value->len) {
            rc = NGX_DECLINED;
            continue;
        }

        value->data = (u_char *) member.value;
        value->len = member.value_len;
    }

    if (m->ref.len
        && (m->ref.len > NGX_PGQ_PUBLISH_REF
            || ngx_strchr("\"-0123456789", m->ref.data[0]) == NULL))
    {
        m->ref.len = 0;
        return NGX_DECLINED;
    }

    return rc;
}


/* replaces the JSON text of the topic by the topic */

static ngx_int_t
ngx_pgq_publish_read_topic(ngx_pgq_publish_t *p,
    ngx_pgq_publish_message_t *m, ngx_pgq_problem_t *problem)
{
    u_char   *topic;
    ssize_t   n;

    topic = m->topic_text;
    n = m->topic.len ? ngx_pgq_publish_read_text(&m->topic, topic) : 0;

    if (n < 0 || (n > 0 && !ngx_pgq_topic_valid(topic, n))) {
        problem->kind = NGX_PGQ_PROBLEM_BAD_TOPIC;
        return NGX_DECLINED;
    }

    if (!ngx_pgq_filter_admits(p->rights, topic, n)) {
        problem->kind = NGX_PGQ_PROBLEM_FORBIDDEN_TOPIC;
        return NGX_DECLINED;
    }

    m->topic.data = topic;
    m->topic.len = n;

    return NGX_OK;
}


/* replaces the JSON text of the key by the scope and the key */

static ngx_int_t
ngx_pgq_publish_read_key(ngx_pgq_publish_t *p, ngx_pgq_publish_message_t *m,
    ngx_pgq_problem_t *problem)
{
    u_char              *last;
    ssize_t              i, n;
    ngx_pgq_loc_conf_t  *plcf;

    plcf = ngx_http_get_module_loc_conf(p->reader->request,
                                        ngx_http_pgq_module);

    if (plcf->idempotency == NGX_PGQ_IDEMPOTENCY_OFF) {
        m->key.len = 0;
        return NGX_OK;
    }

    if (m->key.len == 0) {
        problem->kind = NGX_PGQ_PROBLEM_KEY_REQUIRED;
        return plcf->idempotency == NGX_PGQ_IDEMPOTENCY_REQUIRED
               ? NGX_DECLINED : NGX_OK;
    }

    last = ngx_cpymem(m->key_text, p->scope.data, p->scope.len);
    n = ngx_pgq_publish_read_text(&m->key, last);

    for (i = 0; i < n; i++) {
        if (last[i] < 0x20 || last[i] > 0x7e) {
            n = -1;
        }
    }

    if (n < 1 || n > NGX_PGQ_KEY_MAX) {
        problem->kind = NGX_PGQ_PROBLEM_BAD_KEY;
        problem->detail = "The key must be a string of 1 to 255 visible ASCII"
                          " characters or spaces.";
        return NGX_DECLINED;
    }

    m->key.data = m->key_text;
    m->key.len = p->scope.len + n;

    return NGX_OK;
}


/* writes the text of a JSON string; -1: it is no string, or too long */

static ssize_t
ngx_pgq_publish_read_text(ngx_str_t *value, u_char *text)
{
    size_t   len;
    cJSON   *string;

    if (value->data[0] != '"' || value->len > NGX_PGQ_PUBLISH_TEXT) {
        return -1;
    }

    string = cJSON_ParseWithLength((char *) value->data, value->len);

    if (!cJSON_IsString(string)) {
        cJSON_Delete(string);
        return -1;
    }

    len = ngx_strlen(string->valuestring);
    ngx_memcpy(text, string->valuestring, len);
    cJSON_Delete(string);

    return len;
}
