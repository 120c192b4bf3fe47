/* server.c: listeners, accepting, draining, counters. Owns the lists of connections and requests. Accepting stops for a
 * moment when descriptors run out, and goes on by itself. */
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "sdk/http/http_internal.h"

#define ACCEPT_BURST 64
#define ACCEPT_PAUSE_MS 100

/* Writing to a peer that has gone must be an error, not the end of the process. */
static void ignore_sigpipe(void) {
  struct sigaction action;
  if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL)
    signal(SIGPIPE, SIG_IGN);
}

struct event_base *http_event_base_new(void) {
  ignore_sigpipe();
  struct event_config *config = event_config_new();
  BASE_CHECK(config != NULL);
  event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
  struct event_base *base = event_base_new_with_config(config);
  BASE_CHECK(base != NULL);
  event_config_free(config);
  return base;
}

void http_server_options_init(struct http_server_options *options) {
  *options = (struct http_server_options){0};
#define HTTP_LIMIT(name, type, default_value, meaning) options->limits.name = (default_value);
#include "sdk/http/http_server_limits.def"
#undef HTTP_LIMIT
}

struct http_server *http_server_create(struct event_base *base, const struct http_server_options *options) {
  BASE_CHECK(base != NULL && options->on_request != NULL);
  struct http_server *server = BASE_NEW(struct http_server);
  server->magic = HTTP_SERVER_MAGIC;
  server->base = base;
  server->options = *options;
  TAILQ_INIT(&server->connections);
  TAILQ_INIT(&server->requests);
  TAILQ_INIT(&server->spare);
  return server;
}

const char *http_server_date(struct http_server *server) {
  int64_t now = clock_wall_ms() / 1000;
  if (now != server->date_second) {
    server->date_second = now;
    time_t seconds = (time_t)now;
    struct tm parts;
    gmtime_r(&seconds, &parts);
    strftime(server->date, sizeof(server->date), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  }
  return server->date;
}

const char *http_server_render_error(struct http_server *server, int status, const struct error *error,
                                     const char *path, struct buf *body) {
  if (server->options.render_error != NULL)
    return server->options.render_error(server->options.context, status, error, path, body);
  buf_printf(body, "{\"type\":\"about:blank\",\"title\":");
  buf_append_json_string(body, http_status_reason(status), strlen(http_status_reason(status)));
  buf_printf(body, ",\"status\":%d,\"detail\":", status);
  buf_append_json_string(body, error->message, strlen(error->message));
  buf_append_text(body, ",\"code\":");
  buf_append_json_string(body, error->code, strlen(error->code));
  buf_printf(body, ",\"retryable\":%s", error->retryable ? "true" : "false");
  if (error->trace_id[0] != '\0') {
    buf_append_text(body, ",\"trace_id\":");
    buf_append_json_string(body, error->trace_id, strlen(error->trace_id));
  }
  buf_append_char(body, '}');
  return "application/problem+json";
}

/* One connection too many: a whole 503 in one packet, then goodbye. Over TLS there is nobody to say it to. */
static void turn_away(struct http_server *server, int fd, bool secure) {
  server->stats.connections_refused++;
  if (!secure) {
    struct error error;
    error_set(&error, ERR_HTTP_CONNECTION_LIMIT, NULL);
    struct buf body = {0};
    const char *type = http_server_render_error(server, 503, &error, NULL, &body);
    struct buf reply = {0};
    buf_printf(&reply,
               "HTTP/1.1 503 Service Unavailable\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
               "Retry-After: 1\r\nConnection: close\r\n\r\n",
               http_server_date(server), type, body.length);
    buf_append(&reply, body.data, body.length);
    send(fd, reply.data, reply.length, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(fd, SHUT_WR);
    char waste[4096]; /* unread bytes would turn the close into a reset that overtakes the reply */
    while (recv(fd, waste, sizeof(waste), MSG_DONTWAIT) > 0)
      ;
    buf_free(&reply);
    buf_free(&body);
  }
  close(fd);
}

static void on_resume(evutil_socket_t fd, short what, void *context) {
  struct http_listener *listener = context;
  (void)fd, (void)what;
  event_add(listener->event, NULL);
}

static void on_accept(evutil_socket_t fd, short what, void *context) {
  struct http_listener *listener = context;
  struct http_server *server = listener->server;
  (void)what;
  for (int i = 0; i < ACCEPT_BURST; i++) {
    int client = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        log_event(LOG_ERROR, "http", "accepting paused: no descriptors or memory", LOG_INT("errno", errno));
        struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
        event_del(listener->event);
        event_add(listener->resume, &pause);
        return;
      }
      if (errno == ECONNABORTED || errno == EINTR)
        continue;
      return;
    }
    if (server->connection_count >= server->options.limits.connections_max)
      turn_away(server, client, listener->tls != NULL);
    else
      connection_create(server, client, listener->tls, NULL, 0);
  }
}

bool http_server_listen_fd(struct http_server *server, int fd, struct http_tls *tls, struct error *err) {
  BASE_CHECK_MAGIC(server, HTTP_SERVER_MAGIC);
  int listening = 0;
  socklen_t length = sizeof(listening);
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0 || listening == 0)
    return error_set(err, ERR_IO, "The descriptor is not a listening socket.");
  evutil_make_socket_nonblocking(fd);
  struct http_listener *listener = BASE_NEW(struct http_listener);
  listener->server = server;
  listener->tls = tls;
  listener->fd = fd;
  listener->event = event_new(server->base, fd, EV_READ | EV_PERSIST, on_accept, listener);
  listener->resume = evtimer_new(server->base, on_resume, listener);
  BASE_CHECK(listener->event != NULL && listener->resume != NULL);
  listener->next = server->listeners;
  server->listeners = listener;
  event_add(listener->event, NULL);
  return true;
}

bool http_server_adopt_fd(struct http_server *server, int fd, struct http_tls *tls, const void *already_read,
                          size_t already_read_bytes, struct error *err) {
  BASE_CHECK_MAGIC(server, HTTP_SERVER_MAGIC);
  if (server->draining) {
    close(fd);
    return error_set(err, ERR_MODULE_DRAINING, NULL);
  }
  if (server->connection_count >= server->options.limits.connections_max) {
    turn_away(server, fd, tls != NULL);
    return error_set(err, ERR_HTTP_CONNECTION_LIMIT, NULL);
  }
  if (already_read_bytes > server->options.limits.header_bytes_max || (tls != NULL && already_read_bytes > 0)) {
    close(fd);
    return error_set(err, ERR_IO, NULL);
  }
  if (!connection_create(server, fd, tls, already_read, already_read_bytes))
    return error_set(err, ERR_IO, NULL);
  return true;
}

static void close_listeners(struct http_server *server) {
  while (server->listeners != NULL) {
    struct http_listener *listener = server->listeners;
    server->listeners = listener->next;
    event_free(listener->event);
    event_free(listener->resume);
    close(listener->fd);
    base_free(listener);
  }
}

static void close_connections(struct http_server *server) {
  struct http_connection *connection;
  while ((connection = TAILQ_FIRST(&server->connections)) != NULL) {
    connection->doom_reason = HTTP_CLOSE_SHUTDOWN;
    connection_free(connection);
  }
}

/* Runs at the deadline, and as soon as the last connection is gone. */
static void on_drain_timer(evutil_socket_t fd, short what, void *context) {
  struct http_server *server = context;
  (void)fd, (void)what;
  close_connections(server);
  void (*on_drained)(void *) = server->on_drained;
  server->on_drained = NULL;
  if (on_drained != NULL)
    on_drained(server->drained_context);
}

void http_server_connection_gone(struct http_server *server) {
  if (server->draining && server->connection_count == 0 && server->on_drained != NULL)
    event_active(server->drain_timer, EV_TIMEOUT, 0);
}

void http_server_drain(struct http_server *server, int64_t deadline_ms, void (*on_drained)(void *context),
                       void *context) {
  BASE_CHECK_MAGIC(server, HTTP_SERVER_MAGIC);
  if (deadline_ms < 0)
    deadline_ms = 0;
  int64_t due = clock_monotonic_ms() + deadline_ms;
  if (server->draining && due > server->drain_deadline_ms)
    return;
  struct timeval timeout = {.tv_sec = deadline_ms / 1000, .tv_usec = deadline_ms % 1000 * 1000};
  if (!server->draining) {
    server->on_drained = on_drained;
    server->drained_context = context;
    server->drain_timer = evtimer_new(server->base, on_drain_timer, server);
    BASE_CHECK(server->drain_timer != NULL);
  }
  server->draining = true;
  server->drain_deadline_ms = due;
  event_add(server->drain_timer, &timeout);
  close_listeners(server);
  struct http_connection *connection;
  TAILQ_FOREACH(connection, &server->connections, link) {
    if (connection->protocol != NULL)
      connection->protocol->drain(connection);
    else if (!server->handing_over) /* its first request may be on the way */
      connection_doom(connection, HTTP_CLOSE_SHUTDOWN);
  }
  if (server->connection_count == 0)
    event_active(server->drain_timer, EV_TIMEOUT, 0);
}

void http_server_hand_over(struct http_server *server, int64_t deadline_ms, void (*on_drained)(void *context),
                           void *context) {
  BASE_CHECK_MAGIC(server, HTTP_SERVER_MAGIC);
  server->handing_over = true;
  http_server_drain(server, deadline_ms, on_drained, context);
}

void http_server_free(struct http_server **pointer) {
  struct http_server *server = *pointer;
  if (server == NULL)
    return;
  BASE_CHECK_MAGIC(server, HTTP_SERVER_MAGIC);
  *pointer = NULL;
  server->on_drained = NULL;
  close_listeners(server);
  close_connections(server);
  struct http_request *request;
  while ((request = TAILQ_FIRST(&server->requests)) != NULL) { /* still owned by handlers */
    TAILQ_REMOVE(&server->requests, request, link);
    request->server = NULL;
  }
  while ((request = TAILQ_FIRST(&server->spare)) != NULL) {
    TAILQ_REMOVE(&server->spare, request, link);
    arena_free(&request->arena);
    buf_free(&request->body);
    base_free(request);
  }
  if (server->drain_timer != NULL)
    event_free(server->drain_timer);
  buf_free(&server->scratch);
  buf_free(&server->frames);
  server->magic = 0;
  base_free(server);
}

size_t http_server_in_flight(const struct http_server *server) {
  return server->in_flight;
}

size_t http_server_connection_count(const struct http_server *server) {
  return server->connection_count;
}

void http_server_stats_get(const struct http_server *server, struct http_server_stats *stats) {
  *stats = server->stats;
}
