/* call.c: tools/call through the core (SPI-9): one stream of the SPI, whose items become notifications and the result.
 * What a tool is and who may call it is the core's to know; here is only the form of the answer. */
#include <math.h>
#include <string.h>

#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/arena.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"
#include "sdk/wire/wire.h"
#include "wire/nano/core/spi/catalog/v1/catalog.pb.h"

#define INVOKE_METHOD "/core.spi.catalog.v1.CatalogService/Invoke"
#define ITEM_BLOCK_BYTES 512   /* what a small item takes decoded, above its length */
#define DEADLINE_GRACE_MS 1000 /* the core's own deadline answers first */

/* ---- what the client sees ---- */

/* A text block for an error that is a tool's result (>= 2025-11-25: arguments that do not match the schema). */
static void fail_as_result(struct mcp_call *call, const struct error *err) {
  struct buf content = {0};
  buf_append_text(&content, "[{\"type\":\"text\",\"text\":");
  buf_append_json_string(&content, err->message, strlen(err->message));
  buf_append_text(&content, "}]");
  mcp_call_result(call, (struct mcp_slice){content.data, content.length}, (struct mcp_slice){0}, true,
                  (struct mcp_slice){0});
  buf_free(&content);
}

void mcp_tool_fail(struct mcp_call *call, const struct error *err) {
  bool of_arguments = err->category == ERROR_CATEGORY_INVALID_ARGUMENT && !error_is(err, ERR_RPC_MESSAGE_MALFORMED);
  if (of_arguments && mcp_call_version(call) >= MCP_VERSION_2025_11_25) {
    fail_as_result(call, err);
  } else if (error_is(err, ERR_CATALOG_NOT_FOUND)) {
    struct mcp_problem problem;
    char *name = mcp_token_text(call->message.name);
    mcp_problem_from_error(&problem, err);
    problem.message = arena_printf(mcp_exchange_arena(call->exchange), "Unknown tool: %.100s", name ? name : "");
    base_free(name);
    mcp_call_fail(call, &problem);
  } else {
    mcp_call_fail_error(call, err);
  }
}

void mcp_call_result(struct mcp_call *call, struct mcp_slice content, struct mcp_slice structured, bool is_error,
                     struct mcp_slice meta) {
  struct mcp_exchange *exchange = call->exchange;
  struct buf out = {0};
  bool comma;
  buf_reserve(&out, content.length + structured.length + meta.length + 256);
  mcp_write_result_open(&out, call->message.id, exchange->era, meta, &comma);
  if (content.length)
    mcp_write_member(&out, &comma, "content", content.data, content.length);
  else
    mcp_write_member(&out, &comma, "content", "[]", 2);
  /* Before 2025-06-18 there was none; up to 2025-11-25 it is an object. */
  bool may = exchange->era == MCP_ERA_MODERN ||
             (mcp_call_version(call) >= MCP_VERSION_2025_06_18 && mcp_slice_is(structured, '{'));
  if (structured.length && may)
    mcp_write_member(&out, &comma, "structuredContent", structured.data, structured.length);
  if (is_error)
    mcp_write_member(&out, &comma, "isError", "true", 4);
  mcp_write_result_close(&out);
  mcp_call_reply(call, 200, &out);
}

/* Finite numbers as JSON; anything else has no form there. */
static void number_write(struct buf *out, const char *prefix, double value) {
  buf_append_text(out, prefix);
  if (isfinite(value))
    buf_printf(out, "%.15g", value);
  else
    buf_append_char(out, '0');
}

void mcp_call_progress(struct mcp_call *call, double progress, double total, const char *message) {
  struct mcp_slice token = call->message.meta.progress_token;
  struct buf out = {0};
  if (!mcp_call_wants_progress(call))
    return;
  buf_append_text(&out, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":");
  buf_append(&out, token.data, token.length);
  number_write(&out, ",\"progress\":", progress);
  if (total > 0)
    number_write(&out, ",\"total\":", total);
  if (!str_is_empty(message) && mcp_call_version(call) >= MCP_VERSION_2025_03_26) {
    buf_append_text(&out, ",\"message\":");
    buf_append_json_string(&out, message, strlen(message));
  }
  buf_append_text(&out, "}}");
  mcp_call_notify(call, &out);
}

static void log_relay(struct mcp_call *call, const core_common_v1_InvokeLog *log) {
  struct buf out = {0};
  if (!call->message.meta.log_level.length || !log->data_json ||
      !json_check(log->data_json, strlen(log->data_json), JSON_DEPTH_MAX, NULL))
    return;
  buf_append_text(&out, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":");
  buf_append_json_string(&out, log->level ? log->level : "info", strlen(log->level ? log->level : "info"));
  if (!str_is_empty(log->logger)) {
    buf_append_text(&out, ",\"logger\":");
    buf_append_json_string(&out, log->logger, strlen(log->logger));
  }
  buf_append_text(&out, ",\"data\":");
  buf_append_text(&out, log->data_json);
  buf_append_text(&out, "}}");
  mcp_call_notify(call, &out);
}

/* ---- the stream ---- */

/* The SPI's stream of one call. It outlives the call when the result comes before its end. */
struct mcp_call_stream {
  struct mcp_call *call; /* NULL: has its result */
  struct rpc_call *rpc;
};

static void stream_let_go(struct mcp_call *call) {
  struct mcp_call_stream *stream = BASE_TAKE(call->stream);
  stream->call = NULL;
}

void mcp_call_stream_cancel(struct mcp_call *call) {
  struct mcp_call_stream *stream = BASE_TAKE(call->stream);
  if (!stream)
    return;
  rpc_call_cancel(stream->rpc);
  base_free(stream);
}

static struct mcp_slice json_slice(const char *text, char open) {
  size_t length = text ? strlen(text) : 0;
  if (!length || !json_check(text, length, JSON_DEPTH_MAX, NULL))
    return (struct mcp_slice){0};
  text += strspn(text, " \t\r\n");
  return !open || *text == open ? (struct mcp_slice){text, strlen(text)} : (struct mcp_slice){0};
}

static void result_take(struct mcp_call *call, const core_common_v1_InvokeResult *result) {
  struct mcp_slice content = json_slice(result->content_json, '[');
  struct error err = {0};
  stream_let_go(call); /* its status follows, and is of no interest */
  if (!content.length && !str_is_empty(result->content_json)) {
    error_set(&err, ERR_INVOKE_UPSTREAM, "the tool's result is not valid");
    mcp_tool_fail(call, &err);
    return;
  }
  mcp_call_result(call, content, json_slice(result->structured_content_json, 0), result->is_error,
                  json_slice(result->meta_json, '{'));
}

static void invoke_message(void *arg, const uint8_t *message, size_t length) {
  struct mcp_call_stream *stream = arg;
  struct mcp_call *call = stream->call;
  core_common_v1_InvokeItem item = {0};
  struct error err = {0};
  if (!call)
    return;
  struct arena *arena = arena_create(ITEM_BLOCK_BYTES + length);
  if (!rpc_message_decode(message, length, core_common_v1_InvokeItem_fields, &item, arena, &err)) {
    arena_free(&arena);
    mcp_call_stream_cancel(call);
    error_set(&err, ERR_MODULE_ANSWER, NULL); /* handed through: it is the owner's doing, not the client's */
    mcp_tool_fail(call, &err);
    return;
  }
  switch (item.which_item) {
  case core_common_v1_InvokeItem_progress_tag:
    mcp_call_progress(call, item.item.progress->progress, item.item.progress->total, item.item.progress->message);
    break;
  case core_common_v1_InvokeItem_log_tag:
    log_relay(call, item.item.log);
    break;
  case core_common_v1_InvokeItem_result_tag:
    result_take(call, item.item.result);
    break;
  default: /* started, partial and requests to the caller: nothing of the kind was asked for */
    break;
  }
  arena_free(&arena);
}

static void invoke_ended(void *arg, const struct rpc_status *status) {
  struct mcp_call_stream *stream = arg;
  struct mcp_call *call = stream->call;
  base_free(stream);
  if (!call)
    return;
  struct error err = status->error;
  call->stream = NULL;
  if (status->code == RPC_OK)
    error_set(&err, ERR_INVOKE_NO_RESULT, NULL);
  if (error_is(&err, ERR_RPC_PEER_GONE))
    call->exchange->may_have_begun = true; /* if it is asked for again, the next core decides (LIF-12) */
  mcp_tool_fail(call, &err);
}

void mcp_call_invoke(struct mcp_call *call, core_common_v1_InvocationEnvelope *envelope) {
  static const struct rpc_stream_handler handler = {.on_message = invoke_message, .on_status = invoke_ended};
  struct mcp *mcp = call->exchange->mcp;
  const struct rpc_call_options options = {.deadline_ms = mcp->config.call_timeout_ms + DEADLINE_GRACE_MS};
  core_spi_catalog_v1_InvokeRequest request = {.invocation = envelope};
  struct mcp_call_stream *stream = BASE_NEW(struct mcp_call_stream);
  stream->call = call;
  stream->rpc = rpc_call_open(module_spi(mcp->module), INVOKE_METHOD, &options, &handler, stream);
  call->stream = stream;
  rpc_call_send_message(stream->rpc, core_spi_catalog_v1_InvokeRequest_fields, &request);
  rpc_call_half_close(stream->rpc);
}

/* ---- the request ---- */

core_common_v1_InvocationEnvelope *mcp_call_envelope(struct mcp_call *call) {
  struct mcp_exchange *exchange = call->exchange;
  struct arena *arena = mcp_exchange_arena(exchange);
  const struct mcp_message *message = &call->message;
  struct {
    core_common_v1_InvocationEnvelope envelope;
    core_common_v1_RecordReference target;
    core_common_v1_CallerContext caller;
    core_common_v1_TraceContext trace;
  } *parts = arena_alloc(arena, sizeof(*parts));
  char *name = mcp_token_text(message->name);
  if (!name)
    return NULL;
  parts->target.kind = core_common_v1_EntityKind_ENTITY_KIND_TOOL;
  parts->target.name = arena_strdup(arena, name);
  base_free(name);
  mcp_caller_fill(exchange, &parts->caller);
  mcp_trace_fill(&exchange->trace, &parts->trace);
  core_common_v1_InvocationEnvelope *envelope = &parts->envelope;
  envelope->target = &parts->target;
  envelope->caller = &parts->caller;
  envelope->trace = &parts->trace;
  envelope->server_id = (char *)(uintptr_t)exchange->server_id;
  envelope->arguments_json = message->arguments.length
                                 ? arena_memdup(arena, message->arguments.data, message->arguments.length)
                                 : (char *)(uintptr_t) "{}";
  envelope->deadline_ms = exchange->mcp->config.call_timeout_ms;
  envelope->wants_progress = mcp_call_wants_progress(call);
  envelope->session_id = exchange->session ? exchange->session->id : NULL;
  envelope->may_have_begun = exchange->may_have_begun;
  if (message->meta.log_level.length && exchange->takes_sse && !exchange->batch) {
    char *level = mcp_token_text(message->meta.log_level);
    envelope->log_level = level ? arena_strdup(arena, level) : NULL;
    base_free(level);
  }
  if (message->meta.object.length > 2) {
    struct buf meta = {0};
    bool comma = false;
    buf_append_char(&meta, '{');
    mcp_meta_copy_foreign(&meta, message->meta.object, &comma);
    buf_append_char(&meta, '}');
    if (comma)
      envelope->meta_json = arena_memdup(arena, meta.data, meta.length);
    buf_free(&meta);
  }
  return envelope;
}

static const char *header_get(void *arg, const char *name) {
  return http_request_header(arg, name);
}

void mcp_tools_call(struct mcp_call *call) {
  struct mcp_caller *caller = call->exchange->caller;
  struct mcp_tool *tool = NULL;
  struct error err = {0};
  core_common_v1_InvocationEnvelope *envelope = mcp_call_envelope(call);
  if (!envelope) { /* a name with U+0000: nothing is called that */
    error_set(&err, ERR_CATALOG_NOT_FOUND, NULL);
    mcp_tool_fail(call, &err);
    return;
  }
  HASH_FIND_STR(caller->tools, envelope->target->name, tool);
  if (tool && tool->definition && call->exchange->era == MCP_ERA_MODERN &&
      !mcp_params_match((struct mcp_slice){tool->definition, strlen(tool->definition)}, call->message.arguments,
                        header_get, call->exchange->request))
    mcp_call_fail_fault(call, MCP_FAULT_HEADER_MISMATCH);
  else if (tool && tool->plan_eligible)
    mcp_call_prepare(call, envelope);
  else
    mcp_call_invoke(call, envelope);
}
