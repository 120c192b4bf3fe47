/* rpc.h: the gRPC wire over Unix sockets on nghttp2 and libevent: client and server in one loop, no threads (TRN-1).
 *
 * It carries bytes; the helpers that end in `_message` put nanopb messages on top. Any gRPC library can be the other
 * side.
 *
 * Rules that hold for everything here:
 * - One event_base, one thread: every function is called on the thread that runs the loop and every callback comes
 * there.
 * - A callback never runs inside the function that starts a call; it comes from the loop. The exceptions are
 *   rpc_channel_close and rpc_server_close, which report what they end before they return.
 * - Any function may be called from inside any callback, also those that end the object that is calling back.
 * - Messages and metadata given to a callback live until it returns.
 * - Output is gathered and written once per turn of the loop. Nothing spins, nothing pings: an idle channel sleeps.
 * - Every buffer has a limit. A peer that sends garbage, floods or does not read costs its own connection, no more.
 */
#ifndef GATEHOUSE_RPC_RPC_H
#define GATEHOUSE_RPC_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <pb.h>

#include "sdk/base/arena.h"
#include "sdk/base/error.h"

struct event_base;
struct secret;

/* ---- status --------------------------------------------------------------------------------------------------- */

/* RPC_CODE(NAME, number, lower-case name): the status codes of gRPC, numbered as on the wire. */
#define RPC_CODES(X)                                                                                                   \
  X(OK, 0)                                                                                                             \
  X(CANCELLED, 1)                                                                                                      \
  X(UNKNOWN, 2)                                                                                                        \
  X(INVALID_ARGUMENT, 3)                                                                                               \
  X(DEADLINE_EXCEEDED, 4)                                                                                              \
  X(NOT_FOUND, 5)                                                                                                      \
  X(ALREADY_EXISTS, 6)                                                                                                 \
  X(PERMISSION_DENIED, 7)                                                                                              \
  X(RESOURCE_EXHAUSTED, 8)                                                                                             \
  X(FAILED_PRECONDITION, 9)                                                                                            \
  X(ABORTED, 10)                                                                                                       \
  X(OUT_OF_RANGE, 11)                                                                                                  \
  X(UNIMPLEMENTED, 12)                                                                                                 \
  X(INTERNAL, 13)                                                                                                      \
  X(UNAVAILABLE, 14)                                                                                                   \
  X(DATA_LOSS, 15)                                                                                                     \
  X(UNAUTHENTICATED, 16)

enum rpc_code {
#define RPC_CODE_ENUM(name, number) RPC_##name = number,
  RPC_CODES(RPC_CODE_ENUM)
#undef RPC_CODE_ENUM
};

/* How a call ended. `error` is "no error" exactly when code is RPC_OK. When the peer sent an envelope (ERR-2), error is
 * that envelope; otherwise it is made from the code: "rpc.status.not_found" and so on. */
struct rpc_status {
  enum rpc_code code;
  struct error error;
};

/* The status of an error value: the code follows from its category, and from its code where the category is too coarse
 * (deadline.exceeded, call.cancelled, rpc.message.too_large). A NULL or empty error gives RPC_OK. */
void rpc_status_from_error(struct rpc_status *status, const struct error *error);

/* "NOT_FOUND"; "UNKNOWN" for a number that is none. */
const char *rpc_code_name(int code);

/* google.rpc.Status with one core.common.v1.ErrorEnvelope detail, as it rides in grpc-status-details-bin (not base64).
 * Returns the length, at most RPC_STATUS_BYTES_MAX. */
#define RPC_STATUS_BYTES_MAX 1024
size_t rpc_status_encode(const struct rpc_status *status, uint8_t target[static RPC_STATUS_BYTES_MAX]);
/* Reads such bytes of a peer. False: malformed (status is then untouched). Unknown details and fields are skipped. */
bool rpc_status_decode(const uint8_t *data, size_t length, struct rpc_status *status);

/* ---- metadata ------------------------------------------------------------------------------------------------- */

/* One header of a call. name: lower case, [a-z0-9._-]; a name that ends in "-bin" carries any bytes (base64 on the wire
 * is done here), every other value is printable ASCII. Names that start with "grpc-" or ":" are ours and refused. */
struct rpc_metadata {
  const char *name;
  const char *value;
  size_t length; /* of value in bytes */
};

/* ---- client: channel ------------------------------------------------------------------------------------------ */

struct rpc_channel;
struct rpc_call;

/* Zero in a field means the default. TRN-6. */
struct rpc_channel_options {
  uint32_t in_flight_max;      /* calls at once, waiting ones included; default 1024; excess: rpc.in_flight.limit */
  size_t message_bytes_max;    /* of a received message; default 4 MiB */
  size_t metadata_bytes_max;   /* of one received header block; default 16 KiB */
  size_t send_buffer_bytes;    /* of a stream, above which send reports RPC_SEND_FULL; default 64 KiB */
  size_t stream_window_bytes;  /* what a peer may send ahead on a paused stream; default 256 KiB */
  uint32_t backoff_first_ms;   /* default 50; doubles at each failure, +-20 % jitter; the first retry is immediate */
  uint32_t backoff_max_ms;     /* default 2000 */
  uint32_t connect_timeout_ms; /* from connect to the peer's SETTINGS; default 5000 */
  bool keep_connected;         /* connect at once and again after a loss, without waiting for a call */
  bool denied_is_unavailable;  /* a call that the peer refuses for this channel's identity (auth.channel.denied) ends as
                                  UNAVAILABLE: whoever the call is for has nothing to do with that identity */
  bool cancelled_is_refused;   /* a call that ends with CANCELLED and nothing else was not begun (rpc.refused), and its
                                  connection takes no more: so a server made with gRPC C core ends what reaches it when
                                  it is about to end, while its handlers end theirs with details */
  const char *user_agent;      /* default "gatehouse/<version>" */
  void (*on_state)(bool connected, void *arg); /* the channel became usable, or stopped being so; may be NULL */
  void *arg;                                   /* for on_state */
};

/* A channel to the server at unix_path (copied). Connects at the first call, or at once with keep_connected. Never
 * fails: a path that cannot be reached shows in the calls (rpc.connect.failed) and is tried again. options may be NULL.
 * The caller closes it with rpc_channel_close. */
struct rpc_channel *rpc_channel_create(struct event_base *base, const char *unix_path,
                                       const struct rpc_channel_options *options);
/* A channel over a connected stream socket, which it owns from here on. It does not reconnect. */
struct rpc_channel *rpc_channel_create_from_fd(struct event_base *base, int fd,
                                               const struct rpc_channel_options *options);
/* Ends every call at once (their callbacks run in here, with UNAVAILABLE), closes, frees, nulls. NULL-safe. */
void rpc_channel_close(struct rpc_channel **channel);

/* Metadata of every later call of this channel: sets or replaces (value copied; NULL removes). Connected or not.
 * False: name or value is not valid metadata. */
bool rpc_channel_metadata_set(struct rpc_channel *channel, const char *name, const char *value);
/* The same for a secret (TRN-4), kept in secret memory. NULL removes. The caller keeps its own. */
bool rpc_channel_metadata_set_secret(struct rpc_channel *channel, const char *name, const struct secret *secret);

/* Starts connecting now, and cuts a running back-off short: for one who knows that the server has come up. */
void rpc_channel_connect(struct rpc_channel *channel);
bool rpc_channel_is_connected(const struct rpc_channel *channel);
/* Calls that have not ended yet. */
uint32_t rpc_channel_in_flight(const struct rpc_channel *channel);

/* ---- client: calls -------------------------------------------------------------------------------------------- */

/* Zero in a field means the default; a NULL pointer instead of options means all defaults. */
struct rpc_call_options {
  uint32_t deadline_ms; /* from now, sent as grpc-timeout; default 30000 for unary calls, none for streams (TRN-3) */
  bool wait_for_ready;  /* wait for a connection until the deadline; otherwise a channel in back-off fails the call at
                           once */
  const struct rpc_metadata *metadata; /* of this call, read before the starting function returns */
  size_t metadata_count;
};

/* How a unary call ended. reply is NULL unless status->code is RPC_OK. */
typedef void rpc_unary_callback(void *arg, const struct rpc_status *status, const uint8_t *reply, size_t reply_length);

/* Starts a unary call of method, "/package.Service/Method" (both copied). Exactly one callback, unless the call is
 * cancelled before. The handle is valid until the callback begins. Never NULL: what fails at once fails in the
 * callback. A request that the peer surely has not seen (GOAWAY, REFUSED_STREAM) is sent once more by itself. Errors:
 * rpc.in_flight.limit, rpc.connect.failed, rpc.refused (it has not begun, nor will it), rpc.peer.gone,
 * rpc.protocol.error, rpc.message.too_large, rpc.compression.unsupported, deadline.exceeded, argument.invalid (bad
 * metadata), or what the peer answered. */
struct rpc_call *rpc_call_unary(struct rpc_channel *channel, const char *method, const uint8_t *request,
                                size_t request_length, const struct rpc_call_options *options,
                                rpc_unary_callback *callback, void *arg);

/* The same with nanopb messages. reply points to a decoded struct of reply_bytes, which goes after the callback with
 * all that its fields point to (nothing of it can be kept or freed); it is NULL unless status->code is RPC_OK. An
 * answer that does not decode is rpc.message.malformed. */
typedef void rpc_unary_message_callback(void *arg, const struct rpc_status *status, void *reply);
struct rpc_call *rpc_call_unary_message(struct rpc_channel *channel, const char *method,
                                        const pb_msgdesc_t *request_fields, const void *request,
                                        const pb_msgdesc_t *reply_fields, size_t reply_bytes,
                                        const struct rpc_call_options *options, rpc_unary_message_callback *callback,
                                        void *arg);

/* What a stream tells its owner. Any may be NULL. on_status is the last one and comes exactly once unless cancelled. */
struct rpc_stream_handler {
  void (*on_message)(void *arg, const uint8_t *message, size_t length);
  void (*on_writable)(void *arg); /* after RPC_SEND_FULL: there is room again */
  void (*on_status)(void *arg, const struct rpc_status *status);
};

/* Opens a streaming call (client, server or bidirectional streaming: the wire is the same). handler is copied.
 * The handle is valid until on_status begins. Never NULL. */
struct rpc_call *rpc_call_open(struct rpc_channel *channel, const char *method, const struct rpc_call_options *options,
                               const struct rpc_stream_handler *handler, void *arg);

enum rpc_send_result {
  RPC_SEND_OK,      /* taken; there is room for more */
  RPC_SEND_FULL,    /* taken; wait for on_writable before the next one */
  RPC_SEND_REFUSED, /* not taken: the call has ended, was half-closed, or far too much is queued already */
};

/* Queues one message (copied). A sender that ignores RPC_SEND_FULL is refused at 16 times the send buffer (at least one
 * message always fits). */
enum rpc_send_result rpc_call_send(struct rpc_call *call, const uint8_t *message, size_t length);
enum rpc_send_result rpc_call_send_message(struct rpc_call *call, const pb_msgdesc_t *fields, const void *message);
/* No more messages from us. Queued ones are still sent. */
void rpc_call_half_close(struct rpc_call *call);
/* Stops on_message and on_status; the peer is held back by flow control once the stream window is full. */
void rpc_call_pause(struct rpc_call *call);
void rpc_call_resume(struct rpc_call *call);
/* Ends the call: the peer is told (RST_STREAM CANCEL), no callback of it comes any more, the handle is void. */
void rpc_call_cancel(struct rpc_call *call);
/* A header or trailer that the peer sent: NUL-terminated, decoded for "-bin". NULL: none. The one function that may
 * also be called from inside the call's last callback, where everything the peer sent is there. */
const char *rpc_call_metadata(const struct rpc_call *call, const char *name, size_t *length);

/* Decodes one message into target (zeroed by the caller). Everything that its fields point to lives in the arena and
 * goes with it: it is never released piece by piece (no pb_release, no wire_release). For messages whose texts, bytes,
 * sub-messages and arrays are pointers, as those of sdk/wire are. Error: rpc.message.malformed; what target holds then
 * is not to be used. */
bool rpc_message_decode(const uint8_t *message, size_t length, const pb_msgdesc_t *fields, void *target,
                        struct arena *arena, struct error *err);

/* ---- server --------------------------------------------------------------------------------------------------- */

struct rpc_server;
struct rpc_server_call;

/* Who is at the other end (SO_PEERCRED at accept). pid 0: not visible from here. */
struct rpc_peer {
  uid_t uid;
  gid_t gid;
  pid_t pid;
  uint64_t connection_id; /* never reused within the process */
};

enum rpc_method_kind { RPC_METHOD_UNARY, RPC_METHOD_SERVER_STREAM, RPC_METHOD_BIDI };

/* A call came in. Unary and server streaming: with its one request message. Bidirectional (and client streaming):
 * message is NULL; set the call's handlers with rpc_server_call_handle, then messages follow. The handler, now or
 * later, must end every call once: reply, finish or fail, also after it was cancelled. The handle stays valid until
 * then, whatever happens to the connection or the server. */
typedef void rpc_method_handler(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg);

struct rpc_method {
  const char *path; /* "/package.Service/Method" */
  enum rpc_method_kind kind;
  rpc_method_handler *handler;
};

/* Zero in a field means the default. TRN-6. */
struct rpc_server_options {
  uint32_t connections_max;        /* default 256 */
  uint32_t concurrent_streams_max; /* of one connection; default 1024 */
  size_t message_bytes_max;        /* of a received message; default 4 MiB */
  size_t metadata_bytes_max;       /* of one received header block; default 16 KiB */
  size_t receive_buffer_bytes_max; /* unfinished requests of one connection together; default 64 MiB */
  size_t send_buffer_bytes;        /* of a stream, above which send reports RPC_SEND_FULL; default 64 KiB */
  size_t stream_window_bytes;      /* what a peer may send ahead on a paused stream; default 256 KiB */
  /* May this peer connect? NULL: everyone who can open the socket. False closes the connection. */
  bool (*authorize_peer)(const struct rpc_peer *peer, void *arg);
  /* May this call happen? Runs when its headers are complete, before the method's handler (TRN-4: secret, phase).
   * False with *err set: the call ends with err. NULL: yes. */
  bool (*authorize_call)(struct rpc_server_call *call, struct error *err, void *arg);
  /* A connection came (open true) or went. */
  void (*on_connection)(const struct rpc_peer *peer, bool open, void *arg);
  void *arg; /* for the three above */
};

struct rpc_server *rpc_server_create(struct event_base *base, const struct rpc_server_options *options);

/* Adds methods. The table stays the caller's and must outlive the server; arg goes to the handlers. A path that is
 * registered twice is a bug (panic). A path that is not registered answers UNIMPLEMENTED with rpc.method.unknown. */
void rpc_server_register(struct rpc_server *server, const struct rpc_method *methods, size_t count, void *arg);

/* Listens on a Unix socket with these permission bits (0600), whatever the umask. A stale socket file is replaced; a
 * living server behind it is not (T5). The file goes away with the listener. Errors: argument.invalid (path too long),
 * unavailable (in use), io.failed. */
bool rpc_server_listen_unix(struct rpc_server *server, const char *path, mode_t mode, struct error *err);
/* Accepts from a listening socket that was passed in (LISTEN_FDS); it owns fd from here on. */
bool rpc_server_listen_fd(struct rpc_server *server, int fd, struct error *err);
/* Serves a connected stream socket that was passed in; it owns fd from here on, also on failure.
 * Errors: unavailable (connections_max, or draining), auth.channel.denied (authorize_peer). */
bool rpc_server_accept_fd(struct rpc_server *server, int fd, struct error *err);

/* Stops listening, tells every peer to go elsewhere (GOAWAY), lets running calls finish. done comes once, from the
 * loop, when no call is left or the deadline has passed (true: clean). Then close. */
void rpc_server_drain(struct rpc_server *server, uint32_t deadline_ms, void (*done)(void *arg, bool clean), void *arg);
/* Ends everything at once: connections close, running calls get on_cancelled in here. Frees, nulls. NULL-safe. Calls
 * that their handlers still hold stay valid until finished. */
void rpc_server_close(struct rpc_server **server);

uint32_t rpc_server_connections(const struct rpc_server *server);
uint32_t rpc_server_calls(const struct rpc_server *server); /* not finished yet */
/* Ends one connection (a revoked instance): its calls are cancelled. False: no such connection. */
bool rpc_server_disconnect(struct rpc_server *server, uint64_t connection_id);

/* ---- server: calls -------------------------------------------------------------------------------------------- */

/* What a call tells its handler. Any may be NULL. on_cancelled: the peer cancelled, went away, the deadline passed or
 * the server was closed; it comes at most once, and not after the call was ended. */
struct rpc_server_call_handler {
  void (*on_message)(void *arg, struct rpc_server_call *call, const uint8_t *message, size_t length);
  void (*on_half_close)(void *arg, struct rpc_server_call *call); /* the peer sends no more */
  void (*on_writable)(void *arg, struct rpc_server_call *call);
  void (*on_cancelled)(void *arg, struct rpc_server_call *call);
};
/* handler is copied. */
void rpc_server_call_handle(struct rpc_server_call *call, const struct rpc_server_call_handler *handler, void *arg);

const char *rpc_server_call_method(const struct rpc_server_call *call);
const struct rpc_peer *rpc_server_call_peer(const struct rpc_server_call *call);
/* A request header: NUL-terminated, decoded for "-bin". NULL: none. Valid while the call is. */
const char *rpc_server_call_metadata(const struct rpc_server_call *call, const char *name, size_t *length);
/* What is left of the caller's deadline in ms, 0 when it has passed, INT64_MAX when there is none. */
int64_t rpc_server_call_remaining_ms(const struct rpc_server_call *call);
bool rpc_server_call_is_cancelled(const struct rpc_server_call *call);

/* Metadata of the answer; before the first message or the end. False: not valid metadata, or too late. */
bool rpc_server_call_metadata_add(struct rpc_server_call *call, const struct rpc_metadata *metadata);

/* Ends the call with one message and OK. The handle is void after each of these. */
void rpc_server_call_reply(struct rpc_server_call *call, const uint8_t *message, size_t length);
void rpc_server_call_reply_message(struct rpc_server_call *call, const pb_msgdesc_t *fields, const void *message);
/* Ends the call with a status; what was queued is sent first. NULL: OK. */
void rpc_server_call_finish(struct rpc_server_call *call, const struct rpc_status *status);
/* Ends the call with an error value. */
void rpc_server_call_fail(struct rpc_server_call *call, const struct error *error);

/* Queues one message of a streaming answer (copied). See enum rpc_send_result. */
enum rpc_send_result rpc_server_call_send(struct rpc_server_call *call, const uint8_t *message, size_t length);
enum rpc_send_result rpc_server_call_send_message(struct rpc_server_call *call, const pb_msgdesc_t *fields,
                                                  const void *message);
/* Stops and restarts on_message and on_half_close; see rpc_call_pause. */
void rpc_server_call_pause(struct rpc_server_call *call);
void rpc_server_call_resume(struct rpc_server_call *call);

/* ---- health (LIF-4) ------------------------------------------------------------------------------------------- */

/* grpc.health.v1.Health, Check and Watch, over a list of services that its owner keeps. */
struct rpc_health;

enum rpc_health_status { RPC_HEALTH_UNKNOWN = 0, RPC_HEALTH_SERVING = 1, RPC_HEALTH_NOT_SERVING = 2 };

/* Registers the health methods with the server. The service "" (the process as a whole) starts as NOT_SERVING.
 * The health object must outlive the server; free it after rpc_server_close. */
struct rpc_health *rpc_health_create(struct rpc_server *server);
void rpc_health_free(struct rpc_health **health);
/* Sets a service's status (name copied) and tells its watchers. "" is the process. */
void rpc_health_set(struct rpc_health *health, const char *service, enum rpc_health_status status);

#endif
