/* sse_reply.c: server-sent events on a streamed reply. Each event is put together in one buffer and written once. The
 * keep-alive timer of a stream ends with its request. */
#include <string.h>

#include "sdk/http/http_internal.h"

static void arm_keepalive(struct http_sse_state *sse, int64_t wait_ms) {
  struct timeval timeout = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};
  event_add(sse->timer, &timeout);
}

static void on_keepalive(evutil_socket_t fd, short what, void *context) {
  struct http_request *request = context;
  struct http_sse_state *sse = request->sse;
  (void)fd, (void)what;
  int64_t quiet_ms = clock_monotonic_ms() - sse->last_ms;
  if (quiet_ms < sse->keepalive_ms) {
    arm_keepalive(sse, sse->keepalive_ms - quiet_ms);
    return;
  }
  arm_keepalive(sse, sse->keepalive_ms); /* before writing: a lost client may end the request in its on_close */
  http_sse_comment(request, "keep-alive");
}

void http_sse_start(struct http_request *request, int64_t keepalive_ms) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  http_response_header_add(request, "cache-control", "no-store");
  http_response_header_add(request, "x-accel-buffering", "no");
  request->sse = BASE_NEW(struct http_sse_state);
  request->sse->last_ms = clock_monotonic_ms();
  request->sse->keepalive_ms = keepalive_ms;
  if (keepalive_ms > 0 && request->server != NULL) {
    request->sse->timer = evtimer_new(request->server->base, on_keepalive, request);
    BASE_CHECK(request->sse->timer != NULL);
    arm_keepalive(request->sse, keepalive_ms);
  }
  http_response_start(request, 200, "text/event-stream");
}

static bool is_one_line(const char *text) {
  return text[strcspn(text, "\r\n")] == '\0';
}

static void append_data_lines(struct buf *out, const char *data, size_t length) {
  const char *end = data + length;
  for (;;) {
    const char *stop = data;
    while (stop < end && *stop != '\n' && *stop != '\r')
      stop++;
    buf_append(out, "data: ", 6);
    buf_append(out, data, (size_t)(stop - data));
    buf_append_char(out, '\n');
    if (stop == end)
      return;
    data = stop + (stop + 1 < end && stop[0] == '\r' && stop[1] == '\n' ? 2 : 1);
  }
}

static bool write_and_free(struct http_request *request, struct buf *out) {
  bool sent = http_response_write(request, out->data, out->length);
  buf_free(out);
  return sent;
}

bool http_sse_event(struct http_request *request, const char *id, const char *event, const char *data,
                    size_t data_bytes) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  if ((id != NULL && !is_one_line(id)) || (event != NULL && !is_one_line(event)))
    return false;
  struct buf out = {0};
  buf_reserve(&out, data_bytes + 64);
  if (event != NULL)
    buf_printf(&out, "event: %s\n", event);
  if (id != NULL)
    buf_printf(&out, "id: %s\n", id);
  if (data != NULL)
    append_data_lines(&out, data, data_bytes);
  buf_append_char(&out, '\n');
  return write_and_free(request, &out);
}

bool http_sse_comment(struct http_request *request, const char *text) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  struct buf out = {0};
  buf_printf(&out, ": %s", text);
  for (size_t i = 0; i < out.length; i++)
    if (out.data[i] == '\r' || out.data[i] == '\n')
      out.data[i] = ' ';
  buf_append(&out, "\n\n", 2);
  return write_and_free(request, &out);
}

bool http_sse_retry(struct http_request *request, uint32_t retry_ms) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  struct buf out = {0};
  buf_printf(&out, "retry: %u\n\n", retry_ms);
  return write_and_free(request, &out);
}
