/* core_rpc.h: gRPC C core made small. No gRPC type leaves this room.
 *
 * One loop per process. The thread inside core_rpc_loop_run() is "the core thread": every handler, client callback,
 * timer and posted closure runs there, one at a time, so what they touch needs no lock; none of them may block. Beside
 * it lives one I/O thread (libevent): it accepts connections and is offered to other rooms (core_rpc_io_base,
 * core_rpc_io_post). A function without a thread note runs on the core thread, or on any one thread before
 * core_rpc_loop_run() starts.
 *
 * Order of use: create, register method tables, listen, run (which returns after stop), free.
 *
 * Threads, fork and signals: the room starts threads (T4, T14); a process that uses it never forks without exec, and it
 * blocks the signals that it wants to receive by signalfd before core_rpc_loop_create(). Serves TRN-1 to TRN-6, LIF-4,
 * ERR-2. */
#ifndef GATEHOUSE_CORE_RPC_H
#define GATEHOUSE_CORE_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sdk/base/error.h"

struct event_base;
struct core_rpc_loop;
struct core_rpc_call;
struct core_rpc_timer;
struct core_rpc_listener;
struct core_rpc_channel;
struct core_rpc_client_call;

typedef void core_rpc_task(void *argument);

/* ---- loop ---- */

/* Zero means the default in brackets. */
struct core_rpc_options {
  uint32_t message_max_bytes;    /* [4 MiB] a longer message ends its call with rpc.message.too_large */
  uint32_t metadata_max_bytes;   /* [16 KiB] all metadata of one call */
  uint32_t in_flight_max;        /* [1024] calls at once per connection; beyond: rpc.in_flight.limit (TRN-6) */
  uint32_t send_queue_max_bytes; /* [1 MiB] queued on one stream from which on core_rpc_call_send() refuses */
  uint32_t stuck_exit_ms;        /* [5000] how long after the grace time of stop a stuck call may hold the process */
  void (*on_stuck)(void *user);  /* what then happens, on the core thread; [log, _exit(70)] */
  void *on_stuck_user;
};

/* Starts gRPC and the I/O thread; options may be NULL. Never fails: what it needs is fatal when absent. */
struct core_rpc_loop *core_rpc_loop_create(const struct core_rpc_options *options);

/* Serves until stopped: the calling thread becomes the core thread. Once per loop. */
void core_rpc_loop_run(struct core_rpc_loop *loop);

/* Ends the loop in order (T2), from any thread, once or more often: listeners close, new calls are refused (GOAWAY,
 * REFUSED_STREAM, or CANCELLED with nothing else, which no handler ever says), running calls have grace_ms to finish;
 * then their connections are cut, and all client calls cancelled; run returns when the last one is gone. Timers that
 * are still pending then never fire. */
void core_rpc_loop_stop(struct core_rpc_loop *loop, uint32_t grace_ms);

/* After run returned (or without run). Closes what is still open: listeners, channels. Nulls the pointer; NULL-safe.
 * gRPC may take up to ten seconds here to give up a connection attempt that is under way (rare, seen under overload); a
 * process that ends anyway may leave it out. */
void core_rpc_loop_free(struct core_rpc_loop **loop);

/* Runs task(argument) on the core thread, soon, in the order of posting per posting thread. Any thread. False: the loop
 * has ended and the task will never run (the argument stays the caller's). */
bool core_rpc_post(struct core_rpc_loop *loop, core_rpc_task *task, void *argument);

/* True on the core thread while the loop runs. Any thread. */
bool core_rpc_on_core_thread(const struct core_rpc_loop *loop);

/* ---- timers (core thread) ---- */

/* One shot: task runs not before delay_ms; the handle dies with it. Resolution 1 ms. */
struct core_rpc_timer *core_rpc_timer_start(struct core_rpc_loop *loop, uint64_t delay_ms, core_rpc_task *task,
                                            void *argument);
/* Forgets a timer that has not fired, nulls the pointer; NULL-safe. A task must null its own handle first. */
void core_rpc_timer_cancel(struct core_rpc_timer **timer);

/* ---- the I/O thread ---- */

/* Its libevent base: touch it, and events on it, only on the I/O thread. Lives from create to free. */
struct event_base *core_rpc_io_base(struct core_rpc_loop *loop);
/* Like core_rpc_post for the I/O thread. Any thread. */
bool core_rpc_io_post(struct core_rpc_loop *loop, core_rpc_task *task, void *argument);

/* ---- listening and identity ---- */

/* Who is at the other end of a connection, as the kernel says (TRN-4). Lives as long as the connection and its calls.
 */
struct core_rpc_peer {
  const char *listener; /* the listener's name: a module id, "@admin", … */
  uid_t uid;
  gid_t gid;
  pid_t pid;           /* 0 where it is not visible (another pid namespace) */
  uint64_t connection; /* never reused in this process */
  void *user;          /* the listener owner's; set in on_accept */
};

struct core_rpc_listen_options {
  const char *path; /* copied; at most 106 bytes */
  const char *name; /* copied; becomes peer.listener */
  mode_t mode;      /* of the socket file; [0600] */
  uid_t owner_uid;  /* (uid_t)-1: unchanged */
  gid_t owner_gid;  /* (gid_t)-1: unchanged */
  /* All optional, on the core thread. on_accept may set peer->user; false refuses the connection. on_close: the
   * connection is gone (its calls are being cancelled); called once for each accepted one, peer is valid until it
   * returns and longer while calls of it live. */
  bool (*on_accept)(struct core_rpc_peer *peer, void *user);
  void (*on_close)(struct core_rpc_peer *peer, void *user);
  void *user;
};

/* Binds and listens at once, in this order, and who sees the socket's file can connect; connections are served when the
 * loop runs. A lock file <path>.lock (kept) makes sure that two processes never share a path; a stale socket file is
 * replaced. NULL and err: ERR_RPC_LISTEN_BUSY,
 * ERR_RPC_LISTEN_FAILED. */
struct core_rpc_listener *core_rpc_listen(struct core_rpc_loop *loop, const struct core_rpc_listen_options *options,
                                          struct error *err);
/* Gives the socket file to another user and group; its mode stays. ERR_RPC_LISTEN_FAILED: only root can, which is for
 * the caller to say. */
bool core_rpc_listener_owner_set(struct core_rpc_listener *listener, uid_t uid, gid_t gid, struct error *err);
/* Changes the mode of the socket file. ERR_RPC_LISTEN_FAILED. */
bool core_rpc_listener_mode_set(struct core_rpc_listener *listener, mode_t mode, struct error *err);
/* Stops accepting, removes the socket file, nulls the pointer; with connections_too also ends the accepted connections.
 */
void core_rpc_listener_close(struct core_rpc_listener **listener, bool connections_too);

/* ---- serving ---- */

enum core_rpc_kind {
  CORE_RPC_UNARY,         /* one request, one reply */
  CORE_RPC_SERVER_STREAM, /* one request, any number of messages back */
  CORE_RPC_BIDI,          /* any number both ways */
};

/* A handler owns its call until it has called exactly one of core_rpc_call_reply, _fail, _finish (at once or later);
 * after that the pointer is dead to it. That holds for cancelled calls too: on_cancel tells, the handler still
 * finishes. */
typedef void core_rpc_handler(struct core_rpc_call *call, void *user);

struct core_rpc_method {
  const char *path; /* "/package.Service/Method"; the table and its texts must outlive the loop */
  enum core_rpc_kind kind;
  core_rpc_handler *handler;
  void *user;
};

/* Adds methods; before run. Every other method answers UNIMPLEMENTED with rpc.method.unknown. */
void core_rpc_server_register(struct core_rpc_loop *loop, const struct core_rpc_method *table, size_t count);

const char *core_rpc_call_method(const struct core_rpc_call *call);
struct core_rpc_loop *core_rpc_call_loop(const struct core_rpc_call *call);
const struct core_rpc_peer *core_rpc_call_peer(const struct core_rpc_call *call); /* never NULL */
/* The request's bytes (unary and server stream), valid while the handler owns the call; length 0 is a valid message. */
const uint8_t *core_rpc_call_request(struct core_rpc_call *call, size_t *length);
/* First value of a metadata key (lower case; binary when it ends in -bin), not NUL-terminated; NULL when absent. Valid
 * while the handler owns the call. */
const char *core_rpc_call_metadata(const struct core_rpc_call *call, const char *key, size_t *length);
/* What is left of the caller's deadline (TRN-3): 0 when past, INT64_MAX without one. */
int64_t core_rpc_call_remaining_ms(const struct core_rpc_call *call);
bool core_rpc_call_is_cancelled(const struct core_rpc_call *call);

/* Callbacks of a call that is answered later; all optional, on the core thread, never from inside a function of this
 * API that the handler calls. */
struct core_rpc_call_events {
  void (*on_cancel)(struct core_rpc_call *call, void *user);   /* once: caller gone, its deadline passed, or stopping */
  void (*on_writable)(struct core_rpc_call *call, void *user); /* the send queue fell under half its bound */
  void (*on_message)(struct core_rpc_call *call, const uint8_t *data, size_t length, void *user); /* bidi */
  void (*on_half_close)(struct core_rpc_call *call, void *user); /* bidi: the caller sends no more */
  void (*on_drain)(struct core_rpc_call *call, void *user); /* the loop is stopping: finish within the grace time */
  /* The call is gone; last of all, after reply/fail/finish (which may run it themselves). */
  void (*on_free)(void *user);
};
/* events must outlive the call (a static table). Set it inside the handler. */
void core_rpc_call_events_set(struct core_rpc_call *call, const struct core_rpc_call_events *events, void *user);
void *core_rpc_call_user(const struct core_rpc_call *call);

/* Ends a unary call with a message. Bytes are copied. */
void core_rpc_call_reply(struct core_rpc_call *call, const void *data, size_t length);
/* Ends any call with an error: status by category, the envelope in grpc-status-details-bin (ERR-1, ERR-2). */
void core_rpc_call_fail(struct core_rpc_call *call, const struct error *err);
/* The same for CONFLICT on a create: ALREADY_EXISTS where core_rpc_call_fail says ABORTED. */
void core_rpc_call_fail_create(struct core_rpc_call *call, const struct error *err);
/* Shorthand: error_set() and core_rpc_call_fail(). */
void core_rpc_call_fail_code(struct core_rpc_call *call, enum error_code code);
/* Ends a stream with OK, after what is queued. */
void core_rpc_call_finish(struct core_rpc_call *call);
/* The same with a last message, which always fits. Bytes are copied. Half the work of send and finish. */
void core_rpc_call_finish_with(struct core_rpc_call *call, const void *data, size_t length);

/* Streams: queues one message (bytes are copied). False, and nothing is queued: the call is cancelled, or the queue is
 * full (then on_writable follows). While core_rpc_call_is_writable() the next message is accepted, whatever its size:
 * the queue may pass its bound by one message. */
bool core_rpc_call_send(struct core_rpc_call *call, const void *data, size_t length);
/* False: the queue is full and on_writable follows, or the call is cancelled. */
bool core_rpc_call_is_writable(const struct core_rpc_call *call);
/* Bidi: asks for the next message; on_message or on_half_close (or on_cancel) follows. One at a time. */
void core_rpc_call_read(struct core_rpc_call *call);

/* ---- calling ---- */

/* A connection to a server on a Unix socket, made now and never again: when it is lost its calls fail as unavailable,
 * and another channel is to be made. NULL with errno when nobody listens there (ENOENT, ECONNREFUSED), when too many
 * wait to be accepted (EAGAIN), or when descriptors or the path's length do not allow it. */
struct core_rpc_channel *core_rpc_channel_create(struct core_rpc_loop *loop, const char *unix_path);
/* Ends its calls as lost (their on_done still runs), closes the connection, nulls the pointer; NULL-safe. */
void core_rpc_channel_close(struct core_rpc_channel **channel);
/* The same when the peer's process has ended: what it had answered before is still read, so that each call ends with
 * that, or as lost. What has not ended in a second is closed then. */
void core_rpc_channel_leave(struct core_rpc_channel **channel);
/* Its connection has ended: whatever begins on it now is lost, unsent. */
bool core_rpc_channel_is_lost(const struct core_rpc_channel *channel);

struct core_rpc_metadata {
  const char *key; /* lower case */
  const char *value;
  size_t length;
};

struct core_rpc_result {
  int grpc_status;     /* 0: OK */
  struct error err;    /* set when grpc_status is not 0; the peer's envelope where it sent one */
  bool lost;           /* the connection ended, and with it the call: ERR_RPC_PEER_GONE */
  bool unsent;         /* … before any of the call went into it: the peer has not begun, and never will */
  const uint8_t *data; /* unary and OK: the reply; valid in on_done only */
  size_t length;
};

/* All on the core thread; on_done exactly once and last, also after a cancel; the call handle is dead when it returns.
 */
struct core_rpc_client_events {
  void (*on_message)(struct core_rpc_client_call *call, const uint8_t *data, size_t length, void *user); /* streams */
  void (*on_writable)(struct core_rpc_client_call *call, void *user);                                    /* bidi */
  void (*on_done)(struct core_rpc_client_call *call, const struct core_rpc_result *result, void *user);
};

struct core_rpc_request {
  const char *method; /* "/package.Service/Method" */
  enum core_rpc_kind kind;
  const void *data; /* unary and server stream; copied */
  size_t length;
  int64_t timeout_ms; /* from now; 0 or less ends at once, INT64_MAX: none (streams only; a unary call has a deadline,
                         TRN-3) */
  bool manual_read; /* streams: each message must be asked for with core_rpc_client_read(), but a server stream's first,
                       which the start asks for. Who has the last one it wants need not read on: the end comes by itself
                     */
  const struct core_rpc_metadata *metadata; /* copied */
  size_t metadata_count;
  const struct core_rpc_client_events *events; /* must outlive the call */
  void *user;
};

/* Starts a call; never fails here: errors come by on_done, which never runs inside this function. */
struct core_rpc_client_call *core_rpc_client_start(struct core_rpc_channel *channel,
                                                   const struct core_rpc_request *request);
void core_rpc_client_cancel(struct core_rpc_client_call *call);
void core_rpc_client_read(struct core_rpc_client_call *call); /* manual_read: the next message, one at a time */
/* Bidi. As core_rpc_call_send. */
bool core_rpc_client_send(struct core_rpc_client_call *call, const void *data, size_t length);
void core_rpc_client_half_close(struct core_rpc_client_call *call); /* after what is queued */

/* ---- health and reflection ---- */

enum core_rpc_health { CORE_RPC_HEALTH_UNKNOWN = 0, CORE_RPC_HEALTH_SERVING = 1, CORE_RPC_HEALTH_NOT_SERVING = 2 };
/* Serves grpc.health.v1.Health (LIF-4); before run. The process itself ("") starts as SERVING. */
void core_rpc_health_register(struct core_rpc_loop *loop);
/* Sets a service's status ("": the process); watchers hear of it. */
void core_rpc_health_set(struct core_rpc_loop *loop, const char *service, enum core_rpc_health health);

/* Serves grpc.reflection.v1 and v1alpha from a serialized google.protobuf.FileDescriptorSet, which must outlive the
 * loop; before run. Lists the services that have a registered method. The bytes are read at the first question; that
 * they are such a set is the caller's promise. */
void core_rpc_reflection_register(struct core_rpc_loop *loop, const uint8_t *descriptor_set, size_t length);

#endif
