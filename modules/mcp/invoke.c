/* invoke.c: calls that the core hands to this module (ModuleRuntime.Invoke): tools of upstream MCP servers, asked for
 * by whatever protocol. The plan says what may be done; progress and log lines go back as they come. */
#include <string.h>

#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/str.h"

/* One call under way. */
struct invoking {
  struct module_invocation *invocation;
  struct mcp_upstream_call *call;
  int64_t began_us;
  bool wants_progress, wants_log;
};

static void finish(struct invoking *invoking, const struct error *err) {
  struct module_invocation *invocation = invoking->invocation;
  base_free(invoking);
  module_invocation_finish(invocation, err);
}

static void on_progress(void *arg, double progress, double total, const char *message) {
  struct invoking *invoking = arg;
  core_common_v1_InvokeProgress value = {.progress = progress, .total = total, .message = (char *)(uintptr_t)message};
  core_common_v1_InvokeItem item = {.which_item = core_common_v1_InvokeItem_progress_tag, .item.progress = &value};
  if (invoking->wants_progress)
    module_invocation_send(invoking->invocation, &item);
}

static void on_log(void *arg, const char *level, const char *logger, struct mcp_slice data) {
  struct invoking *invoking = arg;
  if (!invoking->wants_log)
    return;
  char *text = base_strndup(data.data, data.length);
  core_common_v1_InvokeLog value = {
      .level = (char *)(uintptr_t)level, .logger = (char *)(uintptr_t)logger, .data_json = text};
  core_common_v1_InvokeItem item = {.which_item = core_common_v1_InvokeItem_log_tag, .item.log = &value};
  module_invocation_send(invoking->invocation, &item);
  base_free(text);
}

static char *slice_text(struct mcp_slice slice) {
  return slice.length ? base_strndup(slice.data, slice.length) : NULL;
}

static void on_done(void *arg, const struct mcp_upstream_info *info, struct mcp_slice result, const struct error *err) {
  struct invoking *invoking = arg;
  struct mcp_upstream_tool_result parts;
  struct error failure = {0};
  (void)info;
  if (!err && !mcp_upstream_tool_result_read(result, &parts, &failure))
    err = &failure;
  if (err) {
    finish(invoking, err);
    return;
  }
  core_common_v1_InvokeResult value = {
      .content_json = slice_text(parts.content),
      .structured_content_json = slice_text(parts.structured),
      .is_error = parts.is_error,
      .meta_json = slice_text(parts.meta),
      .upstream_duration_us = (uint64_t)(clock_monotonic_us() - invoking->began_us),
  };
  core_common_v1_InvokeItem item = {.which_item = core_common_v1_InvokeItem_result_tag, .item.result = &value};
  bool sent = module_invocation_send(invoking->invocation, &item);
  base_free(value.content_json);
  base_free(value.structured_content_json);
  base_free(value.meta_json);
  if (!sent)
    error_set(&failure, ERR_UNAVAILABLE, NULL);
  finish(invoking, sent ? NULL : &failure);
}

static void on_cancel(struct module_invocation *invocation, void *arg) {
  struct invoking *invoking = arg;
  struct error err = {0};
  (void)invocation;
  mcp_upstream_call_cancel(invoking->call);
  error_set(&err, ERR_CANCELLED, NULL);
  finish(invoking, &err);
}

void mcp_invoke(struct module *module, struct module_invocation *invocation) {
  static const struct mcp_upstream_handler handler = {.on_progress = on_progress, .on_log = on_log, .on_done = on_done};
  struct mcp *mcp = module_state(module);
  const core_module_v1_InvokeRequest *request = module_invocation_request(invocation);
  int64_t remaining_ms = module_invocation_remaining_ms(invocation);
  struct buf members = {0};
  struct error err = {0};
  struct invoking *invoking = BASE_NEW(struct invoking);
  invoking->invocation = invocation;
  invoking->began_us = clock_monotonic_us();
  invoking->wants_progress = request->wants_progress;
  invoking->wants_log = !str_is_empty(request->log_level);
  if (request->plan->which_call != core_common_v1_InvocationPlan_mcp_tag || !request->plan->call.mcp) {
    error_set(&err, ERR_UNSUPPORTED, "this module calls MCP servers only");
    finish(invoking, &err);
    return;
  }
  mcp_upstream_tool_members(&members, request->plan);
  const struct mcp_upstream_request upstream_request = {
      .plan = request->plan,
      .method = MCP_METHOD_TOOLS_CALL,
      .members_json = members.data,
      .meta_json = request->meta_json,
      .wants_progress = request->wants_progress,
      .timeout_ms = remaining_ms == INT64_MAX ? 0 : remaining_ms,
  };
  invoking->call = mcp_upstream_call_start(mcp->upstream, &upstream_request, &handler, invoking, &err);
  buf_free(&members);
  if (!invoking->call)
    finish(invoking, &err);
  else
    module_invocation_handle(invocation, on_cancel, invoking);
}
