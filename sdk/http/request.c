/* request.c: the request object: made by a protocol, owned by the handler from request_dispatch() on, freed when it is
 * finished. It may outlive its connection and even the server. Finished requests are kept for reuse with their arena.
 */
#include <string.h>

#include "sdk/http/http_internal.h"

#define SPARE_MAX 256
#define ARENA_FIRST_BYTES 4096
#define BODY_KEPT_BYTES 65536
#define HEADERS_FIRST 24

struct http_request *request_create(struct http_connection *connection) {
  struct http_server *server = connection->server;
  struct http_request *request = TAILQ_FIRST(&server->spare);
  if (request != NULL) {
    TAILQ_REMOVE(&server->spare, request, link);
    server->spare_count--;
  } else {
    request = BASE_NEW(struct http_request);
    request->arena = arena_create(ARENA_FIRST_BYTES);
  }
  request->magic = HTTP_REQUEST_MAGIC;
  request->server = server;
  request->connection = connection;
  request->secure = connection->secure;
  request->port = connection->port;
  memcpy(request->address, connection->address, sizeof(request->address));
  request->method = request->path = request->path_raw = request->query = request->host = "";
  request->body_limit_bytes = server->options.limits.body_bytes_max;
  TAILQ_INSERT_TAIL(&server->requests, request, link);
  server->in_flight++;
  return request;
}

/* Equal for names that differ in case only; different for nearly all others. */
static uint32_t name_tag(const char *name) {
  size_t length = strlen(name);
  uint32_t first = (unsigned char)name[0] | 0x20u, last = length > 0 ? (unsigned char)name[length - 1] | 0x20u : 0;
  return (uint32_t)length << 16 | first << 8 | last;
}

void request_header_push(struct http_request *request, const char *name, const char *value) {
  if (request->header_count == request->header_capacity) {
    size_t bigger = request->header_capacity == 0 ? HEADERS_FIRST : request->header_capacity * 2;
    struct http_field *grown = arena_alloc(request->arena, bigger * sizeof(*grown));
    if (request->header_count > 0)
      memcpy(grown, request->headers, request->header_count * sizeof(*grown));
    request->headers = grown;
    request->header_capacity = bigger;
  }
  request->headers[request->header_count++] = (struct http_field){{name, value}, name_tag(name)};
}

static void release_events(struct http_request *request) {
  if (request->close_event != NULL)
    event_free(request->close_event);
  if (request->sse != NULL) {
    if (request->sse->timer != NULL)
      event_free(request->sse->timer);
    base_free(request->sse);
  }
}

/* The only place where a connection, or a stream of it, forgets a request that its handler has finished: also when the
 * connection is doomed already, and no protocol was asked to send anything. */
static void forget(struct http_request *request) {
  if (request->stream != NULL)
    request->stream->request = NULL;
  else if (request->connection != NULL && request->connection->h1.request == request)
    request->connection->h1.request = NULL;
  request->connection = NULL;
  request->stream = NULL;
}

void request_free(struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  forget(request);
  if (request->hooked) {
    request->finished_in_hook = true;
    return;
  }
  release_events(request);
  struct http_server *server = request->server;
  struct arena *arena = request->arena;
  struct buf body = request->body;
  if (server != NULL) {
    TAILQ_REMOVE(&server->requests, request, link);
    server->in_flight--;
  }
  if (server == NULL || server->spare_count >= SPARE_MAX) {
    buf_free(&body);
    arena_free(&arena);
    request->magic = 0;
    base_free(request);
    return;
  }
  if (body.capacity > BODY_KEPT_BYTES)
    buf_free(&body);
  else
    buf_clear(&body);
  arena_reset(arena);
  memset(request, 0, sizeof(*request));
  request->arena = arena;
  request->body = body;
  TAILQ_INSERT_HEAD(&server->spare, request, link);
  server->spare_count++;
}

static void tell_closed(struct http_request *request, enum http_close_reason reason) {
  if (request->closed)
    return;
  request->closed = true;
  request->close_reason = reason;
  if (request->on_close != NULL) {
    request->close_told = true;
    request->on_close(request->on_close_context, request, reason);
  }
}

void request_lost(struct http_request *request, enum http_close_reason reason) {
  request->connection = NULL;
  request->stream = NULL;
  if (request->phase == HTTP_REQUEST_READING)
    request_free(request);
  else
    tell_closed(request, reason);
}

void request_half_closed(struct http_request *request) {
  if (request->phase == HTTP_REQUEST_HANDLING)
    tell_closed(request, HTTP_CLOSE_HALF);
}

static void on_close_late(evutil_socket_t fd, short what, void *context) {
  struct http_request *request = context;
  (void)fd, (void)what;
  if (request->on_close != NULL && !request->close_told) {
    request->close_told = true;
    request->on_close(request->on_close_context, request, request->close_reason);
  }
}

void http_request_on_close(struct http_request *request, http_close_handler on_close, void *context) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  request->on_close = on_close;
  request->on_close_context = context;
  if (on_close == NULL || !request->closed || request->close_told || request->server == NULL)
    return;
  if (request->close_event == NULL)
    request->close_event = evtimer_new(request->server->base, on_close_late, request);
  BASE_CHECK(request->close_event != NULL);
  event_active(request->close_event, EV_TIMEOUT, 0);
}

enum http_body_mode request_hook(struct http_request *request) {
  struct http_server *server = request->server;
  if (server->options.on_headers == NULL)
    return HTTP_BODY_BUFFER;
  request->hooked = true;
  request->phase = HTTP_REQUEST_HANDLING; /* the hook may reply */
  enum http_body_mode mode = server->options.on_headers(server->options.context, request);
  request->hooked = false;
  if (request->finished_in_hook) {
    request_free(request);
    return HTTP_BODY_REFUSE;
  }
  BASE_CHECK(mode != HTTP_BODY_REFUSE); /* refusing means having replied */
  request->phase = HTTP_REQUEST_READING;
  request->body_mode = mode;
  return mode;
}

void request_dispatch(struct http_request *request) {
  struct http_server *server = request->server;
  request->phase = HTTP_REQUEST_HANDLING;
  server->stats.requests++;
  server->options.on_request(server->options.context, request);
}

bool request_body_append(struct http_request *request, const void *data, size_t length) {
  if (request->body_mode == HTTP_BODY_BUFFER) {
    if (length > request->body_limit_bytes - request->body.length)
      return false;
    buf_append(&request->body, data, length);
    return true;
  }
  if (length > request->body_limit_bytes)
    return false;
  request->body_limit_bytes -= length;
  if (request->on_body != NULL && length > 0)
    request->on_body(request->on_body_context, request, data, length);
  return true;
}

void request_body_end(struct http_request *request) {
  if (request->body_mode != HTTP_BODY_STREAM || request->ended_body)
    return;
  request->ended_body = true;
  if (request->on_body != NULL)
    request->on_body(request->on_body_context, request, NULL, 0);
}

void http_request_body_stream(struct http_request *request, http_body_handler on_data, void *context) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  request->on_body = on_data;
  request->on_body_context = context;
}

void http_request_body_limit_set(struct http_request *request, size_t limit_bytes) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  BASE_CHECK(request->hooked);
  request->body_limit_bytes = limit_bytes;
}

const char *http_request_method(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->method;
}

const char *http_request_path(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->path;
}

const char *http_request_path_raw(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->path_raw;
}

const char *http_request_query(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->query;
}

const char *http_request_host(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->host;
}

unsigned http_request_version(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->version;
}

bool http_request_is_secure(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->secure;
}

const char *http_request_client_address(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->address;
}

uint16_t http_request_client_port(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->port;
}

const char *http_request_header_next(const struct http_request *request, const char *name, size_t *index) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  uint32_t tag = name_tag(name);
  while (*index < request->header_count) {
    const struct http_field *field = &request->headers[(*index)++];
    if (field->tag == tag && strcasecmp(field->header.name, name) == 0)
      return field->header.value;
  }
  return NULL;
}

const char *http_request_header(const struct http_request *request, const char *name) {
  size_t index = 0;
  return http_request_header_next(request, name, &index);
}

size_t http_request_header_count(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->header_count;
}

struct http_header http_request_header_at(const struct http_request *request, size_t index) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  BASE_CHECK(index < request->header_count);
  return request->headers[index].header;
}

struct buf *http_request_body(struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  if (request->body.data == NULL)
    buf_append(&request->body, "", 0);
  return &request->body;
}

struct arena *http_request_arena(struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->arena;
}

void http_request_data_set(struct http_request *request, void *data) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  request->data = data;
}

void *http_request_data(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->data;
}

bool http_request_is_gone(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->connection == NULL || request->connection->doomed;
}
