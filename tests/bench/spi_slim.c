/* spi_slim.c: sdk/rpc with nothing around it, as the server of echoes and as their client.
 *
 *   spi_slim serve PATH    until killed
 *   spi_slim call PATH     commands on standard input (measure.h) against any echo server */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

#include "sdk/base/str.h"
#include "sdk/rpc/rpc.h"
#include "tests/bench/spi_run.h"

static void echo(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  uint8_t reply[MEASURE_REPLY_BYTES];
  (void)arg;
  measure_reply_fill(reply, length > 0 ? message[0] : 0);
  rpc_server_call_reply(call, reply, sizeof(reply));
}

static int serve(const char *path) {
  static const struct rpc_method methods[] = {{MEASURE_METHOD, RPC_METHOD_UNARY, echo}};
  struct event_base *base = event_base_new();
  struct rpc_server *server = rpc_server_create(base, NULL);
  struct error err;
  rpc_server_register(server, methods, 1, NULL);
  if (!rpc_server_listen_unix(server, path, 0600, &err)) {
    fprintf(stderr, "%s\n", err.message);
    return EXIT_FAILURE;
  }
  puts("ready");
  fflush(stdout);
  return event_base_dispatch(base);
}

struct client {
  struct event_base *base;
  struct rpc_channel *channel;
  bool done;
};

static void call_done(void *arg, const struct rpc_status *status, const uint8_t *reply, size_t length) {
  struct spi_run_call *call = arg;
  spi_run_call_ended(call, status->code == RPC_OK && measure_reply_is_right(reply, length, call->seed));
}

static void call_start(struct spi_run_call *call, void *arg) {
  struct client *client = arg;
  uint8_t request[MEASURE_REQUEST_BYTES] = {call->seed};
  rpc_call_unary(client->channel, MEASURE_METHOD, request, sizeof(request), NULL, call_done, call);
}

static void run_done(struct measure *measure, void *arg) {
  struct client *client = arg;
  (void)measure;
  client->done = true;
}

static void run(struct measure *measure, void *arg) {
  struct client *client = arg;
  client->done = false;
  spi_run_begin(client->base, measure, call_start, run_done, client);
  while (!client->done)
    event_base_loop(client->base, EVLOOP_ONCE);
}

int main(int argc, char **argv) {
  if (argc == 3 && str_equal(argv[1], "serve"))
    return serve(argv[2]);
  if (argc != 3 || !str_equal(argv[1], "call")) {
    fputs("usage: spi_slim serve|call PATH\n", stderr);
    return 2;
  }
  struct client client = {.base = event_base_new()};
  client.channel = rpc_channel_create(client.base, argv[2], NULL);
  int status = measure_serve_commands(run, &client);
  rpc_channel_close(&client.channel);
  event_base_free(client.base);
  return status;
}
