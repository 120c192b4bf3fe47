/* call.c: one request to an upstream: sent when the upstream is connected, sent once more when the upstream has
 * forgotten the session, cancelled in the form of its era. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "modules/mcp/upstream/upstream_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"

#define TIMEOUT_DEFAULT_MS 60000
#define CANCEL_TIMEOUT_MS 5000
#define SENDS_MAX 2

struct mcp_upstream_call {
  TAILQ_ENTRY(mcp_upstream_call) entry;
  struct upstream *upstream;
  struct mcp_upstream_handler handler;
  void *arg;
  struct header_list credentials;
  enum mcp_method method;
  char *name; /* for Mcp-Name; NULL: none */
  char *members, *meta, *traceparent;
  bool wants_progress, waiting;
  int64_t id, deadline_ms;
  unsigned sends;
  struct post *post;
};

static bool call_send(struct mcp_upstream_call *call, struct error *err);

static int64_t left_ms(const struct mcp_upstream_call *call) {
  int64_t left = call->deadline_ms - clock_monotonic_ms();
  return left > 1 ? left : 1;
}

static void call_unlink(struct mcp_upstream_call *call) {
  struct upstream_call_list *list = call->waiting ? &call->upstream->waiting : &call->upstream->calls;
  TAILQ_REMOVE(list, call, entry);
}

void upstream_call_discard(struct mcp_upstream_call *call) {
  call_unlink(call);
  if (call->post)
    post_cancel(BASE_TAKE(call->post));
  header_list_clear(&call->credentials);
  base_free(call->name);
  base_free(call->members);
  base_free(call->meta);
  base_free(call->traceparent);
  base_free(call);
}

static void call_finish(struct mcp_upstream_call *call, struct mcp_slice result, const struct error *err) {
  const struct upstream *upstream = call->upstream;
  const struct mcp_upstream_handler handler = call->handler;
  void *arg = call->arg;
  const struct mcp_upstream_info info = {
      .version = upstream->version,
      .server_name = upstream->server_name ? upstream->server_name : "",
      .server_version = upstream->server_version ? upstream->server_version : "",
      .instructions = upstream->instructions ? upstream->instructions : "",
      .capabilities_json = upstream->capabilities ? upstream->capabilities : "",
  };
  call->post = NULL;
  upstream_call_discard(call);
  handler.on_done(arg, &info, result, err);
}

/* ---- what the upstream says ---- */

static double number_of(struct mcp_slice token) {
  char text[64];
  if (!token.length || token.length >= sizeof(text))
    return 0;
  memcpy(text, token.data, token.length);
  text[token.length] = 0;
  return strtod(text, NULL);
}

static void progress_take(struct mcp_upstream_call *call, struct mcp_slice params) {
  struct mcp_slice token = mcp_object_member(params, "progressToken");
  if (!call->handler.on_progress || (int64_t)number_of(token) != call->id)
    return;
  char *message = mcp_token_text(mcp_object_member(params, "message"));
  call->handler.on_progress(call->arg, number_of(mcp_object_member(params, "progress")),
                            number_of(mcp_object_member(params, "total")), message);
  base_free(message);
}

static void log_take(struct mcp_upstream_call *call, struct mcp_slice params) {
  struct mcp_slice data = mcp_object_member(params, "data");
  if (!call->handler.on_log || !data.length)
    return;
  char *level = mcp_token_text(mcp_object_member(params, "level"));
  char *logger = mcp_token_text(mcp_object_member(params, "logger"));
  call->handler.on_log(call->arg, level ? level : "info", logger, data);
  base_free(level);
  base_free(logger);
}

static void session_headers(const struct upstream *upstream, struct header_list *headers) {
  header_list_add(headers, "MCP-Protocol-Version", mcp_version_text(upstream->version));
  if (upstream->session_id)
    header_list_add(headers, "Mcp-Session-Id", upstream->session_id);
}

/* A message nobody waits for an answer to. */
static void tell(struct mcp_upstream_call *call, const struct buf *body) {
  struct header_list headers = {0};
  struct error err = {0};
  session_headers(call->upstream, &headers);
  header_list_append(&headers, &call->credentials);
  const struct post_request request = {.headers = &headers, .body = body, .timeout_ms = CANCEL_TIMEOUT_MS};
  post_start(call->upstream, &request, NULL, NULL, &err);
}

/* A request of the upstream to us: we declared nothing, so only ping has an answer. */
static void request_answer(struct mcp_upstream_call *call, const struct mcp_message *message) {
  struct buf body = {0};
  buf_append_text(&body, "{\"jsonrpc\":\"2.0\",\"id\":");
  buf_append(&body, message->id.data, message->id.length);
  buf_append_text(&body, message->method == MCP_METHOD_PING
                             ? ",\"result\":{}}"
                             : ",\"error\":{\"code\":-32601,\"message\":\"Method not found\"}}");
  tell(call, &body);
  buf_free(&body);
}

static void on_message(void *arg, const struct mcp_message *message, struct mcp_slice params) {
  struct mcp_upstream_call *call = arg;
  if (message->kind == MCP_MESSAGE_REQUEST)
    request_answer(call, message);
  else if (message->method == MCP_METHOD_PROGRESS)
    progress_take(call, params);
  else if (message->method == MCP_METHOD_MESSAGE)
    log_take(call, params);
}

/* The upstream has forgotten what we remember of it: connect anew and send once more. */
static bool try_again(struct mcp_upstream_call *call, struct error *err) {
  struct upstream *upstream = call->upstream;
  if (call->sends >= SENDS_MAX)
    return false;
  upstream_era_forget(upstream);
  upstream_disconnect(upstream);
  TAILQ_REMOVE(&upstream->calls, call, entry);
  call->waiting = true;
  TAILQ_INSERT_TAIL(&upstream->waiting, call, entry);
  return upstream->state == UPSTREAM_CONNECTING || upstream_connect(upstream, &call->credentials, left_ms(call), err);
}

static void rpc_error_take(struct mcp_slice error, struct error *err) {
  char *message = mcp_token_text(mcp_object_member(error, "message"));
  error_set_foreign(err, ERROR_CATEGORY_UPSTREAM_ERROR, ERROR_ORIGIN_UPSTREAM, error_code_text(ERR_MCP_UPSTREAM_RPC),
                    str_is_empty(message) ? error_code_summary(ERR_MCP_UPSTREAM_RPC) : message);
  base_free(message);
}

static void on_answer(void *arg, const struct post_answer *answer, const struct error *err) {
  struct mcp_upstream_call *call = arg;
  struct error failure = {0};
  call->post = NULL;
  if (err) {
    call_finish(call, (struct mcp_slice){0}, err);
    return;
  }
  if (mcp_slice_is(answer->result, '{')) {
    call_finish(call, answer->result, NULL);
    return;
  }
  bool forgotten = answer->http_status == 404 || answer->http_status == 400;
  bool known = mcp_version_era(call->upstream->version) == MCP_ERA_MODERN && answer->error.length;
  if (forgotten && !known && try_again(call, &failure))
    return;
  if (error_is_set(&failure))
    ;
  else if (answer->http_status == 401 || answer->http_status == 403)
    error_set(&failure, ERR_INVOKE_UPSTREAM, "the upstream refused the gateway's credential");
  else if (answer->error.length)
    rpc_error_take(answer->error, &failure);
  else if (answer->http_status >= 300)
    error_set(&failure, ERR_INVOKE_UPSTREAM, "the upstream answered HTTP %d", answer->http_status);
  else
    error_set(&failure, ERR_INVOKE_UPSTREAM, "the upstream gave no answer");
  call_finish(call, (struct mcp_slice){0}, &failure);
}

/* ---- sending ---- */

static void body_write(struct mcp_upstream_call *call, struct buf *body) {
  bool modern = mcp_version_era(call->upstream->version) == MCP_ERA_MODERN, comma = false;
  struct buf meta = {0};
  if (modern) {
    buf_append_text(&meta, UPSTREAM_MODERN_META);
    comma = true;
  }
  if (call->wants_progress) {
    buf_printf(&meta, "%s\"progressToken\":%lld", comma ? "," : "", (long long)call->id);
    comma = true;
  }
  if (modern && call->traceparent)
    buf_printf(&meta, ",\"traceparent\":\"%s\"", call->traceparent);
  if (call->meta)
    mcp_meta_copy_foreign(&meta, (struct mcp_slice){call->meta, strlen(call->meta)}, &comma);
  buf_printf(body, "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"method\":\"%s\",\"params\":{", (long long)call->id,
             mcp_method_text(call->method));
  buf_append_text(body, call->members);
  if (comma) {
    buf_append_text(body, *call->members ? ",\"_meta\":{" : "\"_meta\":{");
    buf_append(body, meta.data, meta.length);
    buf_append_char(body, '}');
  }
  buf_append_text(body, "}}");
  buf_free(&meta);
}

/* Plain where HTTP can carry it, else as =?base64?…?= (1.4). */
static void name_header_add(struct header_list *headers, const char *name) {
  bool plain = *name && *name != ' ' && !str_ends_with(name, " ") && !str_starts_with(name, "=?base64?");
  for (const char *c = name; *c; c++)
    plain = plain && (unsigned char)*c >= 0x20 && (unsigned char)*c < 0x7f;
  if (plain) {
    header_list_add(headers, "Mcp-Name", name);
    return;
  }
  size_t length = strlen(name), encoded_length = STR_BASE64_LENGTH(length);
  char *encoded = base_alloc(encoded_length + 1);
  str_base64_encode(encoded, (const uint8_t *)name, length);
  char *value = base_asprintf("=?base64?%.*s?=", (int)encoded_length, encoded);
  header_list_add(headers, "Mcp-Name", value);
  base_free(value);
  base_free(encoded);
}

static bool call_send(struct mcp_upstream_call *call, struct error *err) {
  static const struct post_handler handler = {.on_message = on_message, .on_answer = on_answer};
  struct upstream *upstream = call->upstream;
  struct header_list headers = {0};
  struct buf body = {0};
  call->id = ++upstream->next_id;
  call->sends++;
  session_headers(upstream, &headers);
  if (mcp_version_era(upstream->version) == MCP_ERA_MODERN) {
    header_list_add(&headers, "Mcp-Method", mcp_method_text(call->method));
    if (call->name)
      name_header_add(&headers, call->name);
  }
  if (call->traceparent)
    header_list_add(&headers, "traceparent", call->traceparent);
  header_list_append(&headers, &call->credentials);
  body_write(call, &body);
  const struct post_request request = {.headers = &headers, .body = &body, .id = call->id, .timeout_ms = left_ms(call)};
  call->post = post_start(upstream, &request, &handler, call, err);
  buf_free(&body);
  return call->post != NULL;
}

void upstream_calls_send(struct upstream *upstream) {
  struct mcp_upstream_call *call;
  struct error err = {0};
  while (upstream->state == UPSTREAM_READY && (call = TAILQ_FIRST(&upstream->waiting))) {
    TAILQ_REMOVE(&upstream->waiting, call, entry);
    call->waiting = false;
    TAILQ_INSERT_TAIL(&upstream->calls, call, entry);
    if (!call_send(call, &err))
      call_finish(call, (struct mcp_slice){0}, &err);
  }
}

void upstream_calls_fail(struct upstream *upstream, const struct error *err) {
  struct upstream_call_list failed = TAILQ_HEAD_INITIALIZER(failed);
  struct mcp_upstream_call *call;
  /* Only those that wait now: a callback may start new ones. */
  unsigned count = 0;
  TAILQ_FOREACH(call, &upstream->waiting, entry) count++;
  for (; count > 0 && (call = TAILQ_FIRST(&upstream->waiting)); count--)
    call_finish(call, (struct mcp_slice){0}, err);
}

/* ---- starting and giving up ---- */

struct mcp_upstream_call *mcp_upstream_call_start(struct mcp_upstream_pool *pool,
                                                  const struct mcp_upstream_request *request,
                                                  const struct mcp_upstream_handler *handler, void *arg,
                                                  struct error *err) {
  const core_common_v1_InvocationPlan *plan = request->plan;
  const core_common_v1_McpPlan *mcp = plan->which_call == core_common_v1_InvocationPlan_mcp_tag ? plan->call.mcp : NULL;
  if (!mcp || !(str_is_empty(mcp->transport) || str_equal(mcp->transport, "streamable-http"))) {
    error_set(err, ERR_UNSUPPORTED, "this transport to an upstream MCP server is not supported");
    return NULL;
  }
  struct upstream *upstream = upstream_get(pool, plan, err);
  if (!upstream)
    return NULL;
  int64_t timeout_ms = plan->deadline_ms;
  if (request->timeout_ms > 0 && (timeout_ms == 0 || request->timeout_ms < timeout_ms))
    timeout_ms = request->timeout_ms;
  struct mcp_upstream_call *call = BASE_NEW(struct mcp_upstream_call);
  call->upstream = upstream;
  call->handler = *handler;
  call->arg = arg;
  header_list_copy(&call->credentials, plan);
  call->method = request->method;
  call->members = base_strdup(request->members_json ? request->members_json : "");
  call->meta = str_is_empty(request->meta_json) ? NULL : base_strdup(request->meta_json);
  call->name = request->method == MCP_METHOD_TOOLS_CALL && mcp->original_name ? base_strdup(mcp->original_name) : NULL;
  if (plan->trace && mcp_traceparent_is_valid(plan->trace->traceparent))
    call->traceparent = base_strdup(plan->trace->traceparent);
  call->wants_progress = request->wants_progress;
  call->deadline_ms = clock_monotonic_ms() + (timeout_ms > 0 ? timeout_ms : TIMEOUT_DEFAULT_MS);
  call->waiting = upstream->state != UPSTREAM_READY;
  TAILQ_INSERT_TAIL(call->waiting ? &upstream->waiting : &upstream->calls, call, entry);
  bool ok = upstream->state == UPSTREAM_READY ? call_send(call, err)
            : upstream->state == UPSTREAM_CONNECTING
                ? true
                : upstream_connect(upstream, &call->credentials, left_ms(call), err);
  if (!ok) {
    upstream_call_discard(call);
    return NULL;
  }
  return call;
}

void mcp_upstream_call_cancel(struct mcp_upstream_call *call) {
  struct buf body = {0};
  if (!call->waiting && mcp_version_era(call->upstream->version) == MCP_ERA_LEGACY) {
    buf_printf(&body,
               "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":%lld,"
               "\"reason\":\"the client gave up\"}}",
               (long long)call->id);
    tell(call, &body);
    buf_free(&body);
  }
  upstream_call_discard(call);
}
