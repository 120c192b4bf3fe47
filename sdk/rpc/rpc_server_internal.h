/* rpc_server_internal.h: what server.c (listeners, connections, drain) and server_call.c (calls) know of each other. */
#ifndef GATEHOUSE_RPC_SERVER_INTERNAL_H
#define GATEHOUSE_RPC_SERVER_INTERNAL_H

#include "sdk/rpc/rpc_internal.h"

struct rpc_connection {
  struct rpc_server *server;
  struct rpc_session *session;
  struct rpc_peer peer;
  TAILQ_ENTRY(rpc_connection) link;
};

struct rpc_listener {
  struct rpc_server *server;
  int fd;
  struct event event;
  char *path; /* ours to remove; NULL: passed in */
  dev_t device;
  ino_t inode;
  TAILQ_ENTRY(rpc_listener) link;
};

/* A slot of the method table: open addressing, a power of two. */
struct rpc_method_slot {
  const struct rpc_method *method;
  size_t path_length;
  void *arg;
};

struct rpc_server {
  uint32_t magic;
  unsigned refs; /* the user's, one a connection, one a call, one a callback on the stack */
  bool closed, draining;
  struct event_base *base;
  struct rpc_server_options options;
  struct rpc_method_slot *methods;
  size_t method_count, method_slots;
  TAILQ_HEAD(, rpc_listener) listeners;
  TAILQ_HEAD(, rpc_connection) connections;
  uint32_t connection_count, call_count, pool_count;
  TAILQ_HEAD(, rpc_server_call) calls; /* not finished */
  TAILQ_HEAD(, rpc_server_call) pool;
  struct rpc_worklist work;
  struct rpc_deadlines deadlines;
  struct event accept_timer; /* listeners rest: out of descriptors */
  struct event goaway_timer; /* drain: the second GOAWAY */
  struct event drain_timer;
  struct rpc_work drain_work;
  void (*drain_hook)(void *arg); /* health: its watchers would keep a drain waiting */
  void *drain_hook_arg;
  void (*drain_done)(void *arg, bool clean);
  void *drain_arg;
};

struct rpc_server_call {
  uint32_t magic;
  struct rpc_stream stream;
  struct rpc_server *server;
  TAILQ_ENTRY(rpc_server_call) link; /* server->calls or ->pool */
  const struct rpc_method_slot *method;
  struct rpc_peer peer;
  struct rpc_work work;
  struct rpc_deadline deadline;
  int64_t deadline_us; /* INT64_MAX: none */
  struct rpc_headers received, sent;
  size_t received_bytes;
  bool is_post, is_grpc, malformed, too_large, headers_done;
  bool held;     /* a handler has it and must end it */
  bool answered; /* response headers were submitted */
  bool decided;  /* the final status is chosen */
  bool cancelled;
  bool writable_due;
  struct rpc_status *final; /* NULL: OK */
  struct rpc_server_call_handler handler;
  void *arg;
};

/* server.c */
void rpc_server_hold(struct rpc_server *server);
void rpc_server_drop(struct rpc_server *server);
const struct rpc_method_slot *rpc_server_method(const struct rpc_server *server, const char *path, size_t length);
void rpc_server_drain_check(struct rpc_server *server);

/* server_call.c */
struct rpc_stream *rpc_server_call_begin(struct rpc_connection *connection);
void rpc_server_call_work(struct rpc_work *work, void *arg);
void rpc_server_call_expired(struct rpc_deadline *deadline, void *arg);
void rpc_server_call_abandon(struct rpc_server_call *call); /* the server closes */
void rpc_server_call_destroy(struct rpc_server_call *call); /* of the pool */

#endif
