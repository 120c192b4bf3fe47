/* rpc_client_internal.h: what channel.c (connections) and call.c (calls) know of each other. */
#ifndef GATEHOUSE_RPC_CLIENT_INTERNAL_H
#define GATEHOUSE_RPC_CLIENT_INTERNAL_H

#include "sdk/rpc/rpc_internal.h"

#define RPC_CALL_METADATA_MAX 24 /* headers of one call */
#define RPC_CHANNEL_METADATA_MAX 24

/* IDLE: nobody needs a connection. CONNECTING: connected, the peer's SETTINGS are awaited. BACKOFF: the last try
 * failed. DEAD: a channel over a passed descriptor whose peer went. */
enum rpc_channel_state { CHANNEL_IDLE, CHANNEL_CONNECTING, CHANNEL_READY, CHANNEL_BACKOFF, CHANNEL_DEAD };

struct rpc_channel_header {
  TAILQ_ENTRY(rpc_channel_header) link;
  char *name;
  char *value;           /* or */
  struct secret *secret; /* this */
};

struct rpc_channel {
  uint32_t magic;
  unsigned refs; /* the user's, one a session, one a call, one a callback on the stack */
  bool closed;
  enum rpc_channel_state state;
  struct event_base *base;
  char *path; /* NULL: over a passed descriptor */
  char *user_agent;
  struct rpc_channel_options options;
  struct event timer;                 /* connect timeout or back-off */
  unsigned failures;                  /* in a row */
  int64_t ready_us;                   /* since when */
  bool answered;                      /* the current connection has brought an answer */
  struct rpc_session *session;        /* for new calls; NULL: none */
  TAILQ_HEAD(, rpc_session) sessions; /* that one and those that only finish their calls */
  TAILQ_HEAD(rpc_channel_headers, rpc_channel_header) metadata;
  uint32_t metadata_count;
  TAILQ_HEAD(, rpc_call) calls;   /* all */
  TAILQ_HEAD(, rpc_call) waiting; /* those for a connection */
  TAILQ_HEAD(, rpc_call) pool;
  uint32_t in_flight, pool_count;
  struct rpc_worklist work;
  struct rpc_deadlines deadlines;
};

enum rpc_call_kind { CALL_UNARY, CALL_UNARY_MESSAGE, CALL_STREAM };

struct rpc_call {
  uint32_t magic;
  enum rpc_call_kind kind;
  struct rpc_stream stream;
  struct rpc_channel *channel;
  TAILQ_ENTRY(rpc_call) link;         /* channel->calls or ->pool */
  TAILQ_ENTRY(rpc_call) waiting_link; /* channel->waiting */
  struct rpc_work work;
  struct rpc_deadline deadline;
  int64_t deadline_us; /* INT64_MAX: none */
  struct rpc_headers sent, received;
  size_t received_bytes;
  int http_status;
  int64_t grpc_status; /* -1: not seen */
  bool waiting, wait_for_ready, retried, failed, writable_due;
  bool begun;                /* more than trailers has come */
  struct rpc_status failure; /* when failed: what the work item delivers */
  union {
    rpc_unary_callback *unary;
    rpc_unary_message_callback *message;
    struct rpc_stream_handler stream;
  } callback;
  void *arg;
  const pb_msgdesc_t *reply_fields;
  size_t reply_bytes;
};

/* channel.c */
void rpc_channel_hold(struct rpc_channel *channel);
void rpc_channel_drop(struct rpc_channel *channel);
/* A new call, or one to be sent again: submits it, or lets it wait, or fails it. */
void rpc_channel_dispatch(struct rpc_channel *channel, struct rpc_call *call);
/* No new calls on this session; it ends with its last one. */
void rpc_channel_retire(struct rpc_channel *channel, struct rpc_session *session);

/* call.c */
/* Sends the request. False: the session takes no more streams. */
bool rpc_call_submit(struct rpc_call *call, struct rpc_session *session);
/* Ends the call from the loop, later in this turn. */
void rpc_call_fail_later(struct rpc_call *call, enum rpc_code code, enum error_code error);
/* Ends the call now; its callback runs in here. */
void rpc_call_finish(struct rpc_call *call, const struct rpc_status *status);
void rpc_call_work(struct rpc_work *work, void *arg);
void rpc_call_expired(struct rpc_deadline *deadline, void *arg);
void rpc_call_destroy(struct rpc_call *call); /* of the pool */

#endif
