/* write.c: answers as bytes. What came from elsewhere is spliced in as it came; only what is ours is composed. */
#include <string.h>

#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/json.h"
#include "sdk/base/str.h"

static const struct {
  int code, legacy_status, modern_status;
  enum error_code error_code;
  const char *message;
} faults[MCP_FAULT_COUNT] = {
#define MCP_FAULT(name, code, legacy_status, modern_status, error_code, message)                                       \
  [MCP_FAULT_##name] = {code, legacy_status, modern_status, ERR_##error_code, message},
#include "modules/mcp/wire/faults.def"
#undef MCP_FAULT
};

/* docs/mcp.md: how categories of errors look to an MCP client. */
static const struct {
  enum error_category category;
  int code, http_status;
} by_category[] = {
    {ERROR_CATEGORY_INVALID_ARGUMENT, -32602, 200},    {ERROR_CATEGORY_UNAUTHENTICATED, -32000, 401},
    {ERROR_CATEGORY_PERMISSION_DENIED, -32003, 200},   {ERROR_CATEGORY_NOT_FOUND, -32602, 200},
    {ERROR_CATEGORY_RATE_LIMITED, -32000, 200},        {ERROR_CATEGORY_UNAVAILABLE, -32603, 200},
    {ERROR_CATEGORY_UPSTREAM_ERROR, -32603, 200},      {ERROR_CATEGORY_INTERNAL, -32603, 200},
    {ERROR_CATEGORY_FAILED_PRECONDITION, -32603, 200}, {ERROR_CATEGORY_CONFLICT, -32603, 200},
    {ERROR_CATEGORY_UNSUPPORTED, -32603, 200},
};

void mcp_problem_from_fault(struct mcp_problem *problem, enum mcp_fault fault, enum mcp_era era, const char *trace_id) {
  *problem = (struct mcp_problem){
      .code = faults[fault].code,
      .http_status = era == MCP_ERA_MODERN ? faults[fault].modern_status : faults[fault].legacy_status,
      .message = faults[fault].message,
  };
  error_set(&problem->error, faults[fault].error_code, NULL);
  if (trace_id)
    str_copy(problem->error.trace_id, sizeof(problem->error.trace_id), trace_id);
}

void mcp_problem_from_error(struct mcp_problem *problem, const struct error *err) {
  *problem = (struct mcp_problem){.code = -32603, .http_status = 200, .error = *err};
  if (error_is(err, ERR_RPC_MESSAGE_MALFORMED)) { /* inside the gateway: nothing that the client could mend */
    error_set(&problem->error, ERR_INTERNAL, NULL);
    err = &problem->error;
  }
  for (size_t i = 0; i < sizeof(by_category) / sizeof(by_category[0]); i++) {
    if (by_category[i].category == err->category) {
      problem->code = by_category[i].code;
      problem->http_status = by_category[i].http_status;
    }
  }
}

static void write_head(struct buf *out, struct mcp_slice id) {
  buf_append_text(out, "{\"jsonrpc\":\"2.0\",\"id\":");
  if (id.length)
    buf_append(out, id.data, id.length);
  else
    buf_append_text(out, "null");
}

static void write_text(struct buf *out, const char *prefix, const char *text) {
  buf_append_text(out, prefix);
  buf_append_json_string(out, text, strlen(text));
}

void mcp_write_error(struct buf *out, struct mcp_slice id, const struct mcp_problem *problem) {
  const struct error *err = &problem->error;

  const char *message = problem->message ? problem->message : err->message;
  write_head(out, id);
  buf_printf(out, ",\"error\":{\"code\":%d", problem->code);
  write_text(out, ",\"message\":", message);
  write_text(out, ",\"data\":{\"code\":", err->code);
  write_text(out, ",\"category\":", error_category_name(err->category));
  buf_append_text(out, err->retryable ? ",\"retryable\":true" : ",\"retryable\":false");
  if (err->retry_after_ms)
    buf_printf(out, ",\"retryAfterMs\":%u", err->retry_after_ms);
  if (err->trace_id[0])
    write_text(out, ",\"traceId\":", err->trace_id);
  if (problem->extra)
    buf_append_text(out, problem->extra);
  buf_append_text(out, "}}}");
}

void mcp_meta_copy_foreign(struct buf *out, struct mcp_slice meta, bool *comma) {
  static const char *const ours[] = {"progressToken", "traceparent", "tracestate", "baggage"};
  struct json_cursor cursor;
  const char *key, *value;
  size_t key_length, value_length;
  if (!json_walk(meta.data, meta.length, '{', &cursor))
    return;
  while (json_next(&cursor, &key, &key_length, &value, &value_length)) {
    bool own =
        memchr(key, '\\', key_length) != NULL || /* no honest key needs an escape; one might hide a name of ours */
        (key_length > sizeof(MCP_META_PREFIX) && memcmp(key + 1, MCP_META_PREFIX, sizeof(MCP_META_PREFIX) - 1) == 0);
    for (size_t i = 0; !own && i < sizeof(ours) / sizeof(ours[0]); i++)
      own = mcp_token_equals(key, key_length, ours[i]);
    if (own)
      continue;
    if (*comma)
      buf_append_char(out, ',');
    *comma = true;
    buf_append(out, key, key_length);
    buf_append_char(out, ':');
    buf_append(out, value, value_length);
  }
}

void mcp_write_result_open(struct buf *out, struct mcp_slice id, enum mcp_era era, struct mcp_slice meta, bool *comma) {
  write_head(out, id);
  buf_append_text(out, ",\"result\":{");
  *comma = false;
  if (era == MCP_ERA_MODERN) {
    bool inner = true;
    buf_append_text(out, "\"resultType\":\"complete\",\"_meta\":{\"" MCP_META_PREFIX "serverInfo\":" MCP_SERVER_INFO);
    mcp_meta_copy_foreign(out, meta, &inner);
    buf_append_char(out, '}');
    *comma = true;
  } else if (mcp_slice_is(meta, '{')) {
    mcp_write_member(out, comma, "_meta", meta.data, meta.length);
  }
}

void mcp_write_member(struct buf *out, bool *comma, const char *name, const char *value, size_t value_length) {
  buf_append_text(out, *comma ? ",\"" : "\"");
  *comma = true;
  buf_append_text(out, name);
  buf_append_text(out, "\":");
  buf_append(out, value, value_length);
}

void mcp_write_result_close(struct buf *out) {
  buf_append_text(out, "}}");
}
