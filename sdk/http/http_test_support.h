/* http_test_support.h: what the tests of this room share: a server on an ephemeral loopback port (or none at all: a
 * socket pair), a handler with a few routes, and a raw client that turns the loop itself instead of blocking. */
#ifndef GATEHOUSE_HTTP_TEST_SUPPORT_H
#define GATEHOUSE_HTTP_TEST_SUPPORT_H

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/http/http_server.h"
#include "sdk/http/http_tls.h"

struct fixture {
  struct event_base *base;
  struct http_server *server;
  struct http_tls *tls;
  uint16_t port;
  struct http_request *pending; /* GET /pending and /stream leave it here */
  unsigned handled;
  unsigned closes;
  enum http_close_reason close_reason;
  bool pending_closed;
  unsigned drained;
  size_t streamed_bytes;
  bool streamed_end;
  bool server_drained;
};

static inline void fixture_on_close(void *context, struct http_request *request, enum http_close_reason reason) {
  struct fixture *f = context;
  f->closes++;
  f->close_reason = reason;
  f->pending_closed = request == f->pending;
}

static inline void fixture_on_drained(void *context, struct http_request *request) {
  struct fixture *f = context;
  (void)request;
  f->drained++;
}

static inline void fixture_on_body(void *context, struct http_request *request, const void *data, size_t length) {
  struct fixture *f = context;
  f->streamed_bytes += length;
  if (data == NULL) {
    f->streamed_end = true;
    http_response_send(request, 200, "text/plain", "streamed", 8);
  }
}

static inline void fixture_on_request(void *context, struct http_request *request) {
  struct fixture *f = context;
  const char *path = http_request_path(request);
  f->handled++;
  if (strcmp(path, "/echo") == 0) {
    struct buf *body = http_request_body(request);
    http_response_send(request, 200, "application/octet-stream", body->data, body->length);
  } else if (strcmp(path, "/describe") == 0) {
    struct buf text = {0};
    const char *q = http_request_query_value(request, "q");
    const char *many = http_request_header(request, "x-many");
    buf_printf(&text, "%s|%s|%s|%s|%s|%s|%zu|%u", http_request_method(request), path, http_request_query(request),
               http_request_host(request), q != NULL ? q : "-", many != NULL ? many : "-",
               http_request_body(request)->length, http_request_version(request));
    http_response_send_buf(request, 200, "text/plain", &text);
  } else if (strcmp(path, "/pending") == 0 || strcmp(path, "/stream") == 0 || strcmp(path, "/sse") == 0) {
    f->pending = request;
    http_request_on_close(request, fixture_on_close, f);
    http_response_on_drained(request, fixture_on_drained, f);
    if (strcmp(path, "/stream") == 0)
      http_response_start(request, 200, "text/plain");
    if (strcmp(path, "/sse") == 0)
      http_sse_start(request, 20);
  } else if (strcmp(path, "/upload") == 0) {
    http_request_on_close(request, fixture_on_close, f);
    http_request_body_stream(request, fixture_on_body, f);
    f->pending = request;
  } else if (strcmp(path, "/big") == 0) {
    char *big = base_calloc(1, 4000000);
    memset(big, 'b', 4000000);
    http_response_send(request, 200, "text/plain", big, 4000000);
    base_free(big);
  } else if (strcmp(path, "/empty") == 0) {
    http_response_send(request, 204, NULL, NULL, 0);
  } else if (strcmp(path, "/auth") == 0) {
    const char *credential = http_request_header(request, "authorization");
    http_response_send(request, 200, "text/plain", credential, credential != NULL ? strlen(credential) : 0);
  } else if (strcmp(path, "/redirect") == 0) {
    http_response_header_add(request, "location", http_request_query_value(request, "to"));
    http_response_send(request, atoi(http_request_query_value(request, "status")), NULL, "moved", 5);
  } else if (strcmp(path, "/abort") == 0) {
    http_request_abort(request);
  } else if (strcmp(path, "/error") == 0) {
    struct error error;
    error_set(&error, ERR_RATE_LIMIT_EXCEEDED, NULL);
    error.retry_after_ms = 1500;
    http_response_send_error(request, &error);
  } else {
    http_response_send(request, 200, "text/plain", "hello", 5);
  }
}

static inline enum http_body_mode fixture_on_headers(void *context, struct http_request *request) {
  struct fixture *f = context;
  (void)f;
  if (strcmp(http_request_path(request), "/upload") == 0)
    return HTTP_BODY_STREAM;
  if (strcmp(http_request_path(request), "/denied") == 0) {
    struct error error;
    error_set(&error, ERR_AUTH_TOKEN_MISSING, NULL);
    http_response_send_error(request, &error);
    return HTTP_BODY_REFUSE;
  }
  if (strcmp(http_request_path(request), "/small") == 0)
    http_request_body_limit_set(request, 10);
  return HTTP_BODY_BUFFER;
}

static inline int fixture_listen(uint16_t *port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof(address);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 128) != 0 ||
      getsockname(fd, (struct sockaddr *)&address, &length) != 0)
    abort();
  *port = ntohs(address.sin_port);
  return fd;
}

static inline void fixture_open_with(struct fixture *f, const struct http_server_limits *limits, struct http_tls *tls) {
  struct http_server_options options;
  http_server_options_init(&options);
  if (limits != NULL)
    options.limits = *limits;
  options.on_request = fixture_on_request;
  options.on_headers = fixture_on_headers;
  options.context = f;
  f->base = http_event_base_new();
  f->server = http_server_create(f->base, &options);
  f->tls = tls;
  if (!http_server_listen_fd(f->server, fixture_listen(&f->port), tls, NULL))
    abort();
}

static inline void fixture_close(struct fixture *f) {
  http_server_free(&f->server);
  http_tls_free(&f->tls);
  event_base_free(f->base);
}

static inline void fixture_on_server_drained(void *context) {
  ((struct fixture *)context)->server_drained = true;
}

static inline void turn(struct fixture *f) {
  event_base_loop(f->base, EVLOOP_NONBLOCK);
}

/* Turns the loop until condition holds; false after half a minute. */
#define TURN_UNTIL(f, condition)                                                                                       \
  __extension__({                                                                                                      \
    int64_t give_up_ = clock_monotonic_ms() + 30000;                                                                   \
    while (!(condition) && clock_monotonic_ms() < give_up_) {                                                          \
      turn(f);                                                                                                         \
      usleep(200);                                                                                                     \
    }                                                                                                                  \
    (condition);                                                                                                       \
  })

static inline int raw_connect(struct fixture *f) {
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(f->port)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
    abort();
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

/* Sends in pieces of piece bytes (0: all at once), turning the loop between them. */
static inline void raw_send(struct fixture *f, int fd, const void *data, size_t length, size_t piece) {
  const char *at = data;
  int64_t give_up = clock_monotonic_ms() + 30000;
  while (length > 0 && clock_monotonic_ms() < give_up) {
    size_t part = piece != 0 && piece < length ? piece : length;
    ssize_t sent = send(fd, at, part, MSG_NOSIGNAL);
    turn(f);
    if (sent < 0 && errno != EAGAIN)
      return;
    if (sent > 0) {
      at += sent;
      length -= (size_t)sent;
    }
  }
}

/* Reads what comes; true when the server closed. Stops when `until` is in the text, at the end, or after wait_ms. */
static inline bool raw_read(struct fixture *f, int fd, struct buf *text, const char *until, int64_t wait_ms) {
  int64_t give_up = clock_monotonic_ms() + wait_ms;
  while (clock_monotonic_ms() < give_up) {
    turn(f);
    char piece[16384];
    ssize_t got = recv(fd, piece, sizeof(piece), 0);
    if (got == 0 || (got < 0 && errno != EAGAIN))
      return true;
    if (got > 0)
      buf_append(text, piece, (size_t)got);
    else
      usleep(200);
    if (until != NULL && text->length > 0 && strstr(text->data, until) != NULL)
      return false;
  }
  return false;
}

static inline int status_of(const struct buf *text) {
  return text->length > 12 && strncmp(text->data, "HTTP/1.1 ", 9) == 0 ? atoi(text->data + 9) : 0;
}

static inline unsigned occurrences(const struct buf *text, const char *needle) {
  unsigned count = 0;
  for (const char *at = text->data; at != NULL && (at = strstr(at, needle)) != NULL; at += strlen(needle))
    count++;
  return count;
}

#endif
