/* connection.c: one client socket: its bufferevent, its one timer, reading, writing, closing. Knows no HTTP but the
 * choice of the protocol by ALPN or by the HTTP/2 preface.
 *
 * Plain sockets are read here, with one recv() per turn; TLS is read by the bufferevent. Writing goes straight to the
 * socket when nothing is queued (one sendmsg per reply, no epoll_ctl); what the socket does not take is queued in the
 * bufferevent. The timer is armed lazily: deadlines move with every request, the timer only when it would fire too
 * late. Freed by connection_tick() only (see http_internal.h), or by http_server_free(). */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sdk/base/secret.h"
#include "sdk/http/http_internal.h"

#define READ_BYTES 16384 /* a turn: then others get theirs */

static void arm_timer(struct http_connection *connection) {
  int64_t due = connection->read_deadline_ms < connection->write_deadline_ms ? connection->read_deadline_ms
                                                                             : connection->write_deadline_ms;
  if (due >= connection->timer_due_ms)
    return;
  int64_t wait = due - clock_monotonic_ms();
  if (wait < 0)
    wait = 0;
  connection->timer_due_ms = due;
  struct timeval timeout = {.tv_sec = wait / 1000, .tv_usec = wait % 1000 * 1000 + 500};
  event_add(connection->timer, &timeout);
}

void connection_postpone(struct http_connection *connection) {
  connection->timer_due_ms = HTTP_NEVER; /* activating takes the timer off the heap */
  event_active(connection->timer, EV_TIMEOUT, 0);
}

static void reading_set(struct http_connection *connection, bool on) {
  if (connection->secure)
    (on ? bufferevent_enable : bufferevent_disable)(connection->bev, EV_READ);
  else if (!on)
    event_del(connection->read_event);
  else if (event_add(connection->read_event, NULL) != 0) /* out of watches or memory */
    connection_doom(connection, HTTP_CLOSE_PEER);
}

void connection_doom(struct http_connection *connection, enum http_close_reason reason) {
  if (connection->doomed)
    return;
  connection->doomed = true;
  connection->doom_reason = reason;
  if (reason == HTTP_CLOSE_SLOW)
    connection->server->stats.clients_dropped++;
  reading_set(connection, false);
  bufferevent_disable(connection->bev, EV_WRITE);
  connection_postpone(connection);
}

void connection_read_deadline(struct http_connection *connection, int64_t after_ms) {
  connection->read_deadline_ms = after_ms == HTTP_NEVER ? HTTP_NEVER : clock_monotonic_ms() + after_ms;
  arm_timer(connection);
}

static void write_deadline(struct http_connection *connection) {
  connection->write_deadline_ms = clock_monotonic_ms() + connection->server->options.limits.write_timeout_ms;
  arm_timer(connection);
}

/* Bytes left the queue: the client is alive. */
static void on_output_changed(struct evbuffer *output, const struct evbuffer_cb_info *info, void *context) {
  struct http_connection *connection = context;
  if (info->n_deleted == 0)
    return;
  if (evbuffer_get_length(output) == 0)
    connection->write_deadline_ms = HTTP_NEVER;
  else
    write_deadline(connection);
  if (connection->close_flushed || connection->watch_output)
    connection_postpone(connection);
}

void connection_write(struct http_connection *connection, const struct iovec *parts, int count) {
  if (connection->doomed || connection->shut)
    return;
  size_t sent = 0;
  if (!connection->secure && evbuffer_get_length(connection->output) == 0) {
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = (size_t)count};
    ssize_t result = count == 1 ? send(connection->fd, parts->iov_base, parts->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                                : sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (result < 0 && errno != EAGAIN && errno != EINTR) {
      connection_doom(connection, HTTP_CLOSE_PEER);
      return;
    }
    sent = result > 0 ? (size_t)result : 0;
  }
  bool queued = false;
  for (int i = 0; i < count; i++) {
    if (sent >= parts[i].iov_len) {
      sent -= parts[i].iov_len;
      continue;
    }
    const char *rest = (const char *)parts[i].iov_base + sent;
    if (!queued && connection->write_deadline_ms == HTTP_NEVER)
      write_deadline(connection);
    queued = true;
    evbuffer_add(connection->output, rest, parts[i].iov_len - sent);
    sent = 0;
  }
}

static void on_far_end_closed(evutil_socket_t fd, short what, void *context) {
  struct http_connection *connection = context;
  (void)fd, (void)what;
  connection->peer_ended = true;
  if (connection->protocol != NULL && !connection->doomed)
    connection->protocol->on_end(connection);
}

void connection_read_stop(struct http_connection *connection) {
  if (connection->reading_stopped || connection->peer_ended)
    return;
  connection->reading_stopped = true;
  reading_set(connection, false);
  if (connection->closed_event == NULL)
    connection->closed_event =
        event_new(connection->server->base, connection->fd, EV_CLOSED, on_far_end_closed, connection);
  if (connection->closed_event != NULL)
    event_add(connection->closed_event, NULL);
}

void connection_read_resume(struct http_connection *connection) {
  if (!connection->reading_stopped)
    return;
  connection->reading_stopped = false;
  event_del(connection->closed_event);
  reading_set(connection, true);
}

/* Everything is sent: say so, and wait for the client's end if it may still be sending, else a reset could overtake the
 * reply. */
static void finish_close(struct http_connection *connection) {
  if (connection->doomed || evbuffer_get_length(connection->output) > 0)
    return;
  if (!connection->shut) {
    connection->shut = true;
    if (connection->secure)
      SSL_shutdown(bufferevent_openssl_get_ssl(connection->bev));
    if (connection->lingering) {
      shutdown(connection->fd, SHUT_WR);
      connection_read_deadline(connection, HTTP_LINGER_MS);
    }
  }
  if (!connection->lingering || connection->peer_ended)
    connection_doom(connection, HTTP_CLOSE_PEER);
}

void connection_close_flushed(struct http_connection *connection, bool linger) {
  connection->close_flushed = true;
  connection->lingering = linger;
  connection_read_resume(connection);
  connection->read_deadline_ms = HTTP_NEVER; /* the write deadline holds until all is sent */
  finish_close(connection);
}

static void choose_protocol(struct http_connection *connection) {
  const struct http_server_options *options = &connection->server->options;
  size_t length = evbuffer_get_length(connection->input);
  size_t compared = length < HTTP2_PREFACE_BYTES ? length : HTTP2_PREFACE_BYTES;
  char first[HTTP2_PREFACE_BYTES];
  evbuffer_copyout(connection->input, first, compared);
  bool h2 = !options->http2_disabled && memcmp(first, HTTP2_PREFACE, compared) == 0;
  if (h2 && length < HTTP2_PREFACE_BYTES)
    return;
  if (!h2)
    http1_attach(connection);
  else if (!http2_attach(connection))
    connection_doom(connection, HTTP_CLOSE_PEER);
}

static void on_readable(struct bufferevent *bev, void *context) {
  struct http_connection *connection = context;
  (void)bev; /* NULL: a plain socket */
  if (connection->doomed)
    return;
  if (connection->protocol == NULL)
    choose_protocol(connection);
  if (connection->protocol != NULL && !connection->doomed)
    connection->protocol->on_input(connection);
}

static void on_event(struct bufferevent *bev, short what, void *context) {
  struct http_connection *connection = context;
  if (connection->doomed)
    return;
  if ((what & BEV_EVENT_CONNECTED) != 0) {
    bool h2 = !connection->server->options.http2_disabled && tls_session_is_h2(bufferevent_openssl_get_ssl(bev));
    if (h2 && !http2_attach(connection))
      connection_doom(connection, HTTP_CLOSE_PEER);
    return;
  }
  if ((what & BEV_EVENT_EOF) != 0 && (what & BEV_EVENT_READING) != 0 && connection->protocol != NULL) {
    connection->peer_ended = true;
    connection->protocol->on_end(connection);
    return;
  }
  connection_doom(connection, HTTP_CLOSE_PEER);
}

static void on_socket_readable(evutil_socket_t fd, short what, void *context) {
  static _Thread_local char scratch[READ_BYTES]; /* what was read is copied: an idle connection holds no buffer */
  struct http_connection *connection = context;
  (void)what;
  ssize_t count = recv(fd, scratch, sizeof(scratch), 0);
  if (count > 0) {
    BASE_CHECK(evbuffer_add(connection->input, scratch, (size_t)count) == 0);
    secret_wipe(scratch, (size_t)count); /* it outlives the request, whose credential may be in it */
    on_readable(NULL, connection);
  } else if (count == 0) {
    reading_set(connection, false);
    on_event(connection->bev, BEV_EVENT_EOF | BEV_EVENT_READING, connection);
  } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
    on_event(connection->bev, BEV_EVENT_ERROR | BEV_EVENT_READING, connection);
  }
}

static void connection_tick(evutil_socket_t fd, short what, void *context) {
  struct http_connection *connection = context;
  (void)fd, (void)what;
  connection->timer_due_ms = HTTP_NEVER;
  int64_t now = clock_monotonic_ms();
  if (!connection->doomed && connection->write_deadline_ms <= now)
    connection_doom(connection, HTTP_CLOSE_SLOW);
  if (!connection->doomed) {
    if (connection->protocol != NULL && !connection->lingering)
      connection->protocol->on_tick(connection);
    else if (connection->read_deadline_ms <= now)
      connection_doom(connection, HTTP_CLOSE_PEER);
  }
  if (!connection->doomed && connection->close_flushed)
    finish_close(connection);
  if (connection->doomed)
    connection_free(connection);
  else
    arm_timer(connection);
}

static void name_peer(struct http_connection *connection) {
  struct sockaddr_storage peer = {0};
  socklen_t length = sizeof(peer);
  strcpy(connection->address, "unix");
  if (getpeername(connection->fd, (struct sockaddr *)&peer, &length) != 0)
    return;
  if (peer.ss_family == AF_INET) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&peer;
    inet_ntop(AF_INET, &v4->sin_addr, connection->address, sizeof(connection->address));
    connection->port = ntohs(v4->sin_port);
  } else if (peer.ss_family == AF_INET6) {
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&peer;
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
      inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], connection->address, sizeof(connection->address));
    else
      inet_ntop(AF_INET6, &v6->sin6_addr, connection->address, sizeof(connection->address));
    connection->port = ntohs(v6->sin6_port);
  }
}

static struct bufferevent *bufferevent_for(struct http_server *server, int fd, struct http_tls *tls) {
  if (tls == NULL)
    return bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
  SSL *session = tls_session_new(tls);
  if (session == NULL)
    return NULL;
  struct bufferevent *bev =
      bufferevent_openssl_socket_new(server->base, fd, session, BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
  if (bev == NULL)
    SSL_free(session);
  else
    bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
  return bev;
}

bool connection_create(struct http_server *server, int fd, struct http_tls *tls, const void *first,
                       size_t first_bytes) {
  evutil_make_socket_nonblocking(fd);
  int yes = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)); /* fails on Unix sockets: fine */
  struct bufferevent *bev = bufferevent_for(server, fd, tls);
  if (bev == NULL) {
    close(fd);
    return false;
  }
  struct http_connection *connection = BASE_NEW(struct http_connection);
  connection->magic = HTTP_CONNECTION_MAGIC;
  connection->server = server;
  connection->fd = fd;
  connection->secure = tls != NULL;
  connection->bev = bev;
  connection->input = bufferevent_get_input(bev);
  connection->output = bufferevent_get_output(bev);
  connection->timer = evtimer_new(server->base, connection_tick, connection);
  BASE_CHECK(connection->timer != NULL);
  connection->timer_due_ms = connection->write_deadline_ms = HTTP_NEVER;
  name_peer(connection);
  evbuffer_add_cb(connection->output, on_output_changed, connection);
  bufferevent_setcb(bev, on_readable, NULL, on_event, connection);
  TAILQ_INSERT_TAIL(&server->connections, connection, link);
  server->connection_count++;
  server->stats.connections_accepted++;
  /* Nothing said yet: a handshake or a preface is due; a plain connection may be opened ahead of use. */
  const struct http_server_limits *limits = &server->options.limits;
  connection_read_deadline(connection, tls != NULL ? limits->header_timeout_ms : limits->idle_timeout_ms);
  if (!connection->secure) {
    connection->read_event = event_new(server->base, fd, EV_READ | EV_PERSIST, on_socket_readable, connection);
    BASE_CHECK(connection->read_event != NULL);
    evbuffer_unfreeze(connection->input, 0); /* bufferevents freeze their input against others */
  }
  reading_set(connection, true);
  bufferevent_enable(bev, EV_WRITE);
  if (first_bytes > 0 && !connection->secure) {
    evbuffer_add(connection->input, first, first_bytes);
    on_readable(NULL, connection);
  }
  return true;
}

void connection_free(struct http_connection *connection) {
  BASE_CHECK_MAGIC(connection, HTTP_CONNECTION_MAGIC);
  struct http_server *server = connection->server;
  connection->doomed = true;
  if (connection->protocol != NULL)
    connection->protocol->detach(connection, connection->doom_reason);
  http1_release(connection);
  TAILQ_REMOVE(&server->connections, connection, link);
  server->connection_count--;
  evbuffer_remove_cb(connection->output, on_output_changed, connection);
  if (connection->closed_event != NULL)
    event_free(connection->closed_event);
  event_free(connection->timer);
  if (connection->read_event != NULL)
    event_free(connection->read_event);
  bufferevent_setcb(connection->bev, NULL, NULL, NULL, NULL);
  bufferevent_free(connection->bev);
  connection->magic = 0;
  base_free(connection);
  http_server_connection_gone(server);
}
