/* upstream_internal.h: what the files of modules/mcp/upstream share. */
#ifndef GATEHOUSE_MCP_UPSTREAM_INTERNAL_H
#define GATEHOUSE_MCP_UPSTREAM_INTERNAL_H

#include <event2/event.h>
#include <sys/queue.h>

#include <uthash.h>

#include "modules/mcp/upstream/mcp_upstream.h"
#include "sdk/base/buf.h"
#include "sdk/http/http_client.h"
#include "sdk/http/http_sse.h"

#define UPSTREAM_KEY_BYTES 32
#define UPSTREAM_RESPONSE_BYTES_MAX ((size_t)16 << 20)
#define UPSTREAM_CLIENT_INFO "{\"name\":\"gatehouse\",\"version\":\"" GATEHOUSE_VERSION "\"}"

struct upstream;

/* Header fields with their own memory; freeing wipes it. */
struct header_list {
  struct http_header *items;
  size_t count;
};
void header_list_copy(struct header_list *list, const core_common_v1_InvocationPlan *plan);
void header_list_add(struct header_list *list, const char *name, const char *value);
void header_list_append(struct header_list *list, const struct header_list *other);
void header_list_clear(struct header_list *list);

/* ---- post.c: one POST and what comes back for it ---- */

struct post;

/* The answer: result or error of the JSON-RPC response, or neither when there was none (202, or a refusal by HTTP). */
struct post_answer {
  int http_status;
  struct mcp_slice result, error;
  const char *session_id; /* Mcp-Session-Id; NULL: none */
};

struct post_handler {
  /* A notification or request on the stream; may be NULL. */
  void (*on_message)(void *arg, const struct mcp_message *message, struct mcp_slice params);
  /* Once; the post is no longer the owner's. err: the exchange itself failed. */
  void (*on_answer)(void *arg, const struct post_answer *answer, const struct error *err);
};

struct post_request {
  struct header_list *headers; /* taken over and wiped */
  const struct buf *body;
  int64_t id; /* of the request in it; 0: a notification or response */
  int64_t timeout_ms;
};

/* handler NULL: nobody is interested in the answer. */
struct post *post_start(struct upstream *upstream, const struct post_request *request,
                        const struct post_handler *handler, void *arg, struct error *err);
void post_cancel(struct post *post);

/* ---- pool.c ---- */

enum upstream_state { UPSTREAM_IDLE, UPSTREAM_CONNECTING, UPSTREAM_READY };

TAILQ_HEAD(upstream_call_list, mcp_upstream_call);

/* An upstream server as one gateway record, credential and policy see it. */
struct upstream {
  uint8_t key[UPSTREAM_KEY_BYTES];
  struct mcp_upstream_pool *pool;
  struct http_egress_policy *egress;
  struct http_client *http;
  char *url, *origin;
  unsigned redirects_max;
  size_t response_bytes_max;
  enum upstream_state state;
  enum mcp_version version;
  char *session_id; /* NULL: the upstream has none */
  char *server_name, *server_version, *instructions, *capabilities;
  int64_t next_id;
  struct header_list connect_headers; /* while connecting only */
  struct post *connect_post;
  int64_t connect_deadline_ms;
  struct upstream_call_list waiting; /* for the connection */
  struct upstream_call_list calls;   /* sent */
  LIST_HEAD(, post) posts;
  int64_t used_ms;
  UT_hash_handle hh;
};

/* The era of an origin, as last seen. */
struct origin_era {
  char *origin;
  enum mcp_era era;
  int64_t learned_ms;
  UT_hash_handle hh;
};

struct mcp_upstream_pool {
  struct event_base *base;
  struct upstream *upstreams;
  struct origin_era *eras;
  struct event *sweep_timer;
};

struct upstream *upstream_get(struct mcp_upstream_pool *pool, const core_common_v1_InvocationPlan *plan,
                              struct error *err);
void upstream_era_learn(struct upstream *upstream, enum mcp_era era);
/* 0: not known. */
enum mcp_era upstream_era_known(const struct upstream *upstream);
void upstream_era_forget(struct upstream *upstream);

/* ---- connect.c ---- */

/* Finds out the era and opens a session where it has one; then every waiting call goes out, or all fail. */
bool upstream_connect(struct upstream *upstream, const struct header_list *credentials, int64_t timeout_ms,
                      struct error *err);
void upstream_disconnect(struct upstream *upstream); /* forgets the session; calls under way go on */

/* ---- call.c ---- */

void upstream_calls_send(struct upstream *upstream);
void upstream_calls_fail(struct upstream *upstream, const struct error *err);
void upstream_call_discard(struct mcp_upstream_call *call); /* frees without a callback */

/* What a modern request carries in `_meta`. */
#define UPSTREAM_MODERN_META                                                                                           \
  "\"" MCP_META_PREFIX "protocolVersion\":\"2026-07-28\",\"" MCP_META_PREFIX                                           \
  "clientCapabilities\":{},\"" MCP_META_PREFIX "clientInfo\":" UPSTREAM_CLIENT_INFO

#endif
