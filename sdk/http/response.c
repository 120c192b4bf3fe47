/* response.c: replies, the part that is the same for both protocols: checks on fields, errors in the server's form,
 * discarding what nobody will read. The wire forms are in http1_reply.c and http2_reply.c. */
#include <string.h>

#include "sdk/http/http_internal.h"

/* Fields that belong to the server, because the framing of the message depends on them. */
static const char *const owned_fields[] = {"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade",
                                           "date",           "trailer",           "te"};

/* Codes whose status is more exact than their category's. */
static const struct {
  enum error_code code;
  int status;
} exact_statuses[] = {
    {ERR_HTTP_HEADER_TOO_LARGE, 431},   {ERR_HTTP_BODY_TOO_LARGE, 413},
    {ERR_HTTP_URI_TOO_LONG, 414},       {ERR_HTTP_METHOD_UNSUPPORTED, 501},
    {ERR_HTTP_CODING_UNSUPPORTED, 501}, {ERR_HTTP_VERSION_UNSUPPORTED, 505},
    {ERR_HTTP_EXPECTATION, 417},        {ERR_HTTP_UPSTREAM_TIMEOUT, 504},
    {ERR_DEADLINE_EXCEEDED, 504},       {ERR_HTTP_TIMEOUT, 408},
};

static bool is_owned(const char *name) {
  for (size_t i = 0; i < sizeof(owned_fields) / sizeof(owned_fields[0]); i++)
    if (strcasecmp(name, owned_fields[i]) == 0)
      return true;
  return false;
}

bool http_response_header_add(struct http_request *request, const char *name, const char *value) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  BASE_CHECK(!request->started);
  size_t name_bytes = strlen(name);
  size_t value_bytes = strlen(value);
  if (!http_token_is_valid(name, name_bytes) || !http_value_is_valid(value, value_bytes) || is_owned(name)) {
    log_event(LOG_ERROR, "http", "reply field refused", LOG_TEXT("field", name));
    return false;
  }
  while (*value == ' ' || *value == '\t')
    value++, value_bytes--;
  while (value_bytes > 0 && (value[value_bytes - 1] == ' ' || value[value_bytes - 1] == '\t'))
    value_bytes--;
  if (request->reply_header_count == request->reply_header_capacity) {
    size_t bigger = request->reply_header_capacity == 0 ? 8 : request->reply_header_capacity * 2;
    struct http_header *grown = arena_alloc(request->arena, bigger * sizeof(*grown));
    if (request->reply_header_count > 0)
      memcpy(grown, request->reply_headers, request->reply_header_count * sizeof(*grown));
    request->reply_headers = grown;
    request->reply_header_capacity = bigger;
  }
  char *kept_name = arena_memdup(request->arena, name, name_bytes);
  for (char *at = kept_name; *at != '\0'; at++) /* HTTP/2 wants lower case, HTTP/1.1 does not mind */
    if (*at >= 'A' && *at <= 'Z')
      *at = (char)(*at + ('a' - 'A'));
  request->reply_headers[request->reply_header_count++] =
      (struct http_header){kept_name, arena_memdup(request->arena, value, value_bytes)};
  return true;
}

static void set_content_type(struct http_request *request, const char *content_type) {
  if (content_type != NULL && http_value_is_valid(content_type, strlen(content_type)))
    request->reply_content_type = content_type;
}

void http_response_send(struct http_request *request, int status, const char *content_type, const void *body,
                        size_t body_bytes) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  BASE_CHECK(!request->started && status >= 200 && status <= 599);
  if (request->connection != NULL && !request->connection->doomed) {
    request->started = true;
    set_content_type(request, content_type);
    if (status_has_no_body(status))
      body_bytes = 0;
    request->connection->protocol->reply(request, status, body, body_bytes);
  }
  request_free(request);
}

void http_response_send_buf(struct http_request *request, int status, const char *content_type, struct buf *body) {
  struct buf taken = *body;
  *body = (struct buf){0};
  http_response_send(request, status, content_type, taken.data, taken.length);
  buf_free(&taken);
}

static void send_error(struct http_request *request, int status, const struct error *error) {
  if (request->server == NULL) {
    request_free(request);
    return;
  }
  struct buf body = {0};
  const char *path = request->path_raw[0] != '\0' ? request->path_raw : NULL;
  const char *type = http_server_render_error(request->server, status, error, path, &body);
  if (error->retry_after_ms > 0) {
    char seconds[16];
    snprintf(seconds, sizeof(seconds), "%u", (error->retry_after_ms - 1) / 1000 + 1);
    http_response_header_add(request, "retry-after", seconds);
  }
  http_response_send(request, status, type, body.data, body.length);
  buf_free(&body);
}

void http_response_send_error(struct http_request *request, const struct error *error) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  int status = error_category_http_status(error->category);
  for (size_t i = 0; i < sizeof(exact_statuses) / sizeof(exact_statuses[0]); i++)
    if (error_is(error, exact_statuses[i].code))
      status = exact_statuses[i].status;
  send_error(request, status < 400 || status > 599 ? 500 : status, error);
}

void response_refuse(struct http_request *request, const struct http_refusal *refusal) {
  struct error error;
  if (refusal->message != NULL)
    error_set(&error, refusal->code, "%s", refusal->message);
  else
    error_set(&error, refusal->code, NULL);
  request->server->stats.requests_refused++;
  request->reply_header_count = 0;
  send_error(request, refusal->status, &error);
}

void http_response_start(struct http_request *request, int status, const char *content_type) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  BASE_CHECK(!request->started && status >= 200 && status <= 599 && !status_has_no_body(status));
  request->started = true;
  set_content_type(request, content_type);
  if (request->connection != NULL && !request->connection->doomed)
    request->connection->protocol->start(request, status);
}

bool http_response_write(struct http_request *request, const void *data, size_t length) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  BASE_CHECK(request->started);
  struct http_connection *connection = request->connection;
  if (connection == NULL || connection->doomed)
    return false;
  if (length == 0 || request->head_only)
    return true;
  const struct http_server_limits *limits = &connection->server->options.limits;
  size_t queued = connection->protocol->queued(request);
  if (queued > 0 &&
      length > limits->output_hard_limit_bytes -
                   (queued < limits->output_hard_limit_bytes ? queued : limits->output_hard_limit_bytes)) {
    connection->protocol->drop(request); /* on_close follows from the loop, not from here */
    return false;
  }
  if (request->sse != NULL)
    request->sse->last_ms = clock_monotonic_ms();
  if (!connection->protocol->write(request, data, length))
    return false;
  if (connection->protocol->queued(request) > limits->output_high_water_bytes) {
    request->congested = true;
    connection->watch_output = true;
  }
  return true;
}

void http_response_end(struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  BASE_CHECK(request->started);
  if (request->connection != NULL && !request->connection->doomed)
    request->connection->protocol->end(request);
  request_free(request);
}

void http_request_abort(struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  if (request->connection != NULL && !request->connection->doomed)
    request->connection->protocol->abort(request);
  request_free(request);
}

bool http_response_is_started(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->started;
}

size_t http_response_queued_bytes(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->connection == NULL ? 0 : request->connection->protocol->queued(request);
}

bool http_response_is_congested(const struct http_request *request) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  return request->connection != NULL && request->connection->protocol->queued(request) >
                                            request->connection->server->options.limits.output_high_water_bytes;
}

void http_response_on_drained(struct http_request *request, http_drained_handler on_drained, void *context) {
  BASE_CHECK_MAGIC(request, HTTP_REQUEST_MAGIC);
  request->on_drained = on_drained;
  request->on_drained_context = context;
}

void request_check_drained(struct http_request *request) {
  if (!request->congested || request->connection == NULL ||
      request->connection->protocol->queued(request) >
          request->connection->server->options.limits.output_high_water_bytes / 2)
    return;
  request->congested = false;
  if (request->on_drained != NULL)
    request->on_drained(request->on_drained_context, request);
}
