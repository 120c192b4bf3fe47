/* http1_reply.c: replies in HTTP/1.1 form. The head is built in the server's scratch buffer and goes out together with
 * the body in one write. A reply to an unknown length is chunked, to an HTTP/1.0 client it ends with the connection. */
#include <string.h>

#include "sdk/http/http_internal.h"

#define JOINED_BYTES_MAX 4096 /* a body that is copied behind its head costs less than a second piece */

static void append_decimal(struct buf *out, uint64_t number) {
  char digits[20];
  size_t at = sizeof(digits);
  do {
    digits[--at] = (char)('0' + number % 10);
    number /= 10;
  } while (number != 0);
  buf_append(out, digits + at, sizeof(digits) - at);
}

static void append_line(struct buf *out, const char *name, const char *value) {
  buf_append_text(out, name);
  buf_append(out, ": ", 2);
  buf_append_text(out, value);
  buf_append(out, "\r\n", 2);
}

/* Decides about the connection as well: after this the reply's framing and keep-alive are fixed. */
static struct buf *build_head(struct http_request *request, int status, bool has_length, size_t length) {
  struct http_connection *connection = request->connection;
  struct http_server *server = connection->server;
  struct http1_connection *h1 = &connection->h1;
  if (server->draining || !h1->body_complete || h1->requests >= server->options.limits.requests_per_connection_max)
    h1->keep_alive = false;
  h1->reply_chunked = !has_length && request->version >= 11 && !request->head_only;
  if (!has_length && request->version < 11)
    h1->keep_alive = false;
  struct buf *head = &server->scratch;
  buf_clear(head);
  buf_append(head, "HTTP/1.1 ", 9);
  append_decimal(head, (uint64_t)status);
  buf_append_char(head, ' ');
  buf_append_text(head, http_status_reason(status));
  buf_append(head, "\r\n", 2);
  append_line(head, "Date", http_server_date(server));
  if (request->reply_content_type != NULL)
    append_line(head, "Content-Type", request->reply_content_type);
  if (has_length && !status_has_no_body(status)) {
    buf_append(head, "Content-Length: ", 16);
    append_decimal(head, length);
    buf_append(head, "\r\n", 2);
  }
  if (h1->reply_chunked)
    append_line(head, "Transfer-Encoding", "chunked");
  if (!h1->keep_alive)
    append_line(head, "Connection", "close");
  else if (request->version < 11)
    append_line(head, "Connection", "keep-alive");
  for (size_t i = 0; i < request->reply_header_count; i++)
    append_line(head, request->reply_headers[i].name, request->reply_headers[i].value);
  buf_append(head, "\r\n", 2);
  return head;
}

void http1_reply(struct http_request *request, int status, const void *body, size_t body_bytes) {
  struct http_connection *connection = request->connection;
  struct buf *head = build_head(request, status, true, body_bytes);
  if (request->head_only)
    body_bytes = 0;
  bool joined = body_bytes <= JOINED_BYTES_MAX;
  if (joined && body_bytes > 0)
    buf_append(head, body, body_bytes);
  struct iovec parts[2] = {{head->data, head->length}, {(void *)(uintptr_t)body, body_bytes}};
  connection_write(connection, parts, joined ? 1 : 2);
  http1_reply_done(connection);
}

void http1_start(struct http_request *request, int status) {
  struct buf *head = build_head(request, status, false, 0);
  struct iovec part = {head->data, head->length};
  connection_write(request->connection, &part, 1);
}

bool http1_write(struct http_request *request, const void *data, size_t length) {
  struct http_connection *connection = request->connection;
  char size[20];
  int size_bytes = snprintf(size, sizeof(size), "%zx\r\n", length);
  struct iovec parts[3] = {
      {size, (size_t)size_bytes}, {(void *)(uintptr_t)data, length}, {(void *)(uintptr_t) "\r\n", 2}};
  if (connection->h1.reply_chunked)
    connection_write(connection, parts, 3);
  else
    connection_write(connection, parts + 1, 1);
  return !connection->doomed;
}

void http1_end(struct http_request *request) {
  struct http_connection *connection = request->connection;
  struct iovec last = {(void *)(uintptr_t) "0\r\n\r\n", 5};
  if (connection->h1.reply_chunked)
    connection_write(connection, &last, 1);
  http1_reply_done(connection);
}

void http1_abort(struct http_request *request) {
  connection_doom(request->connection, HTTP_CLOSE_PEER);
}

void http1_drop(struct http_request *request) {
  connection_doom(request->connection, HTTP_CLOSE_SLOW);
}

size_t http1_queued(const struct http_request *request) {
  return evbuffer_get_length(request->connection->output);
}
