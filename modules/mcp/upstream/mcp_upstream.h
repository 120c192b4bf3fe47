/* mcp_upstream.h: the gateway as an MCP client (MCP-1): upstream servers of the legacy (2025-03-26 … 2025-11-25) and
 * the modern era (2026-07-28), reached as an approved plan says and in no other way.
 *
 * Connections, the era that was found out and legacy sessions are pooled by gateway, URL, credential (its hash: the
 * credential itself is kept only while a connection is made) and egress policy. A session that the upstream forgot is
 * opened anew and the call is made once more, if the upstream has surely not seen it. One loop, no threads. */
#ifndef GATEHOUSE_MCP_UPSTREAM_H
#define GATEHOUSE_MCP_UPSTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/error.h"
#include "wire/nano/core/common/v1/common.pb.h"

struct event_base;
struct mcp_upstream_pool;
struct mcp_upstream_call;

/* base outlives the pool. */
struct mcp_upstream_pool *mcp_upstream_pool_create(struct event_base *base);
/* Ends every call without a callback. Nulls; NULL-safe. Not from inside a callback. */
void mcp_upstream_pool_free(struct mcp_upstream_pool **pool);
/* Upstreams known now. */
size_t mcp_upstream_pool_count(const struct mcp_upstream_pool *pool);

/* About an upstream, once it is connected. JSON texts are raw; "" when the upstream did not say. */
struct mcp_upstream_info {
  enum mcp_version version;
  const char *server_name, *server_version, *instructions, *capabilities_json;
};

/* What an upstream says during a call. Slices are valid during the callback. */
struct mcp_upstream_handler {
  /* May be NULL. total 0: unknown; message may be NULL. */
  void (*on_progress)(void *arg, double progress, double total, const char *message);
  /* May be NULL. */
  void (*on_log)(void *arg, const char *level, const char *logger, struct mcp_slice data);
  /* Exactly once unless cancelled, never from inside start; the call is gone after it. err NULL: result is the raw
   * result object. Errors: INVOKE_UPSTREAM, the HTTP_UPSTREAM_ ones, HTTP_URL_BLOCKED, UNSUPPORTED, or foreign ones
   * with the upstream's own words (mcp.upstream.rpc_error). */
  void (*on_done)(void *arg, const struct mcp_upstream_info *info, struct mcp_slice result, const struct error *err);
};

/* One request to an upstream; everything is copied. */
struct mcp_upstream_request {
  const core_common_v1_InvocationPlan *plan; /* with call.mcp; its deadline is the whole call's */
  enum mcp_method method;                    /* TOOLS_CALL, TOOLS_LIST */
  const char *members_json;                  /* members of params, without braces and `_meta`; "" or NULL: none */
  const char *meta_json;                     /* a JSON object that travels along; NULL or "": none */
  bool wants_progress;
  int64_t timeout_ms; /* beside the plan's deadline: the shorter one holds; both 0: 60 s */
};

/* Starts a request. NULL with an error when the plan cannot be carried out at all. */
struct mcp_upstream_call *mcp_upstream_call_start(struct mcp_upstream_pool *pool,
                                                  const struct mcp_upstream_request *request,
                                                  const struct mcp_upstream_handler *handler, void *arg,
                                                  struct error *err);
/* Gives it up: the upstream is told in the form of its era, no callback comes any more. */
void mcp_upstream_call_cancel(struct mcp_upstream_call *call);

/* The members of a tools/call request's params for this plan: "name" and "arguments". Appends. */
void mcp_upstream_tool_members(struct buf *out, const core_common_v1_InvocationPlan *plan);

/* A CallToolResult, taken apart. False with INVOKE_UPSTREAM when it is none, or asks for something that is not built.
 */
struct mcp_upstream_tool_result {
  struct mcp_slice content, structured, meta;
  bool is_error;
};
bool mcp_upstream_tool_result_read(struct mcp_slice result, struct mcp_upstream_tool_result *out, struct error *err);

#endif
