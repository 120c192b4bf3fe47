/* channel.c: the connection side of the client: when to connect, what state that is, which calls wait for it (TRN-6).
 *
 * A connection counts as ready when the peer's SETTINGS came: on a Unix socket connect() succeeds as soon as the
 * backlog has room, and a listener that accepts and dies is no server. Calls are given to ready connections only.
 *
 * Retry: after the loss of a connection that has served, at once; then 50 ms doubling to 2 s with jitter. A connection
 * that was lost before it brought one answer or lived a second counts as a failure, so a peer that keeps closing is not
 * hammered.
 *
 * Life: the channel is counted: the user's handle, each session, each call, each callback on the stack. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/base/backoff.h"
#include "sdk/base/log.h"
#include "sdk/base/secret.h"
#include "sdk/base/str.h"
#include "sdk/rpc/rpc_client_internal.h"

#define CHANNEL_MAGIC 0x52504348u
#define PROVEN_US 1000000
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS 2000
#define CONNECT_TIMEOUT_MS 5000
#define IN_FLIGHT_MAX 1024

static void channel_connect(struct rpc_channel *channel);

void rpc_channel_hold(struct rpc_channel *channel) {
  channel->refs++;
}

static void header_free(struct rpc_channel *channel, struct rpc_channel_header *header) {
  TAILQ_REMOVE(&channel->metadata, header, link);
  channel->metadata_count--;
  base_free(header->name);
  base_free(header->value);
  secret_free(&header->secret);
  base_free(header);
}

void rpc_channel_drop(struct rpc_channel *channel) {
  if (--channel->refs > 0)
    return;
  BASE_CHECK(TAILQ_EMPTY(&channel->calls) && TAILQ_EMPTY(&channel->sessions));
  struct rpc_call *call;
  while ((call = TAILQ_FIRST(&channel->pool)) != NULL) {
    TAILQ_REMOVE(&channel->pool, call, link);
    rpc_call_destroy(call);
  }
  while (!TAILQ_EMPTY(&channel->metadata))
    header_free(channel, TAILQ_FIRST(&channel->metadata));
  event_del(&channel->timer);
  rpc_worklist_free(&channel->work);
  rpc_deadlines_free(&channel->deadlines);
  base_free(channel->path);
  base_free(channel->user_agent);
  channel->magic = 0;
  base_free(channel);
}

/* ---- state ---- */

static void state_tell(struct rpc_channel *channel, bool connected) {
  if (channel->options.on_state != NULL && !channel->closed)
    channel->options.on_state(connected, channel->options.arg);
}

static void timer_set(struct rpc_channel *channel, uint32_t wait_ms) {
  struct timeval timeout = {.tv_sec = wait_ms / 1000, .tv_usec = (suseconds_t)(wait_ms % 1000) * 1000};
  BASE_CHECK(event_add(&channel->timer, &timeout) == 0);
}

static bool is_needed(const struct rpc_channel *channel) {
  return channel->options.keep_connected || !TAILQ_EMPTY(&channel->waiting);
}

static void waiting_fail(struct rpc_channel *channel, bool patient_too, enum error_code error) {
  struct rpc_call *call, *next;
  RPC_TAILQ_FOREACH_SAFE(call, &channel->waiting, waiting_link, next) {
    if (patient_too || !call->wait_for_ready)
      rpc_call_fail_later(call, RPC_UNAVAILABLE, error);
  }
}

static void connect_failed(struct rpc_channel *channel) {
  channel->failures++;
  channel->state = CHANNEL_BACKOFF;
  timer_set(channel, backoff_ms(channel->options.backoff_first_ms, channel->options.backoff_max_ms, channel->failures));
  waiting_fail(channel, false, ERR_RPC_CONNECT_FAILED);
}

/* The current session is no longer for new calls. */
static void connection_ended(struct rpc_channel *channel) {
  bool was_ready = channel->state == CHANNEL_READY;
  channel->session = NULL;
  event_del(&channel->timer);
  if (channel->closed)
    return;
  rpc_channel_hold(channel);
  if (channel->path == NULL) {
    channel->state = CHANNEL_DEAD;
    waiting_fail(channel, true, ERR_RPC_PEER_GONE);
  } else if (was_ready && (channel->answered || clock_monotonic_us() - channel->ready_us >= PROVEN_US)) {
    channel->failures = 0;
    channel->state = CHANNEL_IDLE;
    if (is_needed(channel))
      channel_connect(channel);
  } else {
    connect_failed(channel);
  }
  if (was_ready)
    state_tell(channel, false);
  rpc_channel_drop(channel);
}

static void timer_fired(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct rpc_channel *channel = arg;
  if (channel->state == CHANNEL_CONNECTING) {
    rpc_session_close(channel->session, RPC_LOSS_PEER_GONE); /* leads to connection_ended */
  } else if (channel->state == CHANNEL_BACKOFF) {
    channel->state = CHANNEL_IDLE;
    if (is_needed(channel))
      channel_connect(channel);
  }
}

/* ---- session callbacks ---- */

static void session_settings(struct rpc_session *session) {
  struct rpc_channel *channel = session->owner;
  if (session != channel->session || channel->state != CHANNEL_CONNECTING)
    return;
  channel->state = CHANNEL_READY;
  channel->ready_us = clock_monotonic_us();
  channel->answered = false;
  event_del(&channel->timer);
  rpc_channel_hold(channel);
  struct rpc_call *call;
  while (channel->session == session && (call = TAILQ_FIRST(&channel->waiting)) != NULL) {
    TAILQ_REMOVE(&channel->waiting, call, waiting_link);
    call->waiting = false;
    rpc_channel_dispatch(channel, call);
  }
  state_tell(channel, true);
  rpc_channel_drop(channel);
}

void rpc_channel_retire(struct rpc_channel *channel, struct rpc_session *session) {
  if (session != channel->session)
    return;
  nghttp2_submit_goaway(session->h2, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
  rpc_session_flush_later(session);
  connection_ended(channel);
}

static void session_goaway(struct rpc_session *session) {
  rpc_channel_retire(session->owner, session);
}

/* Before its calls end: whoever hears of them finds the channel as it is. */
static void session_closing(struct rpc_session *session) {
  struct rpc_channel *channel = session->owner;
  if (session == channel->session)
    connection_ended(channel);
}

static void session_lost(struct rpc_session *session) {
  struct rpc_channel *channel = session->owner;
  TAILQ_REMOVE(&channel->sessions, session, link);
}

static void session_freed(struct rpc_session *session) {
  rpc_channel_drop(session->owner);
}

static const struct rpc_session_ops session_ops = {.settings = session_settings,
                                                   .goaway = session_goaway,
                                                   .closing = session_closing,
                                                   .lost = session_lost,
                                                   .freed = session_freed};

static void session_start(struct rpc_channel *channel, int fd) {
  struct rpc_session_options options = {.metadata_bytes_max = channel->options.metadata_bytes_max,
                                        .stream_window_bytes = channel->options.stream_window_bytes};
  channel->session = rpc_session_create(channel->base, fd, false, &session_ops, channel, &options);
  TAILQ_INSERT_TAIL(&channel->sessions, channel->session, link);
  rpc_channel_hold(channel);
  channel->state = CHANNEL_CONNECTING;
  timer_set(channel, channel->options.connect_timeout_ms);
}

static void channel_connect(struct rpc_channel *channel) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  event_del(&channel->timer);
  if (!str_copy(address.sun_path, sizeof(address.sun_path), channel->path)) {
    connect_failed(channel);
    return;
  }
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
    /* A full backlog (EAGAIN) is a failure like any other: the back-off tries again. */
    if (log_enabled(LOG_DEBUG))
      log_event(LOG_DEBUG, "rpc", "connect failed", LOG_TEXT("path", channel->path), LOG_INT("errno", errno));
    if (fd >= 0)
      close(fd);
    connect_failed(channel);
    return;
  }
  session_start(channel, fd);
}

/* ---- calls ---- */

void rpc_channel_dispatch(struct rpc_channel *channel, struct rpc_call *call) {
  if (channel->state == CHANNEL_DEAD) {
    rpc_call_fail_later(call, RPC_UNAVAILABLE, ERR_RPC_PEER_GONE);
    return;
  }
  if (channel->state == CHANNEL_BACKOFF && !call->wait_for_ready) {
    rpc_call_fail_later(call, RPC_UNAVAILABLE, ERR_RPC_CONNECT_FAILED);
    return;
  }
  if (channel->state == CHANNEL_READY && !channel->session->closed) {
    struct rpc_session *session = channel->session;
    if (rpc_call_submit(call, session))
      return;
    call->waiting = true;
    TAILQ_INSERT_TAIL(&channel->waiting, call, waiting_link);
    rpc_channel_retire(channel, session); /* out of stream ids: go on with a new connection */
    return;
  }
  call->waiting = true;
  TAILQ_INSERT_TAIL(&channel->waiting, call, waiting_link);
  if (channel->state == CHANNEL_IDLE)
    channel_connect(channel);
}

/* ---- public ---- */

#define DEFAULT(field, value)                                                                                          \
  if ((field) == 0)                                                                                                    \
  (field) = (value)

static struct rpc_channel *channel_new(struct event_base *base, const struct rpc_channel_options *options) {
  struct rpc_channel *channel = BASE_NEW(struct rpc_channel);
  channel->magic = CHANNEL_MAGIC;
  channel->refs = 1;
  channel->base = base;
  if (options != NULL)
    channel->options = *options;
  DEFAULT(channel->options.in_flight_max, IN_FLIGHT_MAX);
  DEFAULT(channel->options.message_bytes_max, RPC_DEFAULT_MESSAGE_BYTES);
  DEFAULT(channel->options.metadata_bytes_max, RPC_DEFAULT_METADATA_BYTES);
  DEFAULT(channel->options.send_buffer_bytes, RPC_DEFAULT_SEND_BUFFER_BYTES);
  DEFAULT(channel->options.stream_window_bytes, RPC_DEFAULT_STREAM_WINDOW_BYTES);
  DEFAULT(channel->options.backoff_first_ms, BACKOFF_FIRST_MS);
  DEFAULT(channel->options.backoff_max_ms, BACKOFF_MAX_MS);
  DEFAULT(channel->options.connect_timeout_ms, CONNECT_TIMEOUT_MS);
  channel->user_agent =
      base_strdup(channel->options.user_agent != NULL ? channel->options.user_agent : "gatehouse/" GATEHOUSE_VERSION);
  channel->options.user_agent = channel->user_agent;
  TAILQ_INIT(&channel->sessions);
  TAILQ_INIT(&channel->metadata);
  TAILQ_INIT(&channel->calls);
  TAILQ_INIT(&channel->waiting);
  TAILQ_INIT(&channel->pool);
  rpc_worklist_init(&channel->work, base, rpc_call_work, channel);
  rpc_deadlines_init(&channel->deadlines, base, rpc_call_expired, channel);
  BASE_CHECK(event_assign(&channel->timer, base, -1, 0, timer_fired, channel) == 0);
  return channel;
}

struct rpc_channel *rpc_channel_create(struct event_base *base, const char *unix_path,
                                       const struct rpc_channel_options *options) {
  struct rpc_channel *channel = channel_new(base, options);
  channel->path = base_strdup(unix_path);
  if (channel->options.keep_connected)
    channel_connect(channel);
  return channel;
}

struct rpc_channel *rpc_channel_create_from_fd(struct event_base *base, int fd,
                                               const struct rpc_channel_options *options) {
  struct rpc_channel *channel = channel_new(base, options);
  session_start(channel, fd);
  return channel;
}

void rpc_channel_close(struct rpc_channel **channel_pointer) {
  struct rpc_channel *channel = *channel_pointer;
  if (channel == NULL)
    return;
  BASE_CHECK_MAGIC(channel, CHANNEL_MAGIC);
  *channel_pointer = NULL;
  channel->closed = true;
  event_del(&channel->timer);
  struct rpc_session *session = TAILQ_FIRST(&channel->sessions);
  while (session != NULL) {
    if (session->closed) { /* further up the stack; it takes itself off the list */
      session = TAILQ_NEXT(session, link);
      continue;
    }
    rpc_session_close(session, RPC_LOSS_CLOSED); /* the peer sees end of file; that says it all */
    session = TAILQ_FIRST(&channel->sessions);
  }
  struct rpc_call *call;
  struct rpc_status status;
  rpc_status_set(&status, RPC_UNAVAILABLE, ERR_UNAVAILABLE, "The channel was closed.");
  while ((call = TAILQ_FIRST(&channel->calls)) != NULL)
    rpc_call_finish(call, &status);
  rpc_channel_drop(channel);
}

static bool metadata_set(struct rpc_channel *channel, const char *name, const char *value,
                         const struct secret *secret) {
  BASE_CHECK_MAGIC(channel, CHANNEL_MAGIC);
  const char *text = secret != NULL ? secret_reveal(secret) : value;
  if (!rpc_metadata_name_is_valid(name, strlen(name)) || rpc_metadata_name_is_binary(name, strlen(name)) ||
      (text != NULL && !rpc_metadata_value_is_valid(text, strlen(text))))
    return false;
  struct rpc_channel_header *header;
  TAILQ_FOREACH(header, &channel->metadata, link) {
    if (strcmp(header->name, name) == 0) {
      header_free(channel, header);
      break;
    }
  }
  if (text == NULL)
    return true;
  if (channel->metadata_count >= RPC_CHANNEL_METADATA_MAX)
    return false;
  header = BASE_NEW(struct rpc_channel_header);
  header->name = base_strdup(name);
  if (secret != NULL)
    header->secret = secret_from_text(text);
  else
    header->value = base_strdup(text);
  TAILQ_INSERT_TAIL(&channel->metadata, header, link);
  channel->metadata_count++;
  return true;
}

bool rpc_channel_metadata_set(struct rpc_channel *channel, const char *name, const char *value) {
  return metadata_set(channel, name, value, NULL);
}

bool rpc_channel_metadata_set_secret(struct rpc_channel *channel, const char *name, const struct secret *secret) {
  return metadata_set(channel, name, NULL, secret);
}

void rpc_channel_connect(struct rpc_channel *channel) {
  BASE_CHECK_MAGIC(channel, CHANNEL_MAGIC);
  if (channel->state == CHANNEL_IDLE || channel->state == CHANNEL_BACKOFF)
    channel_connect(channel);
}

bool rpc_channel_is_connected(const struct rpc_channel *channel) {
  BASE_CHECK_MAGIC(channel, CHANNEL_MAGIC);
  return channel->state == CHANNEL_READY;
}

uint32_t rpc_channel_in_flight(const struct rpc_channel *channel) {
  BASE_CHECK_MAGIC(channel, CHANNEL_MAGIC);
  return channel->in_flight;
}
