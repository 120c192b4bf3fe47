/* plan.c: the fast path (SPI-10): the core approves a plan, this module carries it out at the upstream MCP server, and
 * reports how it ended. Every plan that was taken is reported once, whatever happens. */
#include <string.h>

#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/secret.h"
#include "sdk/base/str.h"
#include "wire/nano/core/spi/catalog/v1/catalog.pb.h"

/* A plan that is being carried out. */
struct mcp_plan {
  char *id;
  int64_t began_us;
};

static void plan_report(struct mcp_call *call, enum mcp_report_outcome outcome, const struct error *err,
                        size_t result_bytes) {
  struct mcp_plan *plan = BASE_TAKE(call->plan);
  if (!plan)
    return;
  mcp_report(call->exchange->mcp->reports, plan->id, outcome, err, result_bytes,
             (uint64_t)(clock_monotonic_us() - plan->began_us));
  base_free(plan->id);
  base_free(plan);
}

void mcp_plan_abandon(struct mcp_call *call) {
  plan_report(call, MCP_REPORT_CANCELLED, NULL, 0);
}

/* ---- what the upstream says ---- */

static void upstream_progress(void *arg, double progress, double total, const char *message) {
  mcp_call_progress(arg, progress, total, message);
}

static void upstream_done(void *arg, const struct mcp_upstream_info *info, struct mcp_slice result,
                          const struct error *err) {
  struct mcp_call *call = arg;
  struct mcp_upstream_tool_result parts;
  struct error failure = {0};
  (void)info;
  call->upstream = NULL;
  if (!err && !mcp_upstream_tool_result_read(result, &parts, &failure))
    err = &failure;
  if (err) {
    plan_report(call, MCP_REPORT_ERROR, err, 0);
    mcp_call_fail_error(call, err);
    return;
  }
  plan_report(call, parts.is_error ? MCP_REPORT_TOOL_FAILED : MCP_REPORT_COMPLETED, NULL, result.length);
  mcp_call_result(call, parts.content, parts.structured, parts.is_error, parts.meta);
}

static void plan_run(struct mcp_call *call, core_common_v1_InvocationPlan *plan) {
  static const struct mcp_upstream_handler handler = {.on_progress = upstream_progress, .on_done = upstream_done};
  struct mcp *mcp = call->exchange->mcp;
  core_common_v1_InvocationEnvelope *envelope = mcp_call_envelope(call);
  struct buf members = {0};
  struct error err = {0};
  call->plan = BASE_NEW(struct mcp_plan);
  call->plan->id = base_strdup(plan->plan_id ? plan->plan_id : "");
  call->plan->began_us = clock_monotonic_us();
  mcp_upstream_tool_members(&members, plan);
  const struct mcp_upstream_request request = {
      .plan = plan,
      .method = MCP_METHOD_TOOLS_CALL,
      .members_json = members.data,
      .meta_json = envelope->meta_json,
      .wants_progress = mcp_call_wants_progress(call),
  };
  call->upstream = mcp_upstream_call_start(mcp->upstream, &request, &handler, call, &err);
  buf_free(&members);
  if (!call->upstream) {
    plan_report(call, MCP_REPORT_ERROR, &err, 0);
    mcp_call_fail_error(call, &err);
  }
}

/* ---- what the core says ---- */

static void prepared(void *arg, const struct rpc_status *status, void *reply) {
  struct mcp_call *call = arg;
  core_spi_catalog_v1_PrepareInvokeResponse *response = reply;
  call->spi = NULL;
  if (response && response->which_outcome == core_spi_catalog_v1_PrepareInvokeResponse_plan_tag) {
    core_common_v1_InvocationPlan *plan = response->outcome.plan;
    plan_run(call, plan);
    for (pb_size_t i = 0; i < plan->headers_count; i++) /* they may hold a credential */
      if (plan->headers[i].value)
        secret_wipe(plan->headers[i].value, strlen(plan->headers[i].value));
    return;
  }
  if (response || error_is(&status->error, ERR_INVOKE_NOT_ELIGIBLE)) {
    core_common_v1_InvocationEnvelope *envelope = mcp_call_envelope(call);
    struct mcp_tool *tool = NULL;
    HASH_FIND_STR(call->exchange->caller->tools, envelope->target->name, tool);
    if (tool)
      tool->plan_eligible = false; /* until it is listed anew */
    mcp_call_invoke(call, envelope);
    return;
  }
  mcp_tool_fail(call, &status->error);
}

void mcp_call_prepare(struct mcp_call *call, core_common_v1_InvocationEnvelope *envelope) {
  core_spi_catalog_v1_PrepareInvokeRequest request = {.invocation = envelope};
  call->spi = module_spi_call(call->exchange->mcp->module, SPI_CATALOG_PREPARE_INVOKE, &request, 0, prepared, call);
}
