/* http_sse.h: an incremental parser for text/event-stream (WHATWG HTML, "event stream interpretation"), used on what
 * upstreams send. Accepts CR, LF and CRLF, also split between pieces, and one leading byte order mark. Bounded: a line
 * or an event over its limit is an error and the parser stays failed. No I/O; one owner; not thread safe. */
#ifndef GATEHOUSE_HTTP_SSE_H
#define GATEHOUSE_HTTP_SSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdk/base/error.h"

struct http_sse_parser;

/* Valid during the callback only. All text is NUL-terminated; data may hold NUL bytes, so use its length. */
struct http_sse_message {
  const char *event; /* "message" when the stream named none */
  const char *id;    /* the last event id so far; "" when none */
  bool has_id;       /* this event carried an id field itself */
  const char *data;  /* data lines joined by LF */
  size_t data_bytes;
};

struct http_sse_handler {
  void (*on_event)(void *context, const struct http_sse_message *message); /* required */
  void (*on_retry)(void *context, uint64_t retry_ms);                      /* may be NULL */
  void (*on_comment)(void *context, const char *text, size_t length);      /* may be NULL */
  void *context;
};

/* Limits in bytes; 0: 1 MiB for a line, 8 MiB for the data of an event. An event with an id but no data is delivered
 * with empty data when deliver_empty is true (MCP's priming events), else dropped as the standard says. */
struct http_sse_limits {
  size_t line_bytes_max;
  size_t event_bytes_max;
  bool deliver_empty;
};

struct http_sse_parser *http_sse_parser_create(const struct http_sse_limits *limits,
                                               const struct http_sse_handler *handler);
void http_sse_parser_free(struct http_sse_parser **parser); /* nulls; NULL-safe; not from inside a callback */

/* Feeds a piece; callbacks run inside. ERR_HTTP_UPSTREAM_TOO_LARGE over a limit; every later call fails the same way.
 * An event cut off by the end of the stream is not delivered (the standard says so); there is nothing to call at the
 * end. */
bool http_sse_parser_feed(struct http_sse_parser *parser, const void *data, size_t length, struct error *err);

/* Forgets everything but the last event id, for a new connection of the same stream. */
void http_sse_parser_reset(struct http_sse_parser *parser);
const char *http_sse_parser_last_id(const struct http_sse_parser *parser);

#endif
