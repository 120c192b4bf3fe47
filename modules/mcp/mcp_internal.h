/* mcp_internal.h: what the files of modules/mcp share. One process, one loop, one struct mcp.
 *
 * Who owns what: an exchange is one HTTP request and lives until it is answered; it holds its caller and its session.
 * Callers are cached under the core's lease and dropped on revocation (BND-6); what was listed for a caller lives and
 * dies with it. Sessions are the core's; here is only what was looked up, under its lease. */
#ifndef GATEHOUSE_MCP_INTERNAL_H
#define GATEHOUSE_MCP_INTERNAL_H

#include <event2/util.h>
#include <sys/queue.h>

#include <uthash.h>

#include "modules/mcp/upstream/mcp_upstream.h"
#include "modules/mcp/wire/mcp_wire.h"
#include "sdk/base/buf.h"
#include "sdk/base/id.h"
#include "sdk/base/siphash.h"
#include "sdk/http/http_server.h"
#include "sdk/module/module.h"

#define MCP_BODY_BYTES_DEFAULT (4u << 20)
#define MCP_LISTENER "mcp"
#define MCP_FAMILY "mcp"
#define MCP_SSE_KEEPALIVE_MS 15000
#define MCP_SSE_PATIENCE_MS 10000 /* a call that takes longer is answered as a stream, where the client takes one */
#define MCP_RETRY_AFTER_MS 1000
#define MCP_CORE_WAITS_MAX 512       /* requests that wait so at once */
#define MCP_RECONNECT_MS 100         /* that a stream's client waits before it comes back, */
#define MCP_RECONNECT_SPREAD_MS 2000 /* and at most so much longer: one for each stream */
#define MCP_GIVE_UP_MS 1000          /* before the end of a drain at most, and at least a tenth of it */
#define MCP_SWEEP_MS 2000

/* ---- config.c ---- */

/* The module's configuration; lists end with NULL. */
struct mcp_config {
  char **allowed_hosts, **allowed_origins;
  size_t body_bytes_max; /* 0: the operator's limit for every module */
  uint32_t call_timeout_ms;
  uint32_t session_idle_timeout_ms; /* 0: the core's default */
  uint32_t in_flight_max;
  uint32_t core_wait_ms; /* so long a request waits for a core that is away, before it is refused; 0: not at all */
  uint32_t page_size;    /* 0: the core's default */
  char *instructions;    /* NULL: none */
  char *listener;        /* NULL: "mcp" */
};

extern const char mcp_config_schema_json[];
/* Reads the JSON object (NULL or empty: all defaults) into a zeroed struct. ERR_MODULE_CONFIG. */
bool mcp_config_read(const char *json, struct mcp_config *config, struct error *err);
void mcp_config_clear(struct mcp_config *config);

/* ---- the module ---- */

struct mcp_exchange;
struct mcp_call;
TAILQ_HEAD(mcp_exchange_list, mcp_exchange);
TAILQ_HEAD(mcp_call_list, mcp_call);

struct mcp {
  struct module *module;
  struct http_server *http; /* NULL: does not listen yet */
  struct mcp_config config;
  struct mcp_caller *callers, *callers_by_reference;
  uint8_t caller_hash_key[SIPHASH_KEY_BYTES]; /* of this process */
  struct mcp_resolution *resolutions;
  size_t page_bytes; /* of all cached lists */
  uint64_t revision; /* of the newest change that Watch told */
  struct mcp_session *sessions;
  struct mcp_upstream_pool *upstream;
  struct mcp_reports *reports;
  struct mcp_exchange_list exchanges; /* being answered */
  struct mcp_exchange_list streams;   /* GET streams, which are not in flight */
  struct mcp_exchange_list waiting;   /* for the core, in the order of their coming; all are among the exchanges, too */
  uint32_t waiting_count;
  struct event *wait_timer; /* of the first of them */
  uint32_t in_flight;
  uint64_t requests_total, errors_total;
  struct id_pool ids; /* of requests and traces */
  struct event *sweep_timer;
  struct event *give_up_timer; /* while it drains */
};

/* ---- caller.c: who is calling ---- */

/* A tool as this caller sees it. */
struct mcp_tool {
  char *name; /* key */
  bool plan_eligible;
  char *definition; /* only where arguments are mirrored in headers; else NULL */
  UT_hash_handle hh;
};

/* A page of the tool list: the members of the result but those of the era. */
struct mcp_page {
  SLIST_ENTRY(mcp_page) entry;
  char *cursor; /* "": the first page */
  struct buf members;
  int64_t valid_until_ms;
};

#define MCP_CALLER_KEY_BYTES SIPHASH_BYTES

struct mcp_caller {
  unsigned holds;
  uint8_t key[MCP_CALLER_KEY_BYTES]; /* of credential, server and client address */
  char *reference;
  char *owner;            /* who it is, for session bindings */
  int64_t valid_until_ms; /* monotonic */
  bool dropped;           /* revoked, expired or the core is gone: finish what runs, start nothing */
  struct mcp_tool *tools;
  SLIST_HEAD(, mcp_page) pages;
  UT_hash_handle hh, by_reference;
};

typedef void mcp_caller_done(void *arg, struct mcp_caller *caller, const struct error *err);

/* One who waits for an answer; embedded in its owner, zeroed before use. */
struct mcp_caller_wait {
  TAILQ_ENTRY(mcp_caller_wait) entry;
  struct mcp_resolution *resolution; /* NULL: does not wait */
  mcp_caller_done *done;
  void *arg;
};

struct mcp_trace {
  char traceparent[MCP_TRACEPARENT_BYTES];
  char trace_id[33];
  char request_id[33];
  const char *tracestate, *baggage; /* NULL: none */
};

/* Finds out who sends this request: at once from the cache, otherwise by asking the core. Either the caller is returned
 * (held; give it back with mcp_caller_release), or NULL and done comes later (its caller is borrowed: hold it). */
struct mcp_caller *mcp_caller_resolve(struct mcp *mcp, struct http_request *request, const char *server_id,
                                      const struct mcp_trace *trace, struct mcp_caller_wait *wait,
                                      mcp_caller_done *done, void *arg);
void mcp_caller_wait_cancel(struct mcp_caller_wait *wait);
struct mcp_caller *mcp_caller_hold(struct mcp_caller *caller);
void mcp_caller_release(struct mcp_caller **caller);
/* Forgets a caller: the next request asks the core again. */
void mcp_caller_drop(struct mcp *mcp, struct mcp_caller *caller);
void mcp_callers_drop_all(struct mcp *mcp);
void mcp_callers_drop_reference(struct mcp *mcp, const char *reference);
void mcp_callers_sweep(struct mcp *mcp);
/* Forgets what was listed, for everybody: the catalog changed. */
void mcp_callers_forget_lists(struct mcp *mcp);
void mcp_caller_lists_free(struct mcp *mcp, struct mcp_caller *caller);

/* ---- exchange.c: one HTTP request ---- */

/* One JSON-RPC request of an exchange. */
struct mcp_call {
  struct mcp_exchange *exchange;
  struct mcp_message message;
  struct mcp_slice token; /* the message as it came, for a second attempt */
  bool done;
  struct buf reply;                   /* of a batch: until all have one */
  struct rpc_call *spi;               /* under way to the core */
  struct mcp_call_stream *stream;     /* under way to the core: an invocation */
  struct mcp_upstream_call *upstream; /* under way to an upstream */
  struct mcp_plan *plan;              /* carried out here; must be reported */
  TAILQ_ENTRY(mcp_call) session_entry;
  bool in_session;
};

enum mcp_action { MCP_ACTION_POST, MCP_ACTION_STREAM, MCP_ACTION_DELETE };

struct mcp_exchange {
  TAILQ_ENTRY(mcp_exchange) entry, session_entry, waiting_entry;
  struct mcp *mcp;
  struct http_request *request;
  enum mcp_action action;
  enum mcp_era era;
  enum mcp_version version; /* the request's, or the session's once known */
  const char *server_id;    /* "": the default server */
  const char *session_id;   /* header; NULL: none */
  bool batch, takes_json, takes_sse;
  bool is_stream, streaming, gone, retried;
  bool awaits_core, waited, may_have_begun; /* may_have_begun: a core that is gone may have carried it out */
  int64_t wait_until_ms;                    /* while it awaits the core */
  int64_t began_ms, began_us;
  struct mcp_trace trace;
  struct mcp_caller *caller;
  struct mcp_caller_wait wait;
  struct mcp_session *session;
  struct rpc_call *spi; /* of the exchange itself: its session */
  struct mcp_call *calls;
  size_t call_count, pending;
};

/* Answers of one call; each ends it. The buffer is taken over. */
void mcp_call_reply(struct mcp_call *call, int http_status, struct buf *message);
void mcp_call_fail(struct mcp_call *call, struct mcp_problem *problem);
void mcp_call_fail_fault(struct mcp_call *call, enum mcp_fault fault);
/* Or begins it anew, once: a denial of a context that died meanwhile with a new one, what an ending core refused, or a
 * dead one took along, with the next core. */
void mcp_call_fail_error(struct mcp_call *call, const struct error *err);
/* A notification on the call's own stream, which it opens if need be; does nothing where the client takes none. */
void mcp_call_notify(struct mcp_call *call, struct buf *message);
/* Whether notifications can reach the client, and it asked for progress. */
bool mcp_call_wants_progress(const struct mcp_call *call);
/* The session behaves as of this revision. */
enum mcp_version mcp_call_version(const struct mcp_call *call);
/* Ends a call at the client's wish. */
void mcp_call_cancel(struct mcp_call *call);

/* Ends an exchange without any call: one error for all of it. */
void mcp_exchange_fail(struct mcp_exchange *exchange, struct mcp_problem *problem);
void mcp_exchange_fail_fault(struct mcp_exchange *exchange, enum mcp_fault fault);
void mcp_exchange_fail_error(struct mcp_exchange *exchange, const struct error *err);
/* 202, 204: nothing to say. */
void mcp_exchange_finish_empty(struct mcp_exchange *exchange, int http_status);
/* The client takes nothing any more, or the stream is over. */
void mcp_exchange_end_stream(struct mcp_exchange *exchange);
/* Resolves the caller, then the session where the era has one, then dispatches. While the core is away it waits for it
 * first, once, and is refused when that takes too long or too many wait: nothing is decided meanwhile (LIF-6). */
void mcp_exchange_begin(struct mcp_exchange *exchange);
/* A denial of a context that died meanwhile: lets it begin anew with a new one, once. False: it is another error, or
 * the second of them. */
bool mcp_exchange_renew_caller(struct mcp_exchange *exchange, const struct error *err);
/* Lets it wait for the core and begin anew then. False: the core is there, or it may not wait, or not again. */
bool mcp_exchange_await_core(struct mcp_exchange *exchange);
/* The core is back: those that waited begin. */
void mcp_exchanges_go_on(struct mcp *mcp);
/* The time of those that waited longest is up: the event's callback; arg: the struct mcp. */
void mcp_exchanges_wait_over(evutil_socket_t fd, short what, void *arg);
void mcp_exchange_dispatch(struct mcp_exchange *exchange);
/* Long calls become streams; everything that is over is noticed. */
void mcp_exchanges_sweep(struct mcp *mcp);
/* The process ends: everything is ended, answered where that still works. */
void mcp_exchanges_abandon(struct mcp *mcp);
/* Ends the streams that only wait for news, in the protocol's way: since 2025-11-25 their clients are told when to come
 * back (`retry`), spread so that they do not come together; those of before come back by their own rule. */
void mcp_streams_send_away(struct mcp *mcp);
struct arena *mcp_exchange_arena(struct mcp_exchange *exchange);

/* ---- http.c: the endpoint ---- */

bool mcp_http_start(struct mcp *mcp, struct error *err);
/* Asks anew who owns each open stream whose caller was dropped; ends those that nobody owns any more. */
void mcp_streams_check(struct mcp *mcp);

/* ---- session.c: legacy sessions ---- */

struct mcp_session {
  char *id; /* key */
  char *owner, *server_id;
  enum mcp_version version;
  int64_t valid_until_ms;
  unsigned holds;
  bool ended; /* no longer in the table */
  struct mcp_call_list calls;
  struct mcp_exchange_list streams;
  UT_hash_handle hh;
};

/* Finds the session of the exchange, here or in the core, and goes on with mcp_exchange_dispatch, or ends it. */
void mcp_session_find(struct mcp_exchange *exchange);
void mcp_session_release(struct mcp *mcp, struct mcp_session **session);
/* initialize: makes one. */
void mcp_session_initialize(struct mcp_call *call);
/* DELETE. */
void mcp_session_delete(struct mcp_exchange *exchange);
/* GET. */
void mcp_session_stream(struct mcp_exchange *exchange);
/* notifications/cancelled. */
void mcp_session_cancel(struct mcp_session *session, struct mcp_slice request_id);
void mcp_sessions_sweep(struct mcp *mcp);
void mcp_sessions_forget(struct mcp *mcp); /* what is cached of them; streams go on */

/* ---- tools.c, call.c ---- */

void mcp_discover(struct mcp_call *call);
void mcp_tools_list(struct mcp_call *call);
void mcp_tools_call(struct mcp_call *call);
/* Sets the caller of an SPI message; texts stay the exchange's. */
struct _core_common_v1_CallerContext;
void mcp_caller_fill(const struct mcp_exchange *exchange, struct _core_common_v1_CallerContext *caller);
void mcp_trace_fill(const struct mcp_trace *trace, core_common_v1_TraceContext *out);

/* ---- plan.c: the fast path; report.c ---- */

/* Carries a call out by a plan of the core; calls mcp_call_invoke when the core says that it is not eligible. */
void mcp_call_prepare(struct mcp_call *call, core_common_v1_InvocationEnvelope *envelope);
void mcp_call_invoke(struct mcp_call *call, core_common_v1_InvocationEnvelope *envelope);
/* Fills what both need, from the exchange's arena. */
core_common_v1_InvocationEnvelope *mcp_call_envelope(struct mcp_call *call);
/* Gives an invocation up, if there is one. */
void mcp_call_stream_cancel(struct mcp_call *call);
void mcp_call_result(struct mcp_call *call, struct mcp_slice content, struct mcp_slice structured, bool is_error,
                     struct mcp_slice meta);
void mcp_call_progress(struct mcp_call *call, double progress, double total, const char *message);
/* An error of a tool call, in the form that the client knows: wrong arguments are a result, an unknown tool is named.
 */
void mcp_tool_fail(struct mcp_call *call, const struct error *err);
/* The client gave up a call that a plan carries out. */
void mcp_plan_abandon(struct mcp_call *call);

enum mcp_report_outcome { MCP_REPORT_COMPLETED, MCP_REPORT_TOOL_FAILED, MCP_REPORT_ERROR, MCP_REPORT_CANCELLED };
struct mcp_reports *mcp_reports_create(struct module *module);
void mcp_reports_free(struct mcp_reports **reports);
/* Batched, fire and forget. err: for MCP_REPORT_ERROR. */
void mcp_report(struct mcp_reports *reports, const char *plan_id, enum mcp_report_outcome outcome,
                const struct error *err, size_t result_bytes, uint64_t duration_us);

/* ---- invoke.c, discover.c: calls from the core ---- */

void mcp_invoke(struct module *module, struct module_invocation *invocation);
void mcp_upstream_discover(struct module *module, struct module_discovery *discovery);

#endif
