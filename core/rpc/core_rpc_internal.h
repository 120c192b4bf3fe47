/* core_rpc_internal.h: what the files of this room share. Only here and in the .c files does gRPC appear. */
#ifndef GATEHOUSE_CORE_RPC_INTERNAL_H
#define GATEHOUSE_CORE_RPC_INTERNAL_H

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <sys/queue.h>

#include "core/rpc/core_rpc.h"
#include "core/rpc/post.h"
#include "core/rpc/socket_calls.h"
#include "core/rpc/timer.h"

#define RPC_ROOM "core_rpc"

/* What the completion queue carries: the address of one of these, embedded in the object that waits. */
struct rpc_tag {
  void (*complete)(struct rpc_tag *tag, bool ok);
};
#define RPC_OWNER(tag, type, member) ((type *)(void *)((char *)(tag)-offsetof(type, member)))

/* ---- io.c: the I/O thread ---- */

struct io_thread {
  struct event_base *base;
  struct watchdog_loop *watchdog; /* NULL: not watched */
  struct event *wake_event;
  int wake_fd;
  struct post_queue posts;
  pthread_t thread;
};

void io_thread_start(struct io_thread *io);
void io_thread_stop(
    struct io_thread *io); /* runs what is posted, joins; the base stays for those who clean up after it */
void io_thread_free(struct io_thread *io);

/* ---- loop.c ---- */

enum loop_phase {
  LOOP_SERVING,
  LOOP_DRAINING,   /* no new calls; running ones have the grace time */
  LOOP_CANCELLING, /* everything that still runs was cancelled */
  LOOP_ENDED,      /* nothing is left; the completion queue is shut down */
};

struct core_rpc_loop {
  uint32_t magic;
  struct core_rpc_options options;
  enum loop_phase phase;
  bool started, server_down, lingering;
  grpc_completion_queue *queue;
  grpc_server *server;
  grpc_server_credentials *credentials;
  struct post_queue posts;
  grpc_channel *wake_channel;
  grpc_call *wake_call;
  struct rpc_tag wake_tag, shutdown_tag;
  struct timer_heap timers;
  struct core_rpc_timer *grace_timer, *stuck_timer;
  struct watchdog_loop *watchdog; /* NULL: not watched */
  size_t server_calls, client_calls;
  struct core_rpc_call *calls; /* those that handlers own or gRPC still works on */
  TAILQ_HEAD(, core_rpc_call) unwatched;
  struct core_rpc_timer *watch_timer; /* while that list is not empty, and once more */
  struct method_slot *methods;
  struct unknown_slot *unknown;
  struct core_rpc_channel *channels;
  struct core_rpc_listener *listeners;
  struct peer_table *peers;
  struct hangup_watch *hangups;
  struct io_thread io;
  struct health_table *health;
  struct reflection_index *reflection;
};

struct core_rpc_loop *loop_check(struct core_rpc_loop *loop);
void loop_check_end(struct core_rpc_loop *loop); /* after a live-call count fell */
gpr_timespec rpc_deadline_after_ms(int64_t timeout_ms);

/* ---- server.c ---- */

void server_start(struct core_rpc_loop *loop);
void server_free(struct core_rpc_loop *loop);
bool server_has_service(const struct core_rpc_loop *loop, const char *service, size_t length);
const struct core_rpc_method *server_find_method(const struct core_rpc_loop *loop, const char *path);
/* Calls visit with the name of each service that has a method here, once each. */
void server_each_service(const struct core_rpc_loop *loop,
                         void (*visit)(const char *service, size_t length, void *argument), void *argument);

/* ---- call.c ---- */

struct call_arrival { /* what gRPC hands over with a new call; moved into call_accept */
  grpc_call *handle;
  gpr_timespec deadline;
  grpc_metadata_array metadata;
  grpc_byte_buffer *payload;
};
/* Makes the call and runs its handler; method NULL: nobody serves it. Leaves *arrival empty. */
void call_accept(struct core_rpc_loop *loop, const struct core_rpc_method *method, struct call_arrival *arrival);
void calls_drain(struct core_rpc_loop *loop);                                 /* tells those that want to know */
void call_reply_buffer(struct core_rpc_call *call, grpc_byte_buffer *buffer); /* takes the buffer */
bool call_send_buffer(struct core_rpc_call *call, grpc_byte_buffer *buffer);  /* takes the buffer in any case */

/* ---- client_call.c ---- */

void client_calls_cancel(struct core_rpc_channel *channel);
void client_calls_abandon(struct core_rpc_channel *channel); /* ends them as lost, and the channel may go */
/* Takes the message, which may be NULL for bidi. */
struct core_rpc_client_call *client_call_start(struct core_rpc_channel *channel, const struct core_rpc_request *request,
                                               grpc_byte_buffer *message);
bool client_call_send_buffer(struct core_rpc_client_call *call, grpc_byte_buffer *buffer); /* takes the buffer */

/* ---- channel.c ---- */

struct core_rpc_channel {
  uint32_t magic;
  struct core_rpc_loop *loop;
  grpc_channel *handle;
  struct socket_tally *tally; /* of its connection */
  struct core_rpc_client_call *calls;
  struct core_rpc_timer *leave_timer; /* nobody has it any more: it goes with its last call, or now */
  struct core_rpc_channel *previous, *next;
};

void channel_call_ended(struct core_rpc_channel *channel); /* a call has been unlinked: it may have been the last */
/* A connection to our own server over a socketpair, with this identity. NULL: refused, stopping, or out of descriptors.
 */
struct core_rpc_channel *channel_create_local(struct core_rpc_loop *loop, struct core_rpc_listener *listener,
                                              const struct core_rpc_peer *identity);

/* ---- peer.c: file descriptor number -> identity ---- */

struct peer_entry {
  struct core_rpc_peer peer;
  struct core_rpc_listener *listener;
  int fd; /* the number that gRPC knows the connection by */
  unsigned references, in_flight;
  bool closed;
  struct hangup *hangup;              /* what notices the end; NULL once it has */
  struct peer_entry *previous, *next; /* of the listener */
};

void peer_numbers_prepare(void); /* before the first thread */
struct peer_table *peer_table_create(void);
void peer_table_free(struct peer_table **table);
/* Takes the connected descriptor; identity gives uid, gid and pid. False: refused, and closed. */
bool peer_connect(struct core_rpc_listener *listener, int fd, const struct core_rpc_peer *identity);
/* The identity of a call's connection with one reference, or NULL. */
struct peer_entry *peer_of_call(struct core_rpc_loop *loop, grpc_call *call);
void peer_release(struct peer_entry *entry);
void peer_closed(struct peer_entry *entry);
void peer_disconnect(struct peer_entry *entry);

/* ---- hangup.c: who went away ---- */

/* Watches duplicates of the connections' descriptors on the I/O thread, for hang-up only; posts peer_closed(). */
struct hangup_watch *hangup_watch_create(struct core_rpc_loop *loop);
void hangup_watch_free(struct hangup_watch **watch); /* after the I/O thread has ended; reports what was still open */
/* Takes fd, a duplicate. Core thread; valid until peer_closed() has run for it. */
struct hangup *hangup_add(struct hangup_watch *watch, int fd, struct peer_entry *entry);
void hangup_disconnect(struct hangup *hangup); /* ends the connection */

/* ---- listen.c ---- */

struct core_rpc_listener {
  uint32_t magic;
  struct core_rpc_loop *loop;
  struct core_rpc_listen_options options;
  char *path, *name;
  int fd, lock_fd;
  struct event *accept_event, *pause_event; /* I/O thread */
  bool closing;                             /* no longer accepting */
  bool disconnecting;                       /* … and its connections are ended */
  bool owned;                               /* the handle is still out */
  /* The HTTP twin's: takes a connection on the I/O thread instead of gRPC; ends all of them (also without that thread).
   */
  void (*take)(struct core_rpc_listener *listener, int fd, const struct core_rpc_peer *identity);
  void (*end)(struct core_rpc_listener *listener, bool at_once);
  void (*free_taker)(struct core_rpc_listener *listener); /* any thread, last of all */
  void *taker;
  struct peer_entry *peers;
  unsigned references; /* the handle, the I/O thread, each peer */
  struct core_rpc_listener *previous, *next;
};

/* core_rpc_listen for connections that are not gRPC; take, end and taker as above. */
struct core_rpc_listener *listener_open(struct core_rpc_loop *loop, const struct core_rpc_listener *form,
                                        struct error *err);
void listener_release(struct core_rpc_listener *listener);
void listeners_close_all(struct core_rpc_loop *loop);
void listeners_free_all(struct core_rpc_loop *loop); /* after the I/O thread has ended and no peer is left */

/* ---- health.c, reflection.c ---- */

void health_free(struct core_rpc_loop *loop);
void reflection_free(struct core_rpc_loop *loop);

/* ---- message.c: byte buffers ---- */

grpc_byte_buffer *message_from_bytes(const void *data, size_t length);
/* A message of `length` bytes for the caller to fill at *data. */
grpc_byte_buffer *message_reserve(size_t length, uint8_t **data);
/* The content as one range: the single slice itself, else a copy in *joined (the caller unrefs *joined either way). */
const uint8_t *message_view(grpc_byte_buffer *message, grpc_slice *joined, size_t *length);

/* A bounded queue of messages of which the first is being sent. */
struct message_queue {
  struct message_node *first, *last;
  size_t bytes, max_bytes;
  bool blocked; /* reached its bound, and on_writable has not been due since */
};
bool message_queue_push(struct message_queue *queue, grpc_byte_buffer *message); /* takes it; false: full */
grpc_byte_buffer *message_queue_first(const struct message_queue *queue);
void message_queue_pop(struct message_queue *queue);
void message_queue_clear(struct message_queue *queue, bool keep_first);
bool message_queue_is_writable(const struct message_queue *queue);
bool message_queue_take_writable(
    struct message_queue *queue); /* true once when it has fallen under half after being full */

/* ---- status.c ---- */

/* The bytes of grpc-status-details-bin for an error; caller frees with base_free. */
uint8_t *status_encode(int grpc_status, const struct error *err, size_t *length);
/* Fills *err from the details, or from the number alone when they carry no envelope of ours. */
void status_decode(int grpc_status, const void *details, size_t length, struct error *err);

#endif
