/* http2_reply.c: replies over HTTP/2. Bytes wait in the stream's own buffer until nghttp2 asks for them, as flow
 * control and the connection's output allow. Frames go out from the connection's tick or at the end of its input, never
 * from inside the handler's call, so that no callback runs on the handler's stack. */
#include <nghttp2/nghttp2.h>
#include <string.h>

#include "sdk/http/http_internal.h"

static ssize_t read_pending(nghttp2_session *session, int32_t stream_id, uint8_t *target, size_t length,
                            uint32_t *flags, nghttp2_data_source *source, void *context) {
  struct http2_stream *stream = source->ptr;
  (void)session, (void)stream_id, (void)context;
  int taken = stream->pending == NULL ? 0 : evbuffer_remove(stream->pending, target, length);
  if (stream->pending == NULL || evbuffer_get_length(stream->pending) == 0) {
    if (stream->ended)
      *flags |= NGHTTP2_DATA_FLAG_EOF;
    else if (taken <= 0) {
      stream->deferred = true;
      return NGHTTP2_ERR_DEFERRED;
    }
  }
  return taken < 0 ? 0 : taken;
}

static nghttp2_nv field(const char *name, const char *value) {
  return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), strlen(value),
                      NGHTTP2_NV_FLAG_NONE};
}

static void submit(struct http_request *request, int status, bool has_length, size_t length, bool has_body) {
  struct http2_stream *stream = request->stream;
  struct http_server *server = request->connection->server;
  char status_text[12], length_text[24];
  snprintf(status_text, sizeof(status_text), "%d", status);
  snprintf(length_text, sizeof(length_text), "%zu", length);
  nghttp2_nv *fields = arena_alloc(request->arena, (request->reply_header_count + 4) * sizeof(*fields));
  size_t count = 0;
  fields[count++] = field(":status", status_text);
  fields[count++] = field("date", http_server_date(server));
  if (request->reply_content_type != NULL)
    fields[count++] = field("content-type", request->reply_content_type);
  if (has_length && !status_has_no_body(status))
    fields[count++] = field("content-length", length_text);
  for (size_t i = 0; i < request->reply_header_count; i++)
    fields[count++] = field(request->reply_headers[i].name, request->reply_headers[i].value);
  nghttp2_data_provider provider = {.source.ptr = stream, .read_callback = read_pending};
  if (nghttp2_submit_response(request->connection->h2->session, stream->id, fields, count,
                              has_body ? &provider : NULL) != 0)
    connection_doom(request->connection, HTTP_CLOSE_PEER);
  connection_postpone(request->connection);
}

static void queue(struct http2_stream *stream, const void *data, size_t length) {
  if (length == 0)
    return;
  if (stream->pending == NULL)
    stream->pending = evbuffer_new();
  BASE_CHECK(stream->pending != NULL && evbuffer_add(stream->pending, data, length) == 0);
}

static void resume(struct http_request *request) {
  struct http2_stream *stream = request->stream;
  if (stream->deferred) {
    stream->deferred = false;
    nghttp2_session_resume_data(request->connection->h2->session, stream->id);
  }
  connection_postpone(request->connection);
}

void http2_reply(struct http_request *request, int status, const void *body, size_t body_bytes) {
  struct http2_stream *stream = request->stream;
  bool has_body = body_bytes > 0 && !request->head_only;
  if (has_body)
    queue(stream, body, body_bytes);
  stream->ended = true;
  if (!stream->dead)
    submit(request, status, true, body_bytes, has_body);
}

void http2_start(struct http_request *request, int status) {
  if (!request->stream->dead)
    submit(request, status, false, 0, !request->head_only);
}

bool http2_write(struct http_request *request, const void *data, size_t length) {
  if (request->stream->dead)
    return false;
  queue(request->stream, data, length);
  resume(request);
  return true;
}

void http2_end(struct http_request *request) {
  request->stream->ended = true;
  if (!request->stream->dead)
    resume(request);
}

static void reset(struct http_request *request, uint32_t code) {
  struct http2_stream *stream = request->stream;
  if (stream->dead)
    return;
  stream->dead = true;
  nghttp2_submit_rst_stream(request->connection->h2->session, NGHTTP2_FLAG_NONE, stream->id, code);
  connection_postpone(request->connection);
}

void http2_abort(struct http_request *request) {
  reset(request, NGHTTP2_INTERNAL_ERROR);
}

void http2_drop(struct http_request *request) {
  if (!request->stream->dead)
    request->connection->server->stats.clients_dropped++;
  reset(request, NGHTTP2_ENHANCE_YOUR_CALM);
  request->stream->slow = true;
}

size_t http2_queued(const struct http_request *request) {
  const struct http2_stream *stream = request->stream;
  return stream == NULL || stream->pending == NULL ? 0 : evbuffer_get_length(stream->pending);
}
