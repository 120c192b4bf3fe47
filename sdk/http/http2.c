/* http2.c: HTTP/2 on one connection: an nghttp2 server session over the connection's buffers. nghttp2 checks frames,
 * field syntax, pseudo fields and Content-Length, limits resets and continuations; here are our own limits, the
 * requests, the deadlines of streams that are still being read, and GOAWAY. A stream outlives its request while its
 * reply is sent. */
#include <nghttp2/nghttp2.h>
#include <string.h>

#include "sdk/http/http_internal.h"

#define OUTPUT_PULL_BYTES (256u * 1024u) /* frames are made ahead of the socket up to this */
#define STREAM_WINDOW_BYTES (1024 * 1024)

static void flush(struct http_connection *connection);

/* ---- streams ---- */

static struct http2_stream *stream_create(struct http_connection *connection, int32_t id) {
  struct http2_connection *h2 = connection->h2;
  struct http2_stream *stream = BASE_NEW(struct http2_stream);
  stream->connection = connection;
  stream->id = id;
  stream->read_deadline_ms = clock_monotonic_ms() + connection->server->options.limits.header_timeout_ms;
  stream->request = request_create(connection);
  stream->request->stream = stream;
  stream->request->version = 20;
  TAILQ_INSERT_TAIL(&h2->streams, stream, link);
  h2->stream_count++;
  nghttp2_session_set_stream_user_data(h2->session, id, stream);
  return stream;
}

static void stream_free(struct http2_connection *h2, struct http2_stream *stream, enum http_close_reason reason) {
  TAILQ_REMOVE(&h2->streams, stream, link);
  h2->stream_count--;
  if (stream->request != NULL)
    request_lost(stream->request, stream->slow ? HTTP_CLOSE_SLOW : reason);
  if (stream->pending != NULL)
    evbuffer_free(stream->pending);
  base_free(stream);
}

/* The earliest deadline of a stream that is being read, or the idle time-out. */
static void set_deadline(struct http_connection *connection) {
  const struct http_server_limits *limits = &connection->server->options.limits;
  int64_t due = HTTP_NEVER;
  struct http2_stream *stream;
  TAILQ_FOREACH(stream, &connection->h2->streams, link) {
    if (stream->read_deadline_ms < due)
      due = stream->read_deadline_ms;
  }
  if (connection->h2->stream_count == 0)
    connection_read_deadline(connection, limits->idle_timeout_ms);
  else if (due != HTTP_NEVER)
    connection_read_deadline(connection, due - clock_monotonic_ms());
  else
    connection->read_deadline_ms = HTTP_NEVER;
}

static void refuse(struct http2_stream *stream, int status, enum error_code code, const char *message) {
  if (stream->refusal.status == 0)
    stream->refusal = (struct http_refusal){status, code, message};
}

/* ---- nghttp2's callbacks ---- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *context) {
  (void)session;
  if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
    stream_create(context, frame->hd.stream_id);
  return 0;
}

static const char **pseudo_target(struct http_request *request, const char *name, const char **path,
                                  const char **authority) {
  if (strcmp(name, ":method") == 0)
    return &request->method;
  if (strcmp(name, ":path") == 0)
    return path;
  return strcmp(name, ":authority") == 0 ? authority : NULL;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_bytes,
                     const uint8_t *value, size_t value_bytes, uint8_t flags, void *context) {
  struct http_connection *connection = context;
  struct http2_stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  (void)flags;
  if (stream == NULL || stream->request == NULL || stream->headers_done)
    return 0; /* trailers are read and ignored */
  const struct http_server_limits *limits = &connection->server->options.limits;
  struct http_request *request = stream->request;
  stream->header_bytes += name_bytes + value_bytes + 4;
  bool is_path = name_bytes == 5 && memcmp(name, ":path", 5) == 0;
  if (is_path && value_bytes > limits->uri_bytes_max)
    refuse(stream, 414, ERR_HTTP_URI_TOO_LONG, NULL);
  if (stream->header_bytes > limits->header_bytes_max || name_bytes + value_bytes > limits->header_field_bytes_max ||
      request->header_count >= limits->header_count_max)
    refuse(stream, 431, ERR_HTTP_HEADER_TOO_LARGE, NULL);
  if (stream->refusal.status != 0)
    return 0;
  if (!http_value_is_valid((const char *)value, value_bytes)) {
    refuse(stream, 400, ERR_HTTP_MALFORMED, "A header field's value holds a control character.");
    return 0;
  }
  /* Pseudo fields are kept as fields until the section is complete; begin_request() takes them out. */
  request_header_push(request, arena_memdup(request->arena, name, name_bytes),
                      arena_memdup(request->arena, value, value_bytes));
  return 0;
}

/* Sorts the pseudo fields out of the list and checks what nghttp2 leaves to us. */
static bool take_pseudo_fields(struct http_request *request, struct http_refusal *refusal) {
  const char *path = NULL, *authority = NULL, *host = NULL;
  size_t kept = 0, hosts = 0;
  for (size_t i = 0; i < request->header_count; i++) {
    struct http_field field = request->headers[i];
    struct http_header header = field.header;
    const char **target = header.name[0] == ':' ? pseudo_target(request, header.name, &path, &authority) : NULL;
    if (target != NULL)
      *target = header.value;
    if (header.name[0] == ':')
      continue;
    if (strcmp(header.name, "host") == 0) {
      host = header.value;
      hosts++;
    }
    request->headers[kept++] = field;
  }
  request->header_count = kept;
  request->head_only = strcmp(request->method, "HEAD") == 0;
  *refusal = (struct http_refusal){400, ERR_HTTP_MALFORMED, NULL};
  if (strcmp(request->method, "CONNECT") == 0) {
    *refusal = (struct http_refusal){501, ERR_HTTP_METHOD_UNSUPPORTED, NULL};
    return false;
  }
  if (path == NULL || !http_token_is_valid(request->method, strlen(request->method)))
    return false;
  if (hosts > 1 || (authority != NULL && host != NULL && strcasecmp(authority, host) != 0))
    return false;
  request->host = authority != NULL ? authority : host != NULL ? host : "";
  if (request->host[0] == '\0' || !target_host_is_valid(request->host))
    return false;
  if (path[0] != '/' && strcmp(path, "*") != 0)
    return false;
  if (!target_parse(request, path, strlen(path), refusal))
    return false;
  const char *expect = http_request_header(request, "expect");
  if (expect != NULL && strcasecmp(expect, "100-continue") != 0) {
    *refusal = (struct http_refusal){417, ERR_HTTP_EXPECTATION, NULL};
    return false;
  }
  uint64_t length;
  const char *length_text = http_request_header(request, "content-length");
  return length_text == NULL || str_parse_u64(length_text, &length);
}

static void answer_refusal(struct http2_stream *stream) {
  stream->read_deadline_ms = HTTP_NEVER;
  response_refuse(stream->request, &stream->refusal);
}

static void send_continue(struct http2_stream *stream) {
  nghttp2_nv status = {(uint8_t *)(uintptr_t) ":status", (uint8_t *)(uintptr_t) "100", 7, 3, NGHTTP2_NV_FLAG_NONE};
  nghttp2_submit_headers(stream->connection->h2->session, NGHTTP2_FLAG_NONE, stream->id, NULL, &status, 1, NULL);
}

static void complete(struct http2_stream *stream) {
  stream->read_deadline_ms = HTTP_NEVER;
  struct http_request *request = stream->request;
  if (request == NULL)
    return;
  if (request->body_mode == HTTP_BODY_STREAM)
    request_body_end(request);
  else
    request_dispatch(request);
}

static void begin_request(struct http_connection *connection, struct http2_stream *stream, bool end) {
  struct http_request *request = stream->request;
  struct http_refusal refusal;
  stream->headers_done = true;
  connection->h2->requests++;
  if (stream->refusal.status == 0 && !take_pseudo_fields(request, &refusal))
    stream->refusal = refusal;
  if (stream->refusal.status != 0) {
    answer_refusal(stream);
    return;
  }
  stream->read_deadline_ms = clock_monotonic_ms() + connection->server->options.limits.body_timeout_ms;
  if (request_hook(request) == HTTP_BODY_REFUSE) {
    stream->read_deadline_ms = HTTP_NEVER;
    return;
  }
  uint64_t length = 0;
  const char *length_text = http_request_header(request, "content-length");
  if (length_text != NULL && str_parse_u64(length_text, &length) && length > request->body_limit_bytes) {
    refuse(stream, 413, ERR_HTTP_BODY_TOO_LARGE, NULL);
    answer_refusal(stream);
    return;
  }
  if (!end && http_request_header(request, "expect") != NULL)
    send_continue(stream);
  if (request->body_mode == HTTP_BODY_STREAM)
    request_dispatch(request);
  if (end)
    complete(stream);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *context) {
  struct http_connection *connection = context;
  if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0 && connection->server->draining &&
      !connection->h2->goaway_sent) {
    connection->h2->goaway_sent = true; /* whatever was under way when the notice left has arrived by now */
    nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session),
                          NGHTTP2_NO_ERROR, NULL, 0);
  }
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
    return 0;
  struct http2_stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  if (stream == NULL || stream->dead)
    return 0;
  bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (frame->hd.type == NGHTTP2_HEADERS && !stream->headers_done && stream->request != NULL)
    begin_request(connection, stream, end);
  else if (end && stream->headers_done)
    complete(stream);
  return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t length,
                   void *context) {
  struct http2_stream *stream = nghttp2_session_get_stream_user_data(session, stream_id);
  (void)flags, (void)context;
  if (stream == NULL || stream->request == NULL || stream->dead)
    return 0; /* answered early: the rest is thrown away */
  if (request_body_append(stream->request, data, length))
    return 0;
  if (stream->request->phase == HTTP_REQUEST_READING) {
    refuse(stream, 413, ERR_HTTP_BODY_TOO_LARGE, NULL);
    answer_refusal(stream);
  } else {
    stream->dead = true;
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream_id, NGHTTP2_CANCEL);
  }
  return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *context) {
  struct http_connection *connection = context;
  struct http2_stream *stream = nghttp2_session_get_stream_user_data(session, stream_id);
  (void)error_code;
  if (stream != NULL)
    stream_free(connection->h2, stream, HTTP_CLOSE_PEER);
  return 0;
}

/* A whole reply to a half-read request: tell the client to stop sending. */
static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *context) {
  (void)context;
  /* The PING that asks whether the notice was heard must come behind it; nghttp2 lets PINGs overtake what waits. */
  if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.last_stream_id == INT32_MAX)
    nghttp2_submit_ping(session, NGHTTP2_FLAG_NONE, NULL);
  bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
              (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (ends && nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0)
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
  return 0;
}

/* ---- the connection ---- */

static void flush(struct http_connection *connection) {
  struct http2_connection *h2 = connection->h2;
  struct buf *frames = &connection->server->frames;
  buf_clear(frames);
  connection->watch_output = false;
  bool all = false;
  while (!all && evbuffer_get_length(connection->output) + frames->length < OUTPUT_PULL_BYTES) {
    const uint8_t *data;
    ssize_t length = nghttp2_session_mem_send(h2->session, &data);
    if (length < 0) {
      connection_doom(connection, HTTP_CLOSE_PEER);
      return;
    }
    all = length == 0;
    buf_append(frames, data, (size_t)length);
  }
  if (frames->length > 0) {
    struct iovec part = {frames->data, frames->length};
    connection_write(connection, &part, 1);
  }
  if (evbuffer_get_length(connection->output) > 0)
    connection->watch_output = true;
  else if (!all)
    connection_postpone(connection); /* the socket took all at once: other connections first, then go on */
  if (!connection->doomed && nghttp2_session_want_read(h2->session) == 0 &&
      nghttp2_session_want_write(h2->session) == 0)
    connection_close_flushed(connection, true);
}

static void check_drained(struct http_connection *connection) {
  /* on_drained may finish its own request only; its stream stays until nghttp2 closes it in a later flush. */
  struct http2_stream *stream;
  TAILQ_FOREACH(stream, &connection->h2->streams, link) {
    if (stream->request != NULL)
      request_check_drained(stream->request);
  }
}

static void on_input(struct http_connection *connection) {
  struct http2_connection *h2 = connection->h2;
  size_t length = evbuffer_get_length(connection->input);
  if (length == 0 || connection->close_flushed) {
    evbuffer_drain(connection->input, length);
    return;
  }
  unsigned char *data = evbuffer_pullup(connection->input, -1);
  ssize_t taken = nghttp2_session_mem_recv(h2->session, data, length);
  if (taken < 0) {
    nghttp2_session_terminate_session(h2->session, NGHTTP2_PROTOCOL_ERROR);
    taken = (ssize_t)length;
  }
  evbuffer_drain(connection->input, (size_t)taken);
  if (h2->requests >= connection->server->options.limits.requests_per_connection_max && !h2->goaway_sent) {
    h2->goaway_sent = true;
    nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h2->session),
                          NGHTTP2_NO_ERROR, NULL, 0);
  }
  if (!connection->doomed)
    flush(connection);
  if (!connection->doomed && !connection->close_flushed)
    set_deadline(connection);
}

static void expire_streams(struct http_connection *connection) {
  int64_t now = clock_monotonic_ms();
  struct http2_stream *stream, *next;
  for (stream = TAILQ_FIRST(&connection->h2->streams); stream != NULL; stream = next) {
    next = TAILQ_NEXT(stream, link);
    if (stream->read_deadline_ms > now)
      continue;
    stream->read_deadline_ms = HTTP_NEVER;
    if (stream->request != NULL && stream->request->phase == HTTP_REQUEST_READING && stream->headers_done) {
      refuse(stream, 408, ERR_HTTP_TIMEOUT, NULL);
      answer_refusal(stream);
    } else {
      stream->dead = true;
      nghttp2_submit_rst_stream(connection->h2->session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_CANCEL);
    }
  }
}

static void on_tick(struct http_connection *connection) {
  if (connection->close_flushed)
    return;
  if (connection->read_deadline_ms <= clock_monotonic_ms()) {
    if (connection->h2->stream_count == 0)
      nghttp2_session_terminate_session(connection->h2->session, NGHTTP2_NO_ERROR);
    expire_streams(connection);
  }
  flush(connection);
  if (!connection->doomed)
    check_drained(connection);
  if (!connection->doomed && !connection->close_flushed)
    set_deadline(connection);
}

/* Nobody half-closes an HTTP/2 connection to go on reading: it is gone. */
static void on_end(struct http_connection *connection) {
  connection_doom(connection, HTTP_CLOSE_PEER);
}

static void drain(struct http_connection *connection) {
  nghttp2_submit_shutdown_notice(connection->h2->session);
  connection_postpone(connection);
}

static void detach(struct http_connection *connection, enum http_close_reason reason) {
  struct http2_connection *h2 = connection->h2;
  connection->h2 = NULL;
  struct http2_stream *stream;
  TAILQ_FOREACH(stream, &h2->streams, link)
  nghttp2_session_set_stream_user_data(h2->session, stream->id, NULL);
  while ((stream = TAILQ_FIRST(&h2->streams)) != NULL)
    stream_free(h2, stream, reason);
  nghttp2_session_del(h2->session);
  base_free(h2);
}

const struct http_protocol http2_protocol = {
    .on_input = on_input,
    .on_end = on_end,
    .on_tick = on_tick,
    .drain = drain,
    .detach = detach,
    .reply = http2_reply,
    .start = http2_start,
    .write = http2_write,
    .end = http2_end,
    .abort = http2_abort,
    .drop = http2_drop,
    .queued = http2_queued,
};

static nghttp2_session *session_create(struct http_connection *connection) {
  nghttp2_session_callbacks *callbacks = NULL;
  nghttp2_session *session = NULL;
  if (nghttp2_session_callbacks_new(&callbacks) != 0)
    return NULL;
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
  nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
  if (nghttp2_session_server_new(&session, callbacks, connection) != 0)
    session = NULL;
  nghttp2_session_callbacks_del(callbacks);
  return session;
}

bool http2_attach(struct http_connection *connection) {
  const struct http_server_limits *limits = &connection->server->options.limits;
  nghttp2_session *session = session_create(connection);
  if (session == NULL)
    return false;
  connection->h2 = BASE_NEW(struct http2_connection);
  connection->h2->session = session;
  TAILQ_INIT(&connection->h2->streams);
  connection->protocol = &http2_protocol;
  nghttp2_settings_entry settings[] = {
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, (uint32_t)limits->streams_max},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)limits->header_bytes_max},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES},
  };
  if (nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, sizeof(settings) / sizeof(settings[0])) != 0 ||
      nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, 4 * STREAM_WINDOW_BYTES) != 0)
    connection_doom(connection, HTTP_CLOSE_PEER);
  if (connection->server->draining) /* it was opened before, and says only now what it speaks */
    drain(connection);
  connection_postpone(connection); /* our settings go first */
  return true;
}
