/* http1.c: HTTP/1.1 on one connection: HEAD → BODY → BUSY → HEAD … → LINGER, one request at a time.
 *
 * The header section is searched for its end as bytes arrive (each byte once), copied once into the request's arena,
 * checked (http1_head.c), then run through http-parser; names and values are NUL-terminated in place. The parser is
 * told "POST" instead of the real method, because it knows a fixed list of methods and we leave that decision to the
 * handler. Bodies go through http-parser as well; what it takes for chunk framing is checked here once more, because it
 * tolerates bare LF and control bytes in chunk extensions and trailers. */
#include <http_parser.h>
#include <string.h>

#include "sdk/http/http_internal.h"

#define DISCARD_BYTES_MAX (1024u * 1024u)

static http_parser *parser_of(struct http_connection *connection) {
  return connection->h1.parser;
}

/* ---- http-parser's callbacks ---- */

/* While the header section is parsed. */
struct head_scan {
  struct http_connection *connection;
  struct http_request *request;
  char *url;
  size_t url_bytes;
  char *name;
  bool complete; /* the message has no body */
};

static int head_on_url(http_parser *parser, const char *at, size_t length) {
  struct head_scan *scan = parser->data;
  scan->url = (char *)(uintptr_t)at;
  scan->url_bytes = length;
  return 0;
}

static int head_on_field(http_parser *parser, const char *at, size_t length) {
  struct head_scan *scan = parser->data;
  scan->name = (char *)(uintptr_t)at;
  scan->name[length] = '\0'; /* was ':' */
  return 0;
}

static int head_on_value(http_parser *parser, const char *at, size_t length) {
  struct head_scan *scan = parser->data;
  char *value = (char *)(uintptr_t)at;
  while (length > 0 && (value[length - 1] == ' ' || value[length - 1] == '\t'))
    length--;
  if (length > 0)
    value[length] = '\0'; /* was CR or white space */
  request_header_push(scan->request, scan->name, length > 0 ? value : "");
  return 0;
}

static int head_on_complete(http_parser *parser) {
  parser->upgrade = 0; /* upgrades are ignored, as RFC 9110 7.8 allows */
  return 0;
}

static int head_on_message(http_parser *parser) {
  struct head_scan *scan = parser->data;
  scan->complete = true;
  http_parser_pause(parser, 1);
  return 0;
}

static const http_parser_settings head_settings = {
    .on_url = head_on_url,
    .on_header_field = head_on_field,
    .on_header_value = head_on_value,
    .on_headers_complete = head_on_complete,
    .on_message_complete = head_on_message,
};

/* Bytes of chunk framing: CR and LF only as a pair, no other control byte, no folded trailer. */
static void check_framing(struct http1_connection *h1, const char *from, const char *to) {
  for (; from < to; from++) {
    unsigned char c = (unsigned char)*from;
    if ((c == '\n') != h1->framing_cr || (h1->framing_lf && (c == ' ' || c == '\t')) || c == 0x7f ||
        (c < 0x20 && c != '\r' && c != '\n' && c != '\t'))
      h1->framing_bad = true;
    h1->framing_cr = c == '\r';
    h1->framing_lf = c == '\n';
  }
}

static int body_on_data(http_parser *parser, const char *at, size_t length) {
  struct http_connection *connection = parser->data;
  struct http1_connection *h1 = &connection->h1;
  if (h1->chunked) {
    check_framing(h1, h1->framing_mark, at);
    h1->framing_mark = at + length;
    h1->framing_lf = false;
  }
  if (h1->framing_bad || connection->doomed)
    return 1;
  if (h1->request == NULL) /* finished early: the rest is thrown away */
    return 0;
  if (!request_body_append(h1->request, at, length)) {
    h1->body_bytes = UINT64_MAX;
    return 1;
  }
  return 0;
}

static int body_on_message(http_parser *parser) {
  struct http_connection *connection = parser->data;
  connection->h1.body_complete = true;
  http_parser_pause(parser, 1);
  return 0;
}

static const http_parser_settings body_settings = {
    .on_body = body_on_data,
    .on_message_complete = body_on_message,
};

/* ---- refusing ---- */

/* Answers and closes; a handler that owns the request already is told that it is lost. */
static void refuse(struct http_connection *connection, struct http_request *request,
                   const struct http_refusal *refusal) {
  struct http1_connection *h1 = &connection->h1;
  h1->keep_alive = false;
  if (request != NULL && request->phase == HTTP_REQUEST_HANDLING) {
    h1->request = NULL;
    connection_doom(connection, HTTP_CLOSE_MALFORMED);
    request_lost(request, HTTP_CLOSE_MALFORMED);
    return;
  }
  if (request == NULL)
    request = request_create(connection);
  if (request->version == 0)
    request->version = 11;
  h1->body_complete = false;
  h1->request = request;
  response_refuse(request, refusal);
}

/* ---- the header section ---- */

enum head_search { HEAD_FOUND, HEAD_NEEDS_MORE, HEAD_REFUSED };

static enum head_search search_head(struct http_connection *connection, char **head, size_t *head_bytes) {
  struct http1_connection *h1 = &connection->h1;
  const struct http_server_limits *limits = &connection->server->options.limits;
  size_t length = evbuffer_get_length(connection->input);
  char *data = (char *)evbuffer_pullup(connection->input, -1);
  struct http_refusal refusal = {0};
  while (h1->scanned < length) {
    char *lf = memchr(data + h1->scanned, '\n', length - h1->scanned);
    h1->scanned = lf == NULL ? length : (size_t)(lf - data) + 1;
    if (lf == NULL)
      break;
    size_t line_bytes = (size_t)(lf - data) - h1->line_start;
    if (line_bytes == 0 || lf[-1] != '\r') {
      refusal = (struct http_refusal){400, ERR_HTTP_MALFORMED, "A line does not end with CR LF."};
      break;
    }
    bool empty = line_bytes == 1;
    if (empty && h1->line_start == 0) { /* RFC 9112 2.2: empty lines before a request are ignored */
      evbuffer_drain(connection->input, 2);
      h1->scanned = 0;
      length = evbuffer_get_length(connection->input);
      data = (char *)evbuffer_pullup(connection->input, -1);
      continue;
    }
    h1->line_start = h1->scanned;
    if (empty && h1->scanned <= limits->header_bytes_max) {
      *head = data;
      *head_bytes = h1->scanned;
      return HEAD_FOUND;
    }
    if (h1->scanned > limits->header_bytes_max)
      break;
  }
  if (refusal.status == 0 && h1->scanned > limits->header_bytes_max)
    refusal = memchr(data, '\n', limits->header_bytes_max) == NULL
                  ? (struct http_refusal){414, ERR_HTTP_URI_TOO_LONG, NULL}
                  : (struct http_refusal){431, ERR_HTTP_HEADER_TOO_LARGE, NULL};
  if (refusal.status == 0)
    return HEAD_NEEDS_MORE;
  refuse(connection, NULL, &refusal);
  return HEAD_REFUSED;
}

/* Parses the copy of the section in the request's arena. */
static bool parse_head(struct http_connection *connection, struct http_request *request, const char *input,
                       size_t length, struct http1_facts *facts, struct http_refusal *refusal) {
  http_parser *parser = parser_of(connection);
  request->version = 11; /* until known: for refusals */
  if (!http1_head_check(&connection->server->options.limits, input, length, refusal))
    return false;
  char *head = arena_memdup(request->arena, input, length);
  char *space = memchr(head, ' ', length);
  size_t method_bytes = (size_t)(space - head);
  struct head_scan scan = {.connection = connection, .request = request};
  http_parser_init(parser, HTTP_REQUEST);
  parser->data = &scan;
  http_parser_execute(parser, &head_settings, "POST", 4);
  size_t rest = length - method_bytes;
  size_t parsed = http_parser_execute(parser, &head_settings, space, rest);
  enum http_errno problem = HTTP_PARSER_ERRNO(parser);
  if ((problem != HPE_OK && problem != HPE_PAUSED) || parsed != rest || scan.url == NULL) {
    *refusal = (struct http_refusal){400, ERR_HTTP_MALFORMED, NULL};
    return false;
  }
  *space = '\0';
  request->method = head;
  request->head_only = strcmp(head, "HEAD") == 0;
  facts->http_minor = parser->http_minor;
  request->version = parser->http_minor == 0 ? 10 : 11;
  facts->chunked = (parser->flags & F_CHUNKED) != 0;
  facts->has_length = (parser->flags & F_CONTENTLENGTH) != 0;
  facts->content_length = facts->has_length && !scan.complete ? parser->content_length : 0;
  facts->keep_alive = http_should_keep_alive(parser) != 0;
  facts->message_complete = scan.complete;
  /* The target last: an absolute target overrides Host. */
  if (!http1_head_semantics(request, facts, refusal) || !target_parse(request, scan.url, scan.url_bytes, refusal))
    return false;
  return true;
}

static void send_continue(struct http_connection *connection) {
  static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
  struct iovec part = {(void *)(uintptr_t)text, sizeof(text) - 1};
  connection_write(connection, &part, 1);
}

/* The header section is good: ask the hook, then hand the request on or read its body. */
static void begin_request(struct http_connection *connection, struct http_request *request,
                          const struct http1_facts *facts) {
  struct http1_connection *h1 = &connection->h1;
  h1->request = request;
  h1->chunked = facts->chunked;
  h1->body_bytes = 0;
  h1->framing_cr = h1->framing_lf = h1->framing_bad = false;
  h1->body_complete = facts->message_complete;
  h1->keep_alive = facts->keep_alive;
  h1->requests++;
  h1->state = facts->message_complete ? HTTP1_BUSY : HTTP1_BODY;
  connection->read_deadline_ms = HTTP_NEVER;
  enum http_body_mode mode = request_hook(request);
  if (mode == HTTP_BODY_REFUSE)
    return;
  if (h1->body_complete) {
    request_dispatch(request);
    if (mode == HTTP_BODY_STREAM && h1->request == request)
      request_body_end(request);
    return;
  }
  if (facts->content_length > request->body_limit_bytes) {
    refuse(connection, request, &(struct http_refusal){413, ERR_HTTP_BODY_TOO_LARGE, NULL});
    return;
  }
  parser_of(connection)->data = connection;
  connection_read_deadline(connection, connection->server->options.limits.body_timeout_ms);
  if (http_request_header(request, "expect") != NULL && request->version >= 11 &&
      evbuffer_get_length(connection->input) == 0)
    send_continue(connection);
  if (mode == HTTP_BODY_STREAM)
    request_dispatch(request);
}

/* True: go on with the next state. */
static bool read_head(struct http_connection *connection) {
  struct http1_connection *h1 = &connection->h1;
  if (evbuffer_get_length(connection->input) == 0) {
    if (connection->peer_ended)
      connection_close_flushed(connection, false);
    return false;
  }
  bool fresh = h1->scanned == 0;
  char *head;
  size_t head_bytes;
  switch (search_head(connection, &head, &head_bytes)) {
  case HEAD_REFUSED:
    return true;
  case HEAD_NEEDS_MORE:
    if (connection->peer_ended)
      connection_close_flushed(connection, false);
    else if (fresh)
      connection_read_deadline(connection, connection->server->options.limits.header_timeout_ms);
    return false;
  case HEAD_FOUND:
    break;
  }
  struct http_request *request = request_create(connection);
  struct http1_facts facts = {0};
  struct http_refusal refusal = {0};
  bool good = parse_head(connection, request, head, head_bytes, &facts, &refusal);
  evbuffer_drain(connection->input, head_bytes);
  h1->scanned = h1->line_start = 0;
  if (good)
    begin_request(connection, request, &facts);
  else
    refuse(connection, request, &refusal);
  return true;
}

/* ---- the body ---- */

static bool finish_body(struct http_connection *connection) {
  struct http1_connection *h1 = &connection->h1;
  struct http_request *request = h1->request;
  connection->read_deadline_ms = HTTP_NEVER;
  h1->state = HTTP1_BUSY;
  if (request->body_mode == HTTP_BODY_STREAM)
    request_body_end(request);
  else
    request_dispatch(request);
  return true;
}

static bool read_body(struct http_connection *connection) {
  struct http1_connection *h1 = &connection->h1;
  http_parser *parser = parser_of(connection);
  struct evbuffer_iovec piece;
  if (evbuffer_peek(connection->input, -1, NULL, &piece, 1) < 1 || piece.iov_len == 0) {
    if (connection->peer_ended)
      connection_doom(connection, HTTP_CLOSE_PEER);
    return false;
  }
  h1->framing_mark = piece.iov_base;
  size_t taken = http_parser_execute(parser, &body_settings, piece.iov_base, piece.iov_len);
  enum http_errno problem = HTTP_PARSER_ERRNO(parser);
  if (h1->chunked && problem != HPE_CB_body)
    check_framing(h1, h1->framing_mark, (const char *)piece.iov_base + taken);
  if (connection->doomed || h1->state != HTTP1_BODY)
    return true; /* a callback finished the request: lingering now */
  struct http_refusal refusal = {0};
  if (h1->body_bytes == UINT64_MAX)
    refusal = (struct http_refusal){413, ERR_HTTP_BODY_TOO_LARGE, NULL};
  else if (h1->framing_bad || (problem != HPE_OK && problem != HPE_PAUSED))
    refusal = (struct http_refusal){400, ERR_HTTP_MALFORMED, "The chunked body is malformed."};
  if (refusal.status != 0) {
    refuse(connection, h1->request, &refusal);
    return true;
  }
  evbuffer_drain(connection->input, taken);
  return h1->body_complete ? finish_body(connection) : true;
}

/* ---- the connection ---- */

static void on_input(struct http_connection *connection) {
  struct http1_connection *h1 = &connection->h1;
  if (h1->in_input)
    return;
  h1->in_input = true;
  for (bool more = true; more && !connection->doomed;) {
    switch (h1->state) {
    case HTTP1_HEAD:
      more = read_head(connection);
      break;
    case HTTP1_BODY:
      more = read_body(connection);
      break;
    case HTTP1_BUSY:
      more = false;
      break;
    case HTTP1_LINGER:
      h1->body_bytes = h1->body_bytes == UINT64_MAX ? 0 : h1->body_bytes;
      h1->body_bytes += evbuffer_get_length(connection->input);
      evbuffer_drain(connection->input, evbuffer_get_length(connection->input));
      if (h1->body_bytes > DISCARD_BYTES_MAX)
        connection_doom(connection, HTTP_CLOSE_PEER);
      more = false;
      break;
    }
  }
  h1->in_input = false;
  if (h1->state == HTTP1_BUSY && !connection->doomed &&
      evbuffer_get_length(connection->input) > connection->server->options.limits.pipelined_bytes_max)
    connection_read_stop(connection);
}

void http1_reply_done(struct http_connection *connection) {
  struct http1_connection *h1 = &connection->h1;
  if (connection->doomed)
    return;
  size_t waiting = evbuffer_get_length(connection->input);
  if (!h1->keep_alive || connection->server->draining) {
    bool linger = !h1->body_complete || waiting > 0;
    h1->state = HTTP1_LINGER;
    h1->body_bytes = 0;
    evbuffer_drain(connection->input, h1->in_input ? 0 : waiting);
    connection_close_flushed(connection, linger);
    return;
  }
  h1->state = HTTP1_HEAD;
  h1->scanned = h1->line_start = 0;
  connection_read_deadline(connection, connection->server->options.limits.idle_timeout_ms);
  connection_read_resume(connection);
  if (!h1->in_input && (waiting > 0 || connection->peer_ended))
    connection_postpone(connection); /* the next request does not run on this one's stack */
}

static void on_end(struct http_connection *connection) {
  struct http1_connection *h1 = &connection->h1;
  switch (h1->state) {
  case HTTP1_BUSY:
    if (h1->request != NULL)
      request_half_closed(h1->request);
    break;
  case HTTP1_HEAD:
  case HTTP1_BODY:
  case HTTP1_LINGER:
    connection_postpone(connection); /* what was read or queued before the end is still handled */
    break;
  }
}

static void on_deadline(struct http_connection *connection) {
  struct http1_connection *h1 = &connection->h1;
  connection->read_deadline_ms = HTTP_NEVER;
  bool idle = h1->state == HTTP1_HEAD && evbuffer_get_length(connection->input) == 0;
  if (idle || (h1->state != HTTP1_HEAD && h1->state != HTTP1_BODY))
    connection_doom(connection, HTTP_CLOSE_PEER);
  else
    refuse(connection, h1->state == HTTP1_BODY ? h1->request : NULL,
           &(struct http_refusal){408, ERR_HTTP_TIMEOUT, NULL});
}

static void on_tick(struct http_connection *connection) {
  if (connection->close_flushed)
    return;
  if (connection->read_deadline_ms <= clock_monotonic_ms())
    on_deadline(connection);
  if (!connection->doomed && connection->h1.request != NULL)
    request_check_drained(connection->h1.request);
  if (!connection->doomed && (connection->h1.state == HTTP1_HEAD || connection->h1.state == HTTP1_BODY))
    on_input(connection);
}

static void drain(struct http_connection *connection) {
  struct http1_connection *h1 = &connection->h1;
  if (h1->state == HTTP1_HEAD && evbuffer_get_length(connection->input) == 0 && !connection->server->handing_over)
    connection_close_flushed(connection, false);
}

static void detach(struct http_connection *connection, enum http_close_reason reason) {
  struct http_request *request = connection->h1.request;
  connection->h1.request = NULL;
  if (request != NULL)
    request_lost(request, reason);
}

const struct http_protocol http1_protocol = {
    .on_input = on_input,
    .on_end = on_end,
    .on_tick = on_tick,
    .drain = drain,
    .detach = detach,
    .reply = http1_reply,
    .start = http1_start,
    .write = http1_write,
    .end = http1_end,
    .abort = http1_abort,
    .drop = http1_drop,
    .queued = http1_queued,
};

void http1_attach(struct http_connection *connection) {
  connection->protocol = &http1_protocol;
  connection->h1.parser = BASE_NEW(http_parser);
}

void http1_release(struct http_connection *connection) {
  base_free(connection->h1.parser);
  connection->h1.parser = NULL;
}
