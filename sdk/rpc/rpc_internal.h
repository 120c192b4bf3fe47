/* rpc_internal.h: inside of sdk/rpc. Layers, lowest first; each knows only those before it:
 *
 *   wire_text   base64, percent encoding, grpc-timeout, what is valid metadata
 *   headers     a list of received or outgoing headers
 *   frame       the five bytes before each message
 *   status      rpc_status <-> google.rpc.Status <-> trailers
 *   deadline    a heap of deadlines behind one timer
 *   work        things to do later in the same turn of the loop
 *   session     one HTTP/2 connection: socket, nghttp2, flush
 *   stream      one HTTP/2 stream: message buffers in and out, flow control
 *   channel, call            the client
 *   server, server_call      the server
 *   message, health          on top
 */
#ifndef GATEHOUSE_RPC_INTERNAL_H
#define GATEHOUSE_RPC_INTERNAL_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <nghttp2/nghttp2.h>
#include <stddef.h>
#include <string.h>
#include <sys/queue.h>

#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/rpc/rpc.h"

/* sys/queue.h of glibc lacks the removal-safe walk. */
#define RPC_TAILQ_FOREACH_SAFE(item, head, link, next)                                                                 \
  for ((item) = TAILQ_FIRST(head); (item) != NULL && ((next) = TAILQ_NEXT(item, link), 1); (item) = (next))

#define RPC_OWNER(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define RPC_DEFAULT_MESSAGE_BYTES ((size_t)4 << 20)
#define RPC_DEFAULT_METADATA_BYTES ((size_t)16 << 10)
#define RPC_DEFAULT_SEND_BUFFER_BYTES ((size_t)64 << 10)
#define RPC_DEFAULT_STREAM_WINDOW_BYTES ((size_t)256 << 10)
#define RPC_SEND_REFUSE_FACTOR 16
#define RPC_HEADER_OVERHEAD_BYTES 32 /* of a field of a header list: RFC 9113, 10.5.1 */
#define RPC_PREFIX_BYTES 5           /* of a message: flag, length */
#define RPC_POOL_MAX 256             /* idle call objects kept by a channel or server */
#define RPC_POOL_BUFFER_BYTES 16384  /* a larger buffer is given back when its call ends */

/* ---- wire_text.c ---- */

/* Standard base64 with padding, appended. */
void rpc_base64_encode(struct buf *target, const uint8_t *data, size_t length);
/* Padded or not, appended; false (and nothing appended) when malformed. */
bool rpc_base64_decode(struct buf *target, const char *text, size_t length);
/* grpc-message: everything but printable ASCII without '%' becomes %XX. */
void rpc_percent_encode(struct buf *target, const char *text);
/* Bad escapes stay as they are, as the protocol asks; always terminated, cut at target_bytes. */
void rpc_percent_decode(char *target, size_t target_bytes, const char *text, size_t length);
#define RPC_TIMEOUT_TEXT_BYTES 16
size_t rpc_timeout_format(char target[static RPC_TIMEOUT_TEXT_BYTES], int64_t timeout_us);
bool rpc_timeout_parse(const char *text, size_t length, int64_t *timeout_us);
bool rpc_metadata_name_is_valid(const char *name, size_t length);
/* Of a value that is not "-bin": printable ASCII, no space at the ends. */
bool rpc_metadata_value_is_valid(const char *value, size_t length);
bool rpc_metadata_name_is_binary(const char *name, size_t length);

/* ---- headers.c ---- */

/* Header after header in one piece of memory: no allocation per header. A zeroed struct is empty. */
struct rpc_headers {
  struct buf bytes;
  uint32_t count;
};
struct rpc_headers_cursor {
  size_t offset;
  const char *name, *value;
  size_t name_length, value_length;
};
void rpc_headers_add(struct rpc_headers *headers, const char *name, size_t name_length, const char *value,
                     size_t value_length);
/* A header from the wire: "-bin" is decoded first. False: that failed, nothing added. */
bool rpc_headers_add_received(struct rpc_headers *headers, const char *name, size_t name_length, const char *value,
                              size_t value_length);
/* Metadata of the application, encoded for the wire. False: not valid. */
bool rpc_headers_add_metadata(struct rpc_headers *headers, const struct rpc_metadata *metadata);
const char *rpc_headers_get(const struct rpc_headers *headers, const char *name, size_t *length);
bool rpc_headers_next(const struct rpc_headers *headers, struct rpc_headers_cursor *cursor);
void rpc_headers_clear(struct rpc_headers *headers); /* keeps a small memory */
void rpc_headers_free(struct rpc_headers *headers);

/* ---- frame.c ---- */

enum rpc_frame_result {
  RPC_FRAME_COMPLETE,
  RPC_FRAME_PARTIAL,
  RPC_FRAME_COMPRESSED,
  RPC_FRAME_MALFORMED,
  RPC_FRAME_TOO_LARGE
};
/* What stands at the start of data. COMPLETE: the message is data + RPC_PREFIX_BYTES, *message_length long. */
enum rpc_frame_result rpc_frame_parse(const uint8_t *data, size_t length, size_t message_bytes_max,
                                      size_t *message_length);
/* The error that a peer is told for such a result (not COMPLETE, not PARTIAL). */
void rpc_frame_error(enum rpc_frame_result result, struct rpc_status *status);
void rpc_frame_prefix(uint8_t target[static RPC_PREFIX_BYTES], size_t message_length);
void rpc_frame_append(struct buf *target, const uint8_t *message, size_t length);

/* ---- encode.c ---- */

/* Appends the encoded message. False: it has a field of a kind that pb_encode() must write; nothing appended. */
bool rpc_message_append(struct buf *target, const pb_msgdesc_t *fields, const void *message);

/* ---- message.c ---- */

/* Appends prefix and encoded message. False: the message breaks its own limits (our bug or data): nothing appended. */
bool rpc_frame_append_message(struct buf *target, const pb_msgdesc_t *fields, const void *message);

/* ---- status.c ---- */

/* An error of ours as a status; a printf-free shorthand over error_set. */
void rpc_status_set(struct rpc_status *status, enum rpc_code code, enum error_code error, const char *message);
/* The status that trailers say. */
void rpc_status_from_trailers(struct rpc_status *status, uint32_t code, const struct rpc_headers *received);
/* Of a stream that ended without one. */
void rpc_status_from_http(struct rpc_status *status, int http_status);
void rpc_status_from_reset(struct rpc_status *status, uint32_t h2_error);

/* ---- deadline.c ---- */

struct rpc_deadline {
  int64_t at_us;      /* monotonic */
  uint32_t heap_slot; /* 0: not in the heap */
};
struct rpc_deadlines {
  struct event timer;
  struct rpc_deadline **heap; /* from 1 */
  uint32_t count, capacity;
  int64_t armed_us; /* when the timer fires; INT64_MAX: not armed */
  void (*expired)(struct rpc_deadline *deadline, void *arg);
  void *arg;
};
void rpc_deadlines_init(struct rpc_deadlines *deadlines, struct event_base *base,
                        void (*expired)(struct rpc_deadline *deadline, void *arg), void *arg);
void rpc_deadlines_free(struct rpc_deadlines *deadlines);
void rpc_deadlines_add(struct rpc_deadlines *deadlines, struct rpc_deadline *deadline, int64_t at_us);
void rpc_deadlines_remove(struct rpc_deadlines *deadlines, struct rpc_deadline *deadline); /* none in it: no-op */

/* ---- work.c ---- */

struct rpc_work {
  TAILQ_ENTRY(rpc_work) link;
  bool queued;
};
struct rpc_worklist {
  struct event event;
  TAILQ_HEAD(, rpc_work) items;
  void (*run)(struct rpc_work *work, void *arg);
  void *arg;
};
void rpc_worklist_init(struct rpc_worklist *list, struct event_base *base,
                       void (*run)(struct rpc_work *work, void *arg), void *arg);
void rpc_worklist_free(struct rpc_worklist *list);
void rpc_work_queue(struct rpc_worklist *list, struct rpc_work *work); /* queued already: no-op */
void rpc_work_cancel(struct rpc_worklist *list, struct rpc_work *work);

/* ---- session.c ---- */

struct rpc_session;
struct rpc_stream;

/* Why a stream or session ended without the peer closing it in order. */
enum rpc_loss { RPC_LOSS_PEER_GONE, RPC_LOSS_PROTOCOL, RPC_LOSS_CLOSED };

/* What the owner of a session hears. */
struct rpc_session_ops {
  struct rpc_stream *(*open)(struct rpc_session *session,
                             int32_t stream_id); /* server: a request begins; NULL refuses */
  void (*settings)(struct rpc_session *session); /* the peer's SETTINGS came */
  void (*goaway)(struct rpc_session *session);
  void (*closing)(struct rpc_session *session); /* it is over; its streams are told next; may be NULL */
  void (*lost)(struct rpc_session *session);    /* its streams were told before */
  void (*freed)(struct rpc_session *session);
};

struct rpc_session {
  uint32_t magic;
  unsigned depth; /* calls into nghttp2 on the stack */
  int fd;
  bool is_server, closed, flushing, write_waiting, refusing;
  enum rpc_loss loss;
  nghttp2_session *h2;
  struct event read_event, write_event, flush_event;
  struct buf out;
  size_t out_offset;
  const struct rpc_session_ops *ops;
  void *owner;
  TAILQ_ENTRY(rpc_session) link; /* the owner's */
  TAILQ_HEAD(, rpc_stream) streams;
  size_t received_bytes;     /* held in `in` buffers of streams */
  size_t received_bytes_max; /* 0: no limit */
};

struct rpc_session_options {
  size_t metadata_bytes_max, stream_window_bytes, received_bytes_max;
  uint32_t concurrent_streams_max; /* server */
};
/* Owns fd from here on. Never fails. */
struct rpc_session *rpc_session_create(struct event_base *base, int fd, bool is_server,
                                       const struct rpc_session_ops *ops, void *owner,
                                       const struct rpc_session_options *options);
/* Ends it: the owner gets `closing`, streams get `closed` with loss, then the owner `lost`. The memory goes when
 * nothing of it is on the stack.
 */
void rpc_session_close(struct rpc_session *session, enum rpc_loss loss);
void rpc_session_flush_later(struct rpc_session *session);

/* ---- stream.c ---- */

struct rpc_stream_ops {
  void (*header)(struct rpc_stream *stream, const char *name, size_t name_length, const char *value,
                 size_t value_length);
  void (*headers_end)(struct rpc_stream *stream, bool end_stream);
  /* Streaming: each message. Single: not called. */
  void (*message)(struct rpc_stream *stream, const uint8_t *message, size_t length);
  void (*remote_end)(struct rpc_stream *stream); /* all messages delivered, no more will come */
  void (*writable)(struct rpc_stream *stream);   /* inside nghttp2: queue work, do nothing else */
  /* All queued bytes went to nghttp2 and `out_end` is set: returns the data flags, beside EOF, and submits trailers. */
  uint32_t (*out_end)(struct rpc_stream *stream);
  void (*violation)(struct rpc_stream *stream, const struct rpc_status *status);
  /* The HTTP/2 stream is over (detached already). lost: the session that went with it, or NULL. */
  void (*closed)(struct rpc_stream *stream, const struct rpc_session *lost, uint32_t h2_error);
  void (*release)(struct rpc_stream *stream); /* buried, and nothing of it is on the stack */
};

struct rpc_stream {
  const struct rpc_stream_ops *ops;
  struct rpc_session *session; /* NULL: not attached */
  int32_t id;
  TAILQ_ENTRY(rpc_stream) link;
  struct buf in, out;
  size_t in_offset, out_offset;
  size_t unconsumed; /* received, not given back to the peer's window */
  size_t accounted;  /* our part of session->received_bytes */
  size_t message_bytes_max, send_buffer_bytes;
  bool single;      /* one message expected: it stays in `in` until the end */
  bool paused;      /* by the application */
  bool broken;      /* a violation was reported: what comes is thrown away */
  bool remote_done; /* END_STREAM came */
  bool remote_told; /* remote_end was called */
  bool deferred;    /* nghttp2 waits for nghttp2_session_resume_data */
  bool out_end;     /* nothing more will be queued */
  bool out_done;    /* nghttp2 has it all */
  bool want_writable;
  bool keep_out; /* what was sent stays in `out`, to be sent again */
  bool dead;     /* buried */
  unsigned busy; /* on the stack */
};
void rpc_stream_init(struct rpc_stream *stream, const struct rpc_stream_ops *ops, size_t message_bytes_max,
                     size_t send_buffer_bytes);
void rpc_stream_attach(struct rpc_stream *stream, struct rpc_session *session, int32_t id);
/* Around everything that may call back into the owner: memory stays until the last leave. */
void rpc_stream_enter(struct rpc_stream *stream);
void rpc_stream_leave(struct rpc_stream *stream);
/* The owner is done with it: `release` follows, now or at the last leave. Must be detached. */
void rpc_stream_bury(struct rpc_stream *stream);
/* Forgets the HTTP/2 stream; with reset true it is told h2_error when it has not ended yet. */
void rpc_stream_detach(struct rpc_stream *stream, bool reset, uint32_t h2_error);
/* Empties the buffers, keeps small ones. Must be detached. */
void rpc_stream_recycle(struct rpc_stream *stream);
void rpc_stream_free(struct rpc_stream *stream);

/* From the session. */
void rpc_stream_receive(struct rpc_stream *stream, const uint8_t *data, size_t length);
void rpc_stream_remote_end(struct rpc_stream *stream);
/* After resume: delivers what waits. Stops when paused, broken or detached by a callback. */
void rpc_stream_pump(struct rpc_stream *stream);
/* Single: the one message. False: none or a part of one. */
bool rpc_stream_single(const struct rpc_stream *stream, const uint8_t **message, size_t *length);
/* After the application put something into `out`. */
void rpc_stream_kick(struct rpc_stream *stream);
/* May one more message of this length be queued? */
bool rpc_stream_may_send(const struct rpc_stream *stream, size_t length);
/* The verdict after queueing. */
enum rpc_send_result rpc_stream_send_result(struct rpc_stream *stream);
/* The data provider of every stream. */
nghttp2_data_provider rpc_stream_provider(void);

#endif
