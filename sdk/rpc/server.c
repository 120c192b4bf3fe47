/* server.c: the server's doors: listeners, connections with their peers, the method table, drain and close.
 *
 * A connection is tied at accept to who opened it (SO_PEERCRED); its id is never reused, so a revoked instance can be
 * disconnected without meeting its successor. Drain: listeners close, each peer gets GOAWAY twice (first "I am
 * leaving", a moment later "and this was the last call I took"), so that calls on their way are either served or safely
 * repeated. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/rpc/rpc_server_internal.h"

#define SERVER_MAGIC 0x52505353u
#define BACKLOG 511
#define ACCEPTS_A_TURN 16
#define ACCEPT_REST_MS 100
#define GOAWAY_GRACE_MS 20
#define CONNECTIONS_MAX 256
#define CONCURRENT_STREAMS_MAX 1024
#define RECEIVE_BUFFER_BYTES_MAX ((size_t)64 << 20)

static uint64_t connection_id_last;

void rpc_server_hold(struct rpc_server *server) {
  server->refs++;
}

void rpc_server_drop(struct rpc_server *server) {
  if (--server->refs > 0)
    return;
  BASE_CHECK(TAILQ_EMPTY(&server->connections) && TAILQ_EMPTY(&server->calls));
  struct rpc_server_call *call;
  while ((call = TAILQ_FIRST(&server->pool)) != NULL) {
    TAILQ_REMOVE(&server->pool, call, link);
    rpc_server_call_destroy(call);
  }
  base_free(server->methods);
  server->magic = 0;
  base_free(server);
}

/* ---- methods ---- */

static size_t path_hash(const char *path, size_t length) {
  uint64_t hash = 14695981039346656037u; /* FNV-1a; the keys are ours, look-ups of strangers cost one probe run */
  for (size_t i = 0; i < length; i++)
    hash = (hash ^ (uint8_t)path[i]) * 1099511628211u;
  return (size_t)(hash ^ hash >> 32);
}

static struct rpc_method_slot *method_slot(const struct rpc_server *server, const char *path, size_t length) {
  size_t mask = server->method_slots - 1;
  for (size_t i = path_hash(path, length) & mask;; i = (i + 1) & mask) {
    struct rpc_method_slot *slot = &server->methods[i];
    if (slot->method == NULL || (slot->path_length == length && memcmp(slot->method->path, path, length) == 0))
      return slot;
  }
}

const struct rpc_method_slot *rpc_server_method(const struct rpc_server *server, const char *path, size_t length) {
  if (server->method_slots == 0)
    return NULL;
  const struct rpc_method_slot *slot = method_slot(server, path, length);
  return slot->method != NULL ? slot : NULL;
}

static void methods_grow(struct rpc_server *server) {
  struct rpc_method_slot *old = server->methods;
  size_t old_slots = server->method_slots;
  server->method_slots = old_slots == 0 ? 32 : old_slots * 2;
  server->methods = base_calloc(server->method_slots, sizeof(*server->methods));
  for (size_t i = 0; i < old_slots; i++)
    if (old[i].method != NULL)
      *method_slot(server, old[i].method->path, old[i].path_length) = old[i];
  base_free(old);
}

void rpc_server_register(struct rpc_server *server, const struct rpc_method *methods, size_t count, void *arg) {
  BASE_CHECK_MAGIC(server, SERVER_MAGIC);
  /* Calls point at slots: methods are registered before the first one. */
  BASE_CHECK(TAILQ_EMPTY(&server->calls));
  for (size_t i = 0; i < count; i++) {
    if ((server->method_count + 1) * 2 > server->method_slots)
      methods_grow(server);
    struct rpc_method_slot *slot = method_slot(server, methods[i].path, strlen(methods[i].path));
    BASE_CHECK(slot->method == NULL && methods[i].handler != NULL);
    *slot = (struct rpc_method_slot){&methods[i], strlen(methods[i].path), arg};
    server->method_count++;
  }
}

/* ---- connections ---- */

static struct rpc_stream *session_open(struct rpc_session *session, int32_t stream_id) {
  (void)stream_id;
  return rpc_server_call_begin(session->owner);
}

static void session_lost(struct rpc_session *session) {
  struct rpc_connection *connection = session->owner;
  struct rpc_server *server = connection->server;
  TAILQ_REMOVE(&server->connections, connection, link);
  server->connection_count--;
  rpc_server_hold(server);
  if (server->options.on_connection != NULL)
    server->options.on_connection(&connection->peer, false, server->options.arg);
  rpc_server_drain_check(server);
  rpc_server_drop(server);
}

static void session_freed(struct rpc_session *session) {
  struct rpc_connection *connection = session->owner;
  rpc_server_drop(connection->server);
  base_free(connection);
}

static const struct rpc_session_ops session_ops = {.open = session_open, .lost = session_lost, .freed = session_freed};

bool rpc_server_accept_fd(struct rpc_server *server, int fd, struct error *err) {
  BASE_CHECK_MAGIC(server, SERVER_MAGIC);
  struct ucred credentials = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
  socklen_t length = sizeof(credentials);
  if (server->closed || server->draining || server->connection_count >= server->options.connections_max) {
    close(fd);
    return error_set(err, ERR_UNAVAILABLE, "The server takes no more connections.");
  }
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    close(fd);
    return error_set(err, ERR_RPC_PEER_UNKNOWN, NULL);
  }
  struct rpc_peer peer = {credentials.uid, credentials.gid, credentials.pid, ++connection_id_last};
  if (server->options.authorize_peer != NULL && !server->options.authorize_peer(&peer, server->options.arg)) {
    close(fd);
    log_event(LOG_WARN, "rpc", "connection refused", LOG_INT("uid", peer.uid), LOG_INT("pid", peer.pid));
    return error_set(err, ERR_AUTH_CHANNEL, NULL);
  }
  if (server->closed) { /* by authorize_peer */
    close(fd);
    return error_set(err, ERR_UNAVAILABLE, NULL);
  }
  struct rpc_connection *connection = BASE_NEW(struct rpc_connection);
  connection->server = server;
  connection->peer = peer;
  struct rpc_session_options options = {.metadata_bytes_max = server->options.metadata_bytes_max,
                                        .stream_window_bytes = server->options.stream_window_bytes,
                                        .received_bytes_max = server->options.receive_buffer_bytes_max,
                                        .concurrent_streams_max = server->options.concurrent_streams_max};
  rpc_server_hold(server);
  connection->session = rpc_session_create(server->base, fd, true, &session_ops, connection, &options);
  TAILQ_INSERT_TAIL(&server->connections, connection, link);
  server->connection_count++;
  if (server->options.on_connection != NULL)
    server->options.on_connection(&peer, true, server->options.arg);
  return true;
}

bool rpc_server_disconnect(struct rpc_server *server, uint64_t connection_id) {
  BASE_CHECK_MAGIC(server, SERVER_MAGIC);
  struct rpc_connection *connection;
  TAILQ_FOREACH(connection, &server->connections, link) {
    if (connection->peer.connection_id == connection_id && !connection->session->closed) {
      rpc_session_close(connection->session, RPC_LOSS_CLOSED);
      return true;
    }
  }
  return false;
}

/* ---- listeners ---- */

static void listener_close(struct rpc_listener *listener) {
  struct stat now;
  event_del(&listener->event);
  close(listener->fd);
  if (listener->path != NULL && lstat(listener->path, &now) == 0 && now.st_dev == listener->device &&
      now.st_ino == listener->inode)
    unlink(listener->path); /* only while it is still ours: a successor may have put its own there */
  TAILQ_REMOVE(&listener->server->listeners, listener, link);
  base_free(listener->path);
  base_free(listener);
}

static void listeners_rest(struct rpc_server *server) {
  struct rpc_listener *listener;
  struct timeval rest = {.tv_usec = ACCEPT_REST_MS * 1000};
  TAILQ_FOREACH(listener, &server->listeners, link) {
    event_del(&listener->event);
  }
  BASE_CHECK(event_add(&server->accept_timer, &rest) == 0);
  log_event(LOG_ERROR, "rpc", "out of descriptors, accepting rests", LOG_INT("errno", errno));
}

static void listeners_resume(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct rpc_server *server = arg;
  struct rpc_listener *listener;
  TAILQ_FOREACH(listener, &server->listeners, link) {
    BASE_CHECK(event_add(&listener->event, NULL) == 0);
  }
}

static void accept_ready(evutil_socket_t listening, short what, void *arg) {
  (void)what;
  struct rpc_listener *listener = arg;
  struct rpc_server *server = listener->server;
  rpc_server_hold(server);
  for (int i = 0; i < ACCEPTS_A_TURN && !server->closed && !server->draining; i++) {
    int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      rpc_server_accept_fd(server, fd, NULL);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      listeners_rest(server);
      break;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      break;
    }
  }
  rpc_server_drop(server);
}

static struct rpc_listener *listener_add(struct rpc_server *server, int fd) {
  struct rpc_listener *listener = BASE_NEW(struct rpc_listener);
  listener->server = server;
  listener->fd = fd;
  TAILQ_INSERT_TAIL(&server->listeners, listener, link);
  evutil_make_socket_nonblocking(fd);
  evutil_make_socket_closeonexec(fd);
  BASE_CHECK(event_assign(&listener->event, server->base, fd, EV_READ | EV_PERSIST, accept_ready, listener) == 0);
  BASE_CHECK(event_add(&listener->event, NULL) == 0);
  return listener;
}

bool rpc_server_listen_fd(struct rpc_server *server, int fd, struct error *err) {
  BASE_CHECK_MAGIC(server, SERVER_MAGIC);
  int listening = 0;
  socklen_t length = sizeof(listening);
  if (server->draining || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0 || listening == 0) {
    close(fd);
    return error_set(err, ERR_RPC_LISTEN_FAILED, NULL);
  }
  listener_add(server, fd);
  return true;
}

/* Is a server alive behind this socket file? */
static bool somebody_listens(const struct sockaddr_un *address) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return true;
  bool alive = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN;
  close(fd);
  return alive;
}

bool rpc_server_listen_unix(struct rpc_server *server, const char *path, mode_t mode, struct error *err) {
  BASE_CHECK_MAGIC(server, SERVER_MAGIC);
  struct sockaddr_un address = {.sun_family = AF_UNIX}, unready = {.sun_family = AF_UNIX};
  struct stat file;
  if (path[0] == '\0' || !str_copy(address.sun_path, sizeof(address.sun_path), path) ||
      snprintf(unready.sun_path, sizeof(unready.sun_path), "%s~", path) >= (int)sizeof(unready.sun_path))
    return error_set(err, ERR_ARGUMENT_INVALID, "The socket path is empty or too long.");
  if (server->draining)
    return error_set(err, ERR_RPC_LISTEN_FAILED, NULL);
  if (lstat(path, &file) == 0) {
    if (!S_ISSOCK(file.st_mode) || somebody_listens(&address))
      return error_set(err, ERR_RPC_LISTEN_BUSY, NULL);
    unlink(path);
  }
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return error_set(err, ERR_RPC_LISTEN_FAILED, NULL);
  /* Under another name until it listens: who sees the socket's own name appear can connect. */
  unlink(unready.sun_path);
  mode_t before = umask(0777 & ~mode);
  bool ok = bind(fd, (const struct sockaddr *)&unready, sizeof(unready)) == 0;
  umask(before);
  ok = ok && listen(fd, BACKLOG) == 0 && rename(unready.sun_path, path) == 0 && lstat(path, &file) == 0;
  if (!ok) {
    log_event(LOG_ERROR, "rpc", "cannot listen", LOG_TEXT("path", path), LOG_INT("errno", errno));
    close(fd);
    return error_set(err, ERR_RPC_LISTEN_FAILED, NULL);
  }
  struct rpc_listener *listener = listener_add(server, fd);
  listener->path = base_strdup(path);
  listener->device = file.st_dev;
  listener->inode = file.st_ino;
  return true;
}

/* ---- drain ---- */

static void drain_finish(struct rpc_server *server, bool clean) {
  void (*done)(void *arg, bool clean) = BASE_TAKE(server->drain_done);
  event_del(&server->goaway_timer);
  event_del(&server->drain_timer);
  if (done != NULL)
    done(server->drain_arg, clean);
}

/* Clean: no call is left and every connection has sent what it had and closed. */
void rpc_server_drain_check(struct rpc_server *server) {
  if (server->drain_done != NULL && !server->closed && server->call_count == 0 && server->connection_count == 0)
    rpc_work_queue(&server->work, &server->drain_work);
}

static void server_work(struct rpc_work *work, void *arg) {
  struct rpc_server *server = arg;
  if (work == &server->drain_work)
    drain_finish(server, true);
  else
    rpc_server_call_work(work, server);
}

static void goaway_second(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  struct rpc_server *server = arg;
  struct rpc_connection *connection;
  TAILQ_FOREACH(connection, &server->connections, link) {
    struct rpc_session *session = connection->session;
    session->refusing = true;
    nghttp2_submit_goaway(session->h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session->h2),
                          NGHTTP2_NO_ERROR, NULL, 0);
    rpc_session_flush_later(session);
  }
}

static void drain_expired(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  drain_finish(arg, false);
}

void rpc_server_drain(struct rpc_server *server, uint32_t deadline_ms, void (*done)(void *arg, bool clean), void *arg) {
  BASE_CHECK_MAGIC(server, SERVER_MAGIC);
  BASE_CHECK(!server->draining && done != NULL);
  server->draining = true;
  server->drain_done = done;
  server->drain_arg = arg;
  while (!TAILQ_EMPTY(&server->listeners))
    listener_close(TAILQ_FIRST(&server->listeners));
  struct rpc_connection *connection;
  TAILQ_FOREACH(connection, &server->connections, link) {
    if (connection->session->closed)
      continue;
    nghttp2_submit_shutdown_notice(connection->session->h2);
    rpc_session_flush_later(connection->session);
  }
  struct timeval grace = {.tv_usec = GOAWAY_GRACE_MS * 1000};
  struct timeval deadline = {.tv_sec = deadline_ms / 1000, .tv_usec = (suseconds_t)(deadline_ms % 1000) * 1000};
  BASE_CHECK(event_add(&server->goaway_timer, &grace) == 0 && event_add(&server->drain_timer, &deadline) == 0);
  if (server->drain_hook != NULL)
    server->drain_hook(server->drain_hook_arg);
  rpc_server_drain_check(server);
}

/* ---- public ---- */

#define DEFAULT(field, value)                                                                                          \
  if ((field) == 0)                                                                                                    \
  (field) = (value)

struct rpc_server *rpc_server_create(struct event_base *base, const struct rpc_server_options *options) {
  struct rpc_server *server = BASE_NEW(struct rpc_server);
  server->magic = SERVER_MAGIC;
  server->refs = 1;
  server->base = base;
  if (options != NULL)
    server->options = *options;
  DEFAULT(server->options.connections_max, CONNECTIONS_MAX);
  DEFAULT(server->options.concurrent_streams_max, CONCURRENT_STREAMS_MAX);
  DEFAULT(server->options.message_bytes_max, RPC_DEFAULT_MESSAGE_BYTES);
  DEFAULT(server->options.metadata_bytes_max, RPC_DEFAULT_METADATA_BYTES);
  DEFAULT(server->options.receive_buffer_bytes_max, RECEIVE_BUFFER_BYTES_MAX);
  DEFAULT(server->options.send_buffer_bytes, RPC_DEFAULT_SEND_BUFFER_BYTES);
  DEFAULT(server->options.stream_window_bytes, RPC_DEFAULT_STREAM_WINDOW_BYTES);
  TAILQ_INIT(&server->listeners);
  TAILQ_INIT(&server->connections);
  TAILQ_INIT(&server->calls);
  TAILQ_INIT(&server->pool);
  rpc_worklist_init(&server->work, base, server_work, server);
  rpc_deadlines_init(&server->deadlines, base, rpc_server_call_expired, server);
  BASE_CHECK(event_assign(&server->accept_timer, base, -1, 0, listeners_resume, server) == 0 &&
             event_assign(&server->goaway_timer, base, -1, 0, goaway_second, server) == 0 &&
             event_assign(&server->drain_timer, base, -1, 0, drain_expired, server) == 0);
  return server;
}

void rpc_server_close(struct rpc_server **server_pointer) {
  struct rpc_server *server = *server_pointer;
  if (server == NULL)
    return;
  BASE_CHECK_MAGIC(server, SERVER_MAGIC);
  *server_pointer = NULL;
  server->closed = true;
  server->drain_done = NULL;
  while (!TAILQ_EMPTY(&server->listeners))
    listener_close(TAILQ_FIRST(&server->listeners));
  struct rpc_connection *connection = TAILQ_FIRST(&server->connections);
  while (connection != NULL) {
    if (connection->session->closed) { /* further up the stack; it takes itself off the list */
      connection = TAILQ_NEXT(connection, link);
      continue;
    }
    rpc_session_close(connection->session, RPC_LOSS_CLOSED);
    connection = TAILQ_FIRST(&server->connections);
  }
  /* What is left belongs to a session that is closing further up the stack, or is held by its handler. */
  struct rpc_server_call *call, *next;
  RPC_TAILQ_FOREACH_SAFE(call, &server->calls, link, next) {
    rpc_server_hold(server);
    rpc_server_call_abandon(call);
    rpc_server_drop(server);
  }
  rpc_work_cancel(&server->work, &server->drain_work);
  /* Calls that handlers still hold are detached now: they need the server's memory, but none of its events. */
  rpc_worklist_free(&server->work);
  rpc_deadlines_free(&server->deadlines);
  event_del(&server->accept_timer);
  event_del(&server->goaway_timer);
  event_del(&server->drain_timer);
  rpc_server_drop(server);
}

uint32_t rpc_server_connections(const struct rpc_server *server) {
  BASE_CHECK_MAGIC(server, SERVER_MAGIC);
  return server->connection_count;
}

uint32_t rpc_server_calls(const struct rpc_server *server) {
  BASE_CHECK_MAGIC(server, SERVER_MAGIC);
  return server->call_count;
}
