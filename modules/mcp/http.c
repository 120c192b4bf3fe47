/* http.c: the endpoint: /mcp and /servers/{name or id}/mcp by POST, GET and DELETE, and GET /healthz. What can be
 * refused without knowing anybody is refused here: Host and Origin, media types, malformed messages, the wrong era's
 * form. */
#include <string.h>

#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/arena.h"
#include "sdk/base/clock.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

#define SERVERS_PREFIX "/servers/"
#define MCP_SUFFIX "/mcp"
#define SERVER_ID_MAX 255
#define TRACESTATE_MAX 512
#define BAGGAGE_MAX 4096

/* ---- routes ---- */

/* "" for the default server; NULL: no MCP endpoint. */
static const char *server_of(struct http_request *request) {
  const char *path = http_request_path(request);
  if (str_equal(path, MCP_SUFFIX))
    return "";
  if (!str_starts_with(path, SERVERS_PREFIX))
    return NULL;
  const char *name = path + strlen(SERVERS_PREFIX);
  size_t length = strcspn(name, "/");
  if (length == 0 || length > SERVER_ID_MAX || !str_equal(name + length, MCP_SUFFIX) || !str_is_utf8(name, length))
    return NULL;
  return arena_memdup(http_request_arena(request), name, length);
}

static void healthz(struct mcp *mcp, struct http_request *request) {
  bool serves =
      module_is_attached(mcp->module) && (!module_is_draining(mcp->module) || module_is_handing_over(mcp->module));
  const char *body = serves ? "{\"status\":\"ok\"}\n" : "{\"status\":\"unavailable\"}\n";
  http_response_send(request, serves ? 200 : 503, "application/json", body, strlen(body));
}

/* ---- the exchange ---- */

static const char *traceable(const char *value, size_t limit) {
  return value && strlen(value) <= limit && str_is_utf8(value, strlen(value)) ? value : NULL;
}

static void trace_make(struct mcp_exchange *exchange, const char *traceparent) {
  struct mcp_trace *trace = &exchange->trace;
  uint8_t random[40];
  id_pool_take(&exchange->mcp->ids, random, sizeof(random));
  str_hex_encode(trace->request_id, random, 16);
  if (mcp_traceparent_is_valid(traceparent)) {
    memcpy(trace->trace_id, traceparent + 3, 32);
    trace->trace_id[32] = 0;
    memcpy(trace->traceparent, traceparent, MCP_TRACEPARENT_BYTES);
    trace->tracestate = traceable(http_request_header(exchange->request, "tracestate"), TRACESTATE_MAX);
    trace->baggage = traceable(http_request_header(exchange->request, "baggage"), BAGGAGE_MAX);
    return;
  }
  str_hex_encode(trace->trace_id, random + 16, 16);
  char *at = trace->traceparent; /* 00-<trace>-<span>-01 */
  memcpy(at, "00-", 3);
  memcpy(at + 3, trace->trace_id, 32);
  at[35] = '-';
  str_hex_encode(at + 36, random + 32, 8);
  memcpy(at + 52, "-01", sizeof("-01"));
}

static void client_gone(void *context, struct http_request *request, enum http_close_reason reason) {
  struct mcp_exchange *exchange = context;
  (void)request, (void)reason;
  if (exchange->is_stream) {
    exchange->gone = true;
    mcp_exchange_end_stream(exchange);
    return;
  }
  if (exchange->era == MCP_ERA_LEGACY)
    return; /* a disconnect is no cancellation (1.8) */
  exchange->gone = true;
  if (exchange->call_count == 1 && exchange->pending == 1)
    mcp_call_cancel(&exchange->calls[0]);
}

static struct mcp_exchange *exchange_make(struct mcp *mcp, struct http_request *request, const char *server_id,
                                          enum mcp_action action) {
  const char *accept = http_request_header(request, "accept");
  struct mcp_exchange *exchange = arena_alloc(http_request_arena(request), sizeof(*exchange));
  exchange->mcp = mcp;
  exchange->request = request;
  exchange->action = action;
  exchange->era = MCP_ERA_LEGACY;
  exchange->server_id = server_id;
  exchange->session_id = http_request_header(request, "mcp-session-id");
  exchange->began_us = clock_monotonic_us();
  exchange->began_ms = exchange->began_us / 1000;
  exchange->takes_json = mcp_accept_takes(accept, "application/json");
  exchange->takes_sse = mcp_accept_takes(accept, "text/event-stream");
  TAILQ_INSERT_TAIL(&mcp->exchanges, exchange, entry);
  mcp->in_flight++;
  mcp->requests_total++;
  http_request_on_close(request, client_gone, exchange);
  return exchange;
}

/* Reasons that concern neither era nor message. */
static enum mcp_fault gate_check(struct mcp_exchange *exchange) {
  struct mcp *mcp = exchange->mcp;
  size_t index = 0;
  const char *origin;
  if (!mcp_host_is_allowed(http_request_host(exchange->request), (const char *const *)mcp->config.allowed_hosts))
    return MCP_FAULT_HOST;
  while ((origin = http_request_header_next(exchange->request, "origin", &index)))
    if (!mcp_origin_is_allowed(origin, (const char *const *)mcp->config.allowed_origins))
      return MCP_FAULT_ORIGIN;
  return MCP_FAULT_NONE;
}

static enum mcp_fault availability_check(const struct mcp_exchange *exchange) {
  const struct mcp *mcp = exchange->mcp;
  if (module_is_draining(mcp->module) && !module_is_handing_over(mcp->module))
    return MCP_FAULT_DRAINING;
  return mcp->in_flight > mcp->config.in_flight_max ? MCP_FAULT_BUSY : MCP_FAULT_NONE;
}

/* Bytes that cannot be a credential are none; they are not handed on. */
static bool credentials_are_text(struct http_request *request) {
  size_t index = 0;
  const char *value;
  while ((value = http_request_header_next(request, "authorization", &index)))
    if (!str_is_utf8(value, strlen(value)))
      return false;
  return true;
}

/* ---- POST ---- */

static void headers_read(struct http_request *request, struct mcp_headers *headers) {
  const struct {
    const char *name;
    const char **slot;
  } table[] = {{"mcp-protocol-version", &headers->protocol_version},
               {"mcp-method", &headers->method},
               {"mcp-name", &headers->name}};
  *headers = (struct mcp_headers){0};
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
    size_t index = 0;
    *table[i].slot = http_request_header_next(request, table[i].name, &index);
    if (*table[i].slot && http_request_header_next(request, table[i].name, &index))
      headers->repeated = true;
  }
}

/* Reads the messages of the body into the exchange. */
static enum mcp_fault messages_read(struct mcp_exchange *exchange, const struct mcp_headers *headers) {
  const struct buf *body = http_request_body(exchange->request);
  struct arena *arena = http_request_arena(exchange->request);
  struct json_cursor cursor = {0};
  struct mcp_selection selection = {.era = exchange->era};
  const char *key, *value;
  size_t key_length, value_length;
  bool batch;
  enum mcp_fault fault = mcp_body_check(body->data ? body->data : "", body->length, &batch);
  if (fault)
    return fault;
  if (batch && headers->protocol_version && mcp_version_find(headers->protocol_version) != MCP_VERSION_2025_03_26)
    return MCP_FAULT_BATCH;
  exchange->calls = arena_alloc(arena, (batch ? MCP_BATCH_MAX : 1) * sizeof(struct mcp_call));
  if (!batch) {
    exchange->call_count = 1;
    exchange->calls[0].exchange = exchange;
    fault = mcp_message_parse(body->data, body->length, &exchange->calls[0].message);
    if (!fault)
      fault = mcp_era_select(&exchange->calls[0].message, headers, &selection);
    exchange->era = selection.era;
    exchange->version = selection.version;
    exchange->pending = exchange->calls[0].message.kind == MCP_MESSAGE_REQUEST;
    return fault;
  }
  exchange->batch = true;
  exchange->version = MCP_VERSION_2025_03_26;
  json_walk(body->data, body->length, '[', &cursor);
  while (json_next(&cursor, &key, &key_length, &value, &value_length)) {
    struct mcp_call *call = &exchange->calls[exchange->call_count++];
    call->exchange = exchange;
    fault = mcp_message_parse(value, value_length, &call->message);
    /* A batch is taken or refused as a whole; what belongs to another revision has no place in it. */
    if (fault || call->message.method == MCP_METHOD_INITIALIZE || call->message.meta.protocol_version.length)
      return fault ? fault : MCP_FAULT_INVALID_REQUEST;
    exchange->pending += call->message.kind == MCP_MESSAGE_REQUEST;
  }
  return MCP_FAULT_NONE;
}

/* What error.data says beyond the envelope. */
static void version_problem(struct mcp_exchange *exchange, const struct mcp_headers *headers) {
  struct mcp_problem problem;
  struct buf extra = {0};
  const char *requested = headers->protocol_version ? headers->protocol_version : "";
  mcp_problem_from_fault(&problem, MCP_FAULT_VERSION_UNSUPPORTED, MCP_ERA_MODERN, NULL);
  buf_append_text(&extra, ",\"supported\":[\"");
  buf_append_text(&extra, mcp_version_text(MCP_VERSION_MODERN_NEWEST));
  buf_append_text(&extra, "\"],\"requested\":");
  buf_append_json_string(&extra, requested, strlen(requested));
  problem.extra = arena_strdup(http_request_arena(exchange->request), extra.data);
  buf_free(&extra);
  mcp_exchange_fail(exchange, &problem);
}

static void post(struct mcp_exchange *exchange) {
  struct mcp_headers headers;
  struct error err = {0};
  headers_read(exchange->request, &headers);
  enum mcp_version said = mcp_version_find(headers.protocol_version);
  exchange->era = mcp_version_era(said); /* until the body says otherwise */
  enum mcp_fault fault = gate_check(exchange);
  if (!fault && (!mcp_content_type_is_json(http_request_header(exchange->request, "content-type")) ||
                 http_request_header(exchange->request, "content-encoding")))
    fault = MCP_FAULT_MEDIA_TYPE;
  if (!fault && !exchange->takes_json && !exchange->takes_sse)
    fault = MCP_FAULT_NOT_ACCEPTABLE;
  if (!fault)
    fault = messages_read(exchange, &headers);
  const char *traceparent = http_request_header(exchange->request, "traceparent");
  char *of_meta = NULL;
  if (exchange->call_count == 1 && exchange->calls[0].message.meta.traceparent.length)
    of_meta = mcp_token_text(exchange->calls[0].message.meta.traceparent);
  trace_make(exchange, of_meta ? of_meta : traceparent);
  base_free(of_meta);
  if (!fault)
    fault = availability_check(exchange);
  if (fault == MCP_FAULT_VERSION_UNSUPPORTED) {
    version_problem(exchange, &headers);
  } else if (fault) {
    mcp_exchange_fail_fault(exchange, fault);
  } else if (!credentials_are_text(exchange->request)) {
    struct mcp_problem problem;
    error_set(&err, ERR_AUTH_TOKEN_INVALID, NULL);
    mcp_problem_from_error(&problem, &err);
    mcp_exchange_fail(exchange, &problem);
  } else {
    mcp_exchange_begin(exchange);
  }
}

/* ---- GET and DELETE: the legacy era only ---- */

static void other_method(struct mcp_exchange *exchange) {
  struct mcp_headers headers;
  struct error err = {0};
  headers_read(exchange->request, &headers);
  enum mcp_version version = mcp_version_find(headers.protocol_version);
  enum mcp_fault fault = gate_check(exchange);
  trace_make(exchange, http_request_header(exchange->request, "traceparent"));
  if (!fault && version && mcp_version_era(version) == MCP_ERA_MODERN) {
    http_response_header_add(exchange->request, "Allow", "POST");
    fault = MCP_FAULT_METHOD_HTTP;
  }
  if (!fault && headers.protocol_version && !version)
    fault = MCP_FAULT_VERSION_HEADER;
  if (!fault && exchange->action == MCP_ACTION_STREAM && !exchange->takes_sse)
    fault = MCP_FAULT_NOT_ACCEPTABLE;
  if (!fault)
    fault = availability_check(exchange);
  exchange->version = version;
  if (fault) {
    mcp_exchange_fail_fault(exchange, fault);
  } else if (!credentials_are_text(exchange->request)) {
    error_set(&err, ERR_AUTH_TOKEN_INVALID, NULL);
    mcp_exchange_fail_error(exchange, &err);
  } else {
    mcp_exchange_begin(exchange);
  }
}

static void on_request(void *context, struct http_request *request) {
  struct mcp *mcp = context;
  const char *method = http_request_method(request);
  const char *server_id = server_of(request);
  struct error err = {0};
  if (!server_id) {
    if (str_equal(http_request_path(request), "/healthz") && (str_equal(method, "GET") || str_equal(method, "HEAD"))) {
      healthz(mcp, request);
      return;
    }
    error_set(&err, ERR_NOT_FOUND, "there is nothing at this path");
    http_response_send_error(request, &err);
    return;
  }
  if (str_equal(method, "POST")) {
    post(exchange_make(mcp, request, server_id, MCP_ACTION_POST));
  } else if (str_equal(method, "GET")) {
    other_method(exchange_make(mcp, request, server_id, MCP_ACTION_STREAM));
  } else if (str_equal(method, "DELETE")) {
    other_method(exchange_make(mcp, request, server_id, MCP_ACTION_DELETE));
  } else {
    http_response_header_add(request, "Allow", "GET, POST, DELETE");
    mcp_exchange_fail_fault(exchange_make(mcp, request, server_id, MCP_ACTION_POST), MCP_FAULT_METHOD_HTTP);
  }
}

/* ---- streams ---- */

static void stream_owner_known(void *arg, struct mcp_caller *caller, const struct error *err) {
  struct mcp_exchange *stream = arg;
  (void)err;
  if (!caller || !str_equal(caller->owner, stream->session->owner)) {
    mcp_exchange_end_stream(stream);
    return;
  }
  mcp_caller_release(&stream->caller);
  stream->caller = mcp_caller_hold(caller);
}

void mcp_streams_check(struct mcp *mcp) {
  struct mcp_exchange *stream, *next;
  if (!module_is_attached(mcp->module))
    return; /* connections are kept while the core is away */
  for (stream = TAILQ_FIRST(&mcp->streams); stream; stream = next) {
    next = TAILQ_NEXT(stream, entry);
    if (!stream->caller->dropped || stream->wait.resolution)
      continue;
    struct mcp_caller *caller = mcp_caller_resolve(mcp, stream->request, stream->server_id, &stream->trace,
                                                   &stream->wait, stream_owner_known, stream);
    if (caller) {
      stream_owner_known(stream, caller, NULL);
      mcp_caller_release(&caller);
    }
  }
}

/* ---- start ---- */

static const char *render_error(void *context, int status, const struct error *error, const char *path,
                                struct buf *body) {
  struct mcp_problem problem;
  (void)context, (void)path, (void)status;
  mcp_problem_from_error(&problem, error);
  if (error->category == ERROR_CATEGORY_INVALID_ARGUMENT)
    problem.code = -32600;
  mcp_write_error(body, (struct mcp_slice){0}, &problem);
  return "application/json";
}

static enum http_body_mode on_headers(void *context, struct http_request *request) {
  const struct mcp *mcp = context;
  if (mcp->config.body_bytes_max)
    http_request_body_limit_set(request, mcp->config.body_bytes_max);
  return HTTP_BODY_BUFFER;
}

bool mcp_http_start(struct mcp *mcp, struct error *err) {
  struct http_server_options options;
  int fd;
  unsigned count = 0;
  const char *listener = mcp->config.listener ? mcp->config.listener : MCP_LISTENER;
  if (mcp->http)
    return true;
  http_server_options_init(&options);
  options.limits.body_bytes_max = MCP_BODY_BYTES_DEFAULT;
  module_http_limits(&options);
  options.on_request = on_request;
  options.on_headers = on_headers;
  options.render_error = render_error;
  options.context = mcp;
  mcp->http = http_server_create(module_event_base(mcp->module), &options);
  while ((fd = module_listener_take(mcp->module, listener)) >= 0) {
    if (!http_server_listen_fd(mcp->http, fd, NULL, err))
      return false;
    count++;
  }
  return count > 0 || error_set(err, ERR_MODULE_CONFIG, "no listening socket named \"%s\" was passed in", listener);
}
