/* result.c: a tools/call request's params from a plan, and a CallToolResult taken apart, in both eras. */
#include <string.h>

#include "modules/mcp/upstream/mcp_upstream.h"
#include "sdk/base/str.h"

void mcp_upstream_tool_members(struct buf *out, const core_common_v1_InvocationPlan *plan) {
  const char *name = plan->call.mcp->original_name ? plan->call.mcp->original_name : "";
  buf_append_text(out, "\"name\":");
  buf_append_json_string(out, name, strlen(name));
  buf_append_text(out, ",\"arguments\":");
  buf_append_text(out, str_is_empty(plan->arguments_json) ? "{}" : plan->arguments_json);
}

bool mcp_upstream_tool_result_read(struct mcp_slice result, struct mcp_upstream_tool_result *out, struct error *err) {
  struct mcp_slice type = mcp_object_member(result, "resultType");
  struct mcp_slice is_error = mcp_object_member(result, "isError");
  *out = (struct mcp_upstream_tool_result){
      .content = mcp_object_member(result, "content"),
      .structured = mcp_object_member(result, "structuredContent"),
      .meta = mcp_object_member(result, "_meta"),
      .is_error = is_error.length == 4 && memcmp(is_error.data, "true", 4) == 0,
  };
  if (type.length && !mcp_token_equals(type.data, type.length, "complete"))
    return error_set(err, ERR_INVOKE_UPSTREAM, "the upstream asks for something in the middle of the call");
  if (out->content.length ? !mcp_slice_is(out->content, '[') : !out->structured.length)
    return error_set(err, ERR_INVOKE_UPSTREAM, "the upstream's result is not valid");
  if (!mcp_slice_is(out->meta, '{'))
    out->meta = (struct mcp_slice){0};
  return true;
}
