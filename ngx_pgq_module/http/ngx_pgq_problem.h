/* SPDX-License-Identifier: PostgreSQL */

/*
 * The table of problems: a row has the name of its constant, the status, the
 * code, the title and the default detail.
 *
 * There is no include guard: a file defines NGX_PGQ_PROBLEM() and includes
 * the table, once for the constants and once for the rows.
 *
 * Rows with the same code are adjacent: status.c adds them up to one metric.
 */

/* refusals by nginx: one row per status; ERROR, for any other, is the last */

NGX_PGQ_PROBLEM(BAD_REQUEST, 400, "bad_request", "Bad Request",
    "The request is not valid HTTP.")
NGX_PGQ_PROBLEM(UNAUTHORIZED, 401, "unauthorized", "Unauthorized",
    "Authentication is required.")
NGX_PGQ_PROBLEM(PAYMENT_REQUIRED, 402, "forbidden", "Payment Required",
    "Payment is required.")
NGX_PGQ_PROBLEM(FORBIDDEN, 403, "forbidden", "Forbidden",
    "Access is denied.")
NGX_PGQ_PROBLEM(NOT_FOUND, 404, "not_found", "Not Found",
    "There is no such resource.")
NGX_PGQ_PROBLEM(GONE, 410, "not_found", "Gone",
    "The resource has been removed.")
NGX_PGQ_PROBLEM(METHOD_NOT_ALLOWED, 405, "method_not_allowed",
    "Method Not Allowed", "The method is not one of those in Allow.")
NGX_PGQ_PROBLEM(NOT_ACCEPTABLE, 406, "not_acceptable", "Not Acceptable",
    "There is no such representation.")
NGX_PGQ_PROBLEM(REQUEST_TIMEOUT, 408, "request_timeout", "Request Timeout",
    "The request did not arrive in time.")
NGX_PGQ_PROBLEM(CONFLICT, 409, "conflict", "Conflict",
    "Another request is in progress.")
NGX_PGQ_PROBLEM(LENGTH_REQUIRED, 411, "length_required", "Length Required",
    "A Content-Length is required.")
NGX_PGQ_PROBLEM(PRECONDITION_FAILED, 412, "precondition_failed",
    "Precondition Failed", "A precondition of the request does not hold.")
NGX_PGQ_PROBLEM(TOO_LARGE, 413, "too_large", "Content Too Large",
    "The request is larger than this server accepts; no message was queued.")
NGX_PGQ_PROBLEM(URI_TOO_LONG, 414, "uri_too_long", "URI Too Long",
    "The URI is too long.")
NGX_PGQ_PROBLEM(UNSUPPORTED_TYPE, 415, "unsupported_type",
    "Unsupported Media Type",
    "The message must be JSON or text in UTF-8 without a content coding.")
NGX_PGQ_PROBLEM(BAD_RANGE, 416, "bad_range", "Range Not Satisfiable",
    "The range is outside of the representation.")
NGX_PGQ_PROBLEM(MISDIRECTED, 421, "misdirected", "Misdirected Request",
    "This server does not answer for that host.")
NGX_PGQ_PROBLEM(UNPROCESSABLE, 422, "unprocessable", "Unprocessable Content",
    "The request contradicts an earlier one.")
NGX_PGQ_PROBLEM(UPGRADE_REQUIRED, 426, "upgrade_required", "Upgrade Required",
    "Another protocol is required.")
NGX_PGQ_PROBLEM(TOO_MANY_REQUESTS, 429, "too_many_requests",
    "Too Many Requests", "There were too many requests.")
NGX_PGQ_PROBLEM(HEADERS_TOO_LARGE, 431, "headers_too_large",
    "Request Header Fields Too Large",
    "The header fields are larger than this server accepts.")
NGX_PGQ_PROBLEM(INTERNAL_ERROR, 500, "internal_error", "Internal Server Error",
    "The server failed.")
NGX_PGQ_PROBLEM(NOT_IMPLEMENTED, 501, "not_implemented", "Not Implemented",
    "The server does not implement what the request needs.")
NGX_PGQ_PROBLEM(BAD_GATEWAY, 502, "bad_gateway", "Bad Gateway",
    "A server behind this one failed.")
NGX_PGQ_PROBLEM(UNAVAILABLE, 503, "unavailable", "Service Unavailable",
    "The server is not available now; no message was queued.")
NGX_PGQ_PROBLEM(NO_SPACE, 507, "unavailable", "Insufficient Storage",
    "The server has no space left; no message was queued.")
NGX_PGQ_PROBLEM(OUTCOME_UNKNOWN, 504, "outcome_unknown", "Gateway Timeout",
    "The outcome is not known in time: the message may have been queued.")
NGX_PGQ_PROBLEM(BAD_VERSION, 505, "bad_version", "HTTP Version Not Supported",
    "The HTTP version is not supported.")
NGX_PGQ_PROBLEM(ERROR, 0, "error", "Error", "The request was refused.")

/* refusals by the module */

NGX_PGQ_PROBLEM(BAD_ARGUMENT, 400, "bad_argument", "Bad Request",
    "limit must be a number from 1 to 1000, before the id of a post, or after"
    " the id of a post or 0.")
NGX_PGQ_PROBLEM(BAD_HANDSHAKE, 400, "bad_handshake", "Bad Request",
    "A WebSocket needs one Sec-WebSocket-Key of 16 bytes in base64, one"
    " Sec-WebSocket-Version, Connection: Upgrade, and no body.")
NGX_PGQ_PROBLEM(BAD_KEY, 400, "bad_key", "Bad Request",
    "The Idempotency-Key must be one string of 1 to 255 visible ASCII"
    " characters or spaces, in quotes.")
NGX_PGQ_PROBLEM(BAD_MESSAGE, 400, "bad_message", "Bad Request",
    "The message must be an object with post, and no members but topic, key"
    " and ref, a number or a string of at most 128 bytes.")
NGX_PGQ_PROBLEM(BAD_SCOPE, 400, "bad_scope", "Bad Request",
    "The scope of an Idempotency-Key (pgq_idempotency_scope or the user name)"
    " must be UTF-8 of at most 255 bytes without control characters.")
NGX_PGQ_PROBLEM(BAD_TOPIC, 400, "bad_topic", "Bad Request",
    "A topic has at most 255 bytes: segments of letters, digits and ._~- with"
    " / between them; it does not begin with _.")
NGX_PGQ_PROBLEM(BAD_TYPE, 400, "bad_type", "Bad Request",
    "The Content-Type must be one media type, such as application/json.")
NGX_PGQ_PROBLEM(EMPTY, 400, "empty", "Bad Request",
    "The request has no message.")
NGX_PGQ_PROBLEM(KEY_REQUIRED, 400, "key_required", "Bad Request",
    "An Idempotency-Key is required.")
NGX_PGQ_PROBLEM(NOT_JSON, 400, "not_json", "Bad Request",
    "The message is not JSON.")
NGX_PGQ_PROBLEM(NOT_UTF8, 400, "not_utf8", "Bad Request",
    "The message is not UTF-8.")
NGX_PGQ_PROBLEM(REFUSED, 400, "refused", "Bad Request",
    "The database refused the message.")
NGX_PGQ_PROBLEM(FOREIGN_ORIGIN, 403, "foreign_origin", "Forbidden",
    "Pages of other origins may not use this server.")
NGX_PGQ_PROBLEM(FORBIDDEN_TOPIC, 403, "forbidden_topic", "Forbidden",
    "This topic is not permitted.")
NGX_PGQ_PROBLEM(SUBSCRIPTIONS_FULL, 403, "subscriptions_full", "Forbidden",
    "There are too many subscriptions.")
NGX_PGQ_PROBLEM(NO_SUBSCRIPTION, 404, "no_subscription", "Not Found",
    "There is no such subscription.")
NGX_PGQ_PROBLEM(FENCED, 409, "fenced", "Conflict",
    "Another consumer has taken the part of the subscription.")
NGX_PGQ_PROBLEM(KEY_IN_FLIGHT, 409, "key_in_flight", "Conflict",
    "Another request with this Idempotency-Key is in progress; this message"
    " was not queued.")
NGX_PGQ_PROBLEM(SUBSCRIPTION_DIFFERS, 409, "subscription_differs", "Conflict",
    "The subscription exists with other topics or parts.")
NGX_PGQ_PROBLEM(TOO_MANY_LINES, 413, "too_many_lines", "Content Too Large",
    "The request has too many messages; none was queued.")
NGX_PGQ_PROBLEM(KEY_REUSED, 422, "key_reused", "Unprocessable Content",
    "This Idempotency-Key was used with another message; this one was not"
    " queued.")
NGX_PGQ_PROBLEM(KEYS_FULL, 503, "keys_full", "Service Unavailable",
    "There are too many idempotency keys; the message was not queued.")
NGX_PGQ_PROBLEM(NO_DATABASE, 503, "no_database", "Service Unavailable",
    "No database was available in time; no message was queued.")
NGX_PGQ_PROBLEM(QUEUE_FULL, 503, "queue_full", "Service Unavailable",
    "Too many requests are waiting; no message was queued.")
NGX_PGQ_PROBLEM(RING_STALE, 503, "ring_stale", "Service Unavailable",
    "The database has not confirmed the posts for too long.")
NGX_PGQ_PROBLEM(READ_FAILED, 503, "read_failed", "Service Unavailable",
    "The database could not read the posts.")
NGX_PGQ_PROBLEM(READ_TIMEOUT, 503, "read_timeout", "Service Unavailable",
    "The database did not return the posts in time.")
NGX_PGQ_PROBLEM(READERS_FULL, 503, "readers_full", "Service Unavailable",
    "Too many streams are open.")
NGX_PGQ_PROBLEM(READS_FULL, 503, "reads_full", "Service Unavailable",
    "Too many responses have not been read by their clients.")
