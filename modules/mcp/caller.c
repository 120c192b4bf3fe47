/* caller.c: who is calling (SPI-2, SPI-3, BND-6). A credential is asked about once per lease: the answer is kept under
 * a keyed hash of the credential, the server and the client's address, never beyond its lease, and dropped the moment
 * the core says so. Requests that ask the same thing at once share one call. Failures are never kept. */
#include <string.h>

#include "modules/mcp/mcp_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/siphash.h"
#include "sdk/base/str.h"
#include "wire/nano/core/spi/auth/v1/auth.pb.h"

#define CALLERS_MAX 10000
#define AUTHORIZATION_MAX 8

/* A question that is under way. */
struct mcp_resolution {
  uint8_t key[MCP_CALLER_KEY_BYTES];
  struct mcp *mcp;
  struct rpc_call *call;
  TAILQ_HEAD(, mcp_caller_wait) waits;
  UT_hash_handle hh;
};

/* ---- keys ---- */

static void key_text(struct siphash *hash, const char *text) {
  /* The NUL goes in as well, so that two texts cannot run together. */
  siphash_update(hash, text, strlen(text) + 1);
}

static void key_make(const struct mcp *mcp, struct http_request *request, const char *server_id,
                     uint8_t key[static MCP_CALLER_KEY_BYTES]) {
  struct siphash hash;
  size_t index = 0;
  const char *value;
  siphash_init(&hash, mcp->caller_hash_key);
  key_text(&hash, server_id);
  key_text(&hash, http_request_client_address(request));
  while ((value = http_request_header_next(request, "authorization", &index)))
    key_text(&hash, value);
  siphash_final(&hash, key);
}

/* ---- the cache ---- */

void mcp_caller_lists_free(struct mcp *mcp, struct mcp_caller *caller) {
  struct mcp_tool *tool, *next;
  struct mcp_page *page;
  HASH_ITER(hh, caller->tools, tool, next) {
    HASH_DEL(caller->tools, tool);
    base_free(tool->name);
    base_free(tool->definition);
    base_free(tool);
  }
  while ((page = SLIST_FIRST(&caller->pages))) {
    SLIST_REMOVE_HEAD(&caller->pages, entry);
    mcp->page_bytes -= page->members.length;
    buf_free(&page->members);
    base_free(page->cursor);
    base_free(page);
  }
}

struct mcp_caller *mcp_caller_hold(struct mcp_caller *caller) {
  caller->holds++;
  return caller;
}

void mcp_caller_release(struct mcp_caller **holder) {
  struct mcp_caller *caller = BASE_TAKE(*holder);
  if (!caller || --caller->holds > 0)
    return;
  base_free(caller->reference);
  base_free(caller->owner);
  base_free(caller);
}

void mcp_caller_drop(struct mcp *mcp, struct mcp_caller *caller) {
  if (caller->dropped)
    return;
  caller->dropped = true;
  HASH_DELETE(hh, mcp->callers, caller);
  HASH_DELETE(by_reference, mcp->callers_by_reference, caller);
  mcp_caller_lists_free(mcp, caller);
  mcp_caller_release(&caller);
}

void mcp_callers_drop_all(struct mcp *mcp) {
  struct mcp_caller *caller, *next;
  HASH_ITER(hh, mcp->callers, caller, next) mcp_caller_drop(mcp, caller);
}

void mcp_callers_drop_reference(struct mcp *mcp, const char *reference) {
  struct mcp_caller *caller = NULL;
  HASH_FIND(by_reference, mcp->callers_by_reference, reference, strlen(reference), caller);
  if (caller)
    mcp_caller_drop(mcp, caller);
}

void mcp_callers_forget_lists(struct mcp *mcp) {
  struct mcp_caller *caller, *next;
  HASH_ITER(hh, mcp->callers, caller, next) mcp_caller_lists_free(mcp, caller);
}

void mcp_callers_sweep(struct mcp *mcp) {
  int64_t now_ms = clock_monotonic_ms();
  struct mcp_caller *caller, *next;
  HASH_ITER(hh, mcp->callers, caller, next) if (caller->valid_until_ms <= now_ms) mcp_caller_drop(mcp, caller);
}

static struct mcp_caller *caller_keep(struct mcp *mcp, const uint8_t *key,
                                      const core_spi_auth_v1_ResolveCallerResponse *response) {
  const core_common_v1_AuthContext *context = response->context;
  struct mcp_caller *caller = NULL;
  int64_t left_ms = context->expires_at_ms - clock_wall_ms();
  int64_t ttl_ms = response->lease ? response->lease->ttl_ms : 0;
  if (left_ms < ttl_ms)
    ttl_ms = left_ms > 0 ? left_ms : 0;
  HASH_FIND(hh, mcp->callers, key, MCP_CALLER_KEY_BYTES, caller);
  if (caller)
    mcp_caller_drop(mcp, caller);
  mcp_callers_drop_reference(mcp, context->reference);
  if (HASH_COUNT(mcp->callers) >= CALLERS_MAX)
    mcp_callers_drop_all(mcp);
  const core_common_v1_Subject *subject = context->subject;
  caller = BASE_NEW(struct mcp_caller);
  memcpy(caller->key, key, MCP_CALLER_KEY_BYTES);
  caller->holds = 1; /* the table's */
  caller->reference = base_strdup(context->reference);
  caller->owner = base_asprintf("%d\n%s\n%s", subject ? (int)subject->method : 0,
                                subject && subject->user_email ? subject->user_email : "",
                                subject && subject->token_id ? subject->token_id : "");
  caller->valid_until_ms = clock_monotonic_ms() + ttl_ms;
  SLIST_INIT(&caller->pages);
  HASH_ADD(hh, mcp->callers, key, MCP_CALLER_KEY_BYTES, caller);
  HASH_ADD_KEYPTR(by_reference, mcp->callers_by_reference, caller->reference, strlen(caller->reference), caller);
  return caller;
}

/* ---- asking ---- */

static void resolution_answer(struct mcp_resolution *resolution, struct mcp_caller *caller, const struct error *err) {
  struct mcp_caller_wait *wait;
  HASH_DELETE(hh, resolution->mcp->resolutions, resolution);
  while ((wait = TAILQ_FIRST(&resolution->waits))) {
    TAILQ_REMOVE(&resolution->waits, wait, entry);
    wait->resolution = NULL;
    wait->done(wait->arg, caller, err);
  }
  base_free(resolution);
}

static void resolved(void *arg, const struct rpc_status *status, void *reply) {
  struct mcp_resolution *resolution = arg;
  const core_spi_auth_v1_ResolveCallerResponse *response = reply;
  struct error err = status->error;
  struct mcp_caller *caller = NULL;
  if (response && response->context && !str_is_empty(response->context->reference))
    caller = mcp_caller_hold(caller_keep(resolution->mcp, resolution->key, response));
  else if (response)
    error_set(&err, ERR_INTERNAL, NULL);
  resolution_answer(resolution, caller, caller ? NULL : &err);
  mcp_caller_release(&caller);
}

static void resolution_start(struct mcp_resolution *resolution, struct http_request *request, const char *server_id,
                             const struct mcp_trace *trace) {
  core_common_v1_Header headers[AUTHORIZATION_MAX] = {0};
  core_common_v1_TraceContext trace_context = {0};
  const char *transport = http_request_version(request) >= 20 ? "h2" : "http/1.1";
  core_spi_auth_v1_ResolveCallerRequest message = {
      .transport = (char *)(uintptr_t)transport,
      .headers = headers,
      .client_address = (char *)(uintptr_t)http_request_client_address(request),
      .server_id = (char *)(uintptr_t)server_id,
      .protocol_family = (char *)(uintptr_t)MCP_FAMILY,
      .trace = &trace_context,
  };
  size_t index = 0;
  const char *value;
  while (message.headers_count < AUTHORIZATION_MAX &&
         (value = http_request_header_next(request, "authorization", &index)))
    headers[message.headers_count++] =
        (core_common_v1_Header){.name = (char *)(uintptr_t) "authorization", .value = (char *)(uintptr_t)value};
  mcp_trace_fill(trace, &trace_context);
  resolution->call =
      module_spi_call(resolution->mcp->module, SPI_AUTH_RESOLVE_CALLER, &message, 0, resolved, resolution);
}

struct mcp_caller *mcp_caller_resolve(struct mcp *mcp, struct http_request *request, const char *server_id,
                                      const struct mcp_trace *trace, struct mcp_caller_wait *wait,
                                      mcp_caller_done *done, void *arg) {
  uint8_t key[MCP_CALLER_KEY_BYTES];
  struct mcp_caller *caller = NULL;
  struct mcp_resolution *resolution = NULL;
  key_make(mcp, request, server_id, key);
  HASH_FIND(hh, mcp->callers, key, MCP_CALLER_KEY_BYTES, caller);
  if (caller && caller->valid_until_ms > clock_monotonic_ms())
    return mcp_caller_hold(caller);
  HASH_FIND(hh, mcp->resolutions, key, MCP_CALLER_KEY_BYTES, resolution);
  if (!resolution) {
    resolution = BASE_NEW(struct mcp_resolution);
    memcpy(resolution->key, key, MCP_CALLER_KEY_BYTES);
    resolution->mcp = mcp;
    TAILQ_INIT(&resolution->waits);
    HASH_ADD(hh, mcp->resolutions, key, MCP_CALLER_KEY_BYTES, resolution);
    resolution_start(resolution, request, server_id, trace);
  }
  *wait = (struct mcp_caller_wait){.resolution = resolution, .done = done, .arg = arg};
  TAILQ_INSERT_TAIL(&resolution->waits, wait, entry);
  return NULL;
}

void mcp_caller_wait_cancel(struct mcp_caller_wait *wait) {
  struct mcp_resolution *resolution = BASE_TAKE(wait->resolution);
  if (resolution) /* the question goes on: its answer may be of use to the next request */
    TAILQ_REMOVE(&resolution->waits, wait, entry);
}

void mcp_caller_fill(const struct mcp_exchange *exchange, core_common_v1_CallerContext *caller) {
  caller->which_caller = core_common_v1_CallerContext_reference_tag;
  caller->caller.reference = exchange->caller->reference;
}

void mcp_trace_fill(const struct mcp_trace *trace, core_common_v1_TraceContext *out) {
  out->request_id = (char *)(uintptr_t)trace->request_id;
  out->traceparent = (char *)(uintptr_t)trace->traceparent;
  out->tracestate = (char *)(uintptr_t)trace->tracestate;
  out->baggage = (char *)(uintptr_t)trace->baggage;
}
