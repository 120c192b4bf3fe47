/* twin.c: sockets of the HTTP/JSON twin and their connections (I/O thread).
 *
 * A connection gets an HTTP server of its own: that ties every request to the identity that the kernel told at accept,
 * without a second way to look it up. A sweep frees the connections that have ended. */
#include <event2/event.h>
#include <unistd.h>

#include "core/rpc/http/twin_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

enum { SWEEP_MS = 250, CONNECTIONS_MAX = 256, DRAIN_MAX_MS = 600000 };

struct twin_listener {
  struct twin_connection *connections;
  unsigned count;
  struct event *sweep;
  bool ending;
};

/* ---- the core thread's part of a connection ---- */

static void connection_open_on_core(void *argument) {
  struct twin_connection *connection = argument;
  connection->listener->references++;
}

static void connection_close_on_core(void *argument) {
  struct twin_connection *connection = argument;
  core_rpc_channel_close(&connection->channel);
  listener_release(connection->listener);
  base_free(connection);
}

/* ---- I/O thread ---- */

static void connection_end(struct twin_connection *connection) {
  struct core_rpc_listener *listener = connection->listener;
  struct twin_listener *twin = listener->taker;
  BASE_CHECK(connection->server == NULL && connection->calls == 0);
  if (connection->previous != NULL)
    connection->previous->next = connection->next;
  else
    twin->connections = connection->next;
  if (connection->next != NULL)
    connection->next->previous = connection->previous;
  twin->count--;
  if (twin->ending && twin->connections == NULL && twin->sweep != NULL)
    event_free(BASE_TAKE(twin->sweep));
  if (!core_rpc_post(listener->loop, connection_close_on_core, connection))
    base_free(connection); /* the loop has ended; its freeing closes the channels */
}

void twin_call_finished(struct twin_connection *connection) {
  if (--connection->calls == 0 && connection->server == NULL)
    connection_end(connection);
}

static void connection_shut(struct twin_connection *connection) {
  http_server_free(&connection->server);
  if (connection->calls == 0)
    connection_end(connection);
}

static void twin_on_sweep(evutil_socket_t fd, short what, void *argument) {
  struct twin_listener *twin = argument;
  (void)fd;
  (void)what;
  for (struct twin_connection *connection = twin->connections, *next; connection != NULL; connection = next) {
    next = connection->next;
    if (connection->server != NULL && http_server_connection_count(connection->server) == 0)
      connection_shut(connection);
  }
  if (twin->connections != NULL)
    event_add(twin->sweep, &(struct timeval){.tv_usec = SWEEP_MS * 1000});
}

static void connection_on_request(void *context, struct http_request *request) {
  struct twin_connection *connection = context;
  connection->calls++;
  twin_call_begin(connection, request);
}

static const char *connection_render_error(void *context, int status, const struct error *error, const char *path,
                                           struct buf *body) {
  (void)context;
  (void)status;
  (void)path;
  twin_error_json(error, body);
  return "application/json";
}

static void twin_take(struct core_rpc_listener *listener, int fd, const struct core_rpc_peer *identity) {
  struct twin_listener *twin = listener->taker;
  struct core_rpc_loop *loop = listener->loop;
  if (twin->count >= CONNECTIONS_MAX) {
    close(fd);
    return;
  }
  struct twin_connection *connection = BASE_NEW(struct twin_connection);
  connection->listener = listener;
  connection->identity = *identity;
  if (!core_rpc_post(loop, connection_open_on_core, connection)) {
    close(fd);
    base_free(connection);
    return;
  }
  struct http_server_options options;
  http_server_options_init(&options);
  options.on_request = connection_on_request;
  options.render_error = connection_render_error;
  options.context = connection;
  options.limits.body_bytes_max = 2 * (size_t)loop->options.message_max_bytes; /* base64 and escapes */
  options.limits.header_bytes_max = 2 * (size_t)loop->options.metadata_max_bytes;
  connection->server = http_server_create(loop->io.base, &options);
  connection->next = twin->connections;
  if (connection->next != NULL)
    connection->next->previous = connection;
  twin->connections = connection;
  twin->count++;
  (void)http_server_adopt_fd(connection->server, fd, NULL, NULL, 0, NULL); /* refused: the sweep frees it */
  if (twin->sweep == NULL)
    twin->sweep = evtimer_new(loop->io.base, twin_on_sweep, twin);
  BASE_CHECK(twin->sweep != NULL);
  if (!event_pending(twin->sweep, EV_TIMEOUT, NULL))
    event_add(twin->sweep, &(struct timeval){.tv_usec = SWEEP_MS * 1000});
}

/* ---- life ---- */

/* The listener closes, or everything ends. Connections with running calls free themselves when those are finished. */
static void twin_end(struct core_rpc_listener *listener, bool at_once) {
  struct twin_listener *twin = listener->taker;
  twin->ending = true;
  for (struct twin_connection *connection = twin->connections, *next; connection != NULL; connection = next) {
    next = connection->next;
    if (connection->server == NULL)
      continue;
    if (at_once)
      connection_shut(connection);
    else
      http_server_drain(connection->server, DRAIN_MAX_MS, NULL,
                        NULL); /* the loop's grace time ends its calls earlier */
  }
  if (twin->sweep != NULL && twin->connections == NULL)
    event_free(BASE_TAKE(twin->sweep));
}

static void twin_free(struct core_rpc_listener *listener) {
  base_free(listener->taker);
}

struct core_rpc_listener *core_rpc_http_listen(struct core_rpc_loop *loop,
                                               const struct core_rpc_listen_options *options, struct error *err) {
  struct twin_listener *twin = BASE_NEW(struct twin_listener);
  struct core_rpc_listener *listener = listener_open(
      loop,
      &(struct core_rpc_listener){
          .options = *options, .take = twin_take, .end = twin_end, .free_taker = twin_free, .taker = twin},
      err);
  if (listener == NULL)
    base_free(twin);
  return listener;
}
