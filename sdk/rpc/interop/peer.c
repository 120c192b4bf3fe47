/* peer.c: our side of the interoperability test: `peer server <socket>` serves the test service until its standard
 * input ends; `peer client <socket>` calls another implementation's one, checks what comes and exits 0 when all is
 * right. */
#include <stdio.h>
#include <stdlib.h>

#include "sdk/rpc/rpc_test_support.h"

static struct event_base *base;
static int failures;

static void expect(bool condition, const char *what) {
  printf("%s %s\n", condition ? "ok" : "FAILED", what);
  failures += !condition;
}

static void input_ended(evutil_socket_t fd, short what, void *arg) {
  (void)what, (void)arg;
  char byte;
  if (read((int)fd, &byte, 1) <= 0)
    event_base_loopbreak(base);
}

static int serve(const char *path) {
  struct error err;
  struct rpc_server *server = rpc_server_create(base, NULL);
  rpc_server_register(server, support_methods, SUPPORT_METHOD_COUNT, NULL);
  struct rpc_health *health = rpc_health_create(server);
  rpc_health_set(health, "", RPC_HEALTH_SERVING);
  if (!rpc_server_listen_unix(server, path, 0600, &err)) {
    fprintf(stderr, "%s\n", err.message);
    return 1;
  }
  struct event *input = event_new(base, 0, EV_READ | EV_PERSIST, input_ended, NULL);
  event_add(input, NULL);
  puts("ready");
  fflush(stdout);
  event_base_dispatch(base);
  event_free(input);
  rpc_server_close(&server);
  rpc_health_free(&health);
  return 0;
}

static void wait_for(struct support_result *result) {
  while (!result->done)
    event_base_loop(base, EVLOOP_ONCE);
}

static void unary(struct rpc_channel *channel, const char *method, const void *request, size_t length,
                  uint32_t deadline_ms, struct support_result *result) {
  buf_free(&result->reply);
  *result = (struct support_result){0};
  rpc_call_unary(channel, method, request, length,
                 &(struct rpc_call_options){.wait_for_ready = true, .deadline_ms = deadline_ms}, support_unary_done,
                 result);
  wait_for(result);
}

static void stream(struct rpc_channel *channel, const char *method, const char *first, unsigned copies,
                   struct support_result *result) {
  buf_free(&result->reply);
  *result = (struct support_result){0};
  struct rpc_call *call =
      rpc_call_open(channel, method, &(struct rpc_call_options){.deadline_ms = 10000}, &support_stream_handler, result);
  for (unsigned i = 0; i < copies; i++)
    rpc_call_send(call, (const uint8_t *)first, strlen(first));
  rpc_call_half_close(call);
  wait_for(result);
}

static int call(const char *path) {
  struct rpc_channel *channel = rpc_channel_create(base, path, NULL);
  struct support_result result = {0};
  static uint8_t large[(4 << 20) - 100];
  memset(large, 'l', sizeof(large));
  unary(channel, "/test.Echo/Unary", "hello", 5, 10000, &result);
  expect(result.status.code == RPC_OK && str_equal(result.reply.data, "hello"), "unary");
  unary(channel, "/test.Echo/Unary", large, sizeof(large), 10000, &result);
  expect(result.status.code == RPC_OK && result.reply.length == sizeof(large), "large message");
  unary(channel, "/test.Echo/Fail", "", 0, 10000, &result);
  expect(result.status.code == RPC_RESOURCE_EXHAUSTED && str_equal(result.status.error.code, "rate_limit.exceeded") &&
             result.status.error.retry_after_ms == 1500 && result.status.error.origin == ERROR_ORIGIN_PLUGIN,
         "status details");
  unary(channel, "/test.Echo/Nope", "", 0, 10000, &result);
  expect(result.status.code == RPC_UNIMPLEMENTED, "unknown method");
  unary(channel, "/test.Echo/Hang", "", 0, 100, &result);
  expect(result.status.code == RPC_DEADLINE_EXCEEDED, "deadline");
  stream(channel, "/test.Echo/Stream", "1000 100", 1, &result);
  expect(result.status.code == RPC_OK && result.messages == 1000 && result.reply.length == 100000, "server stream");
  stream(channel, "/test.Echo/Bidi", "again", 50, &result);
  expect(result.status.code == RPC_OK && result.messages == 50, "bidirectional stream");
  unary(channel, "/test.Echo/Gzip", "", 0, 10000, &result);
  bool refused =
      result.status.code == RPC_UNIMPLEMENTED && str_equal(result.status.error.code, "rpc.compression.unsupported");
  /* A server that asks first what the client can read (Go's) sends it plain; the caller says so. */
  bool plain = getenv("INTEROP_SERVER_ASKS_FIRST") && result.status.code == RPC_OK && result.reply.length == 1000;
  expect(refused || plain, "compressed answer is refused, or not sent");
  buf_free(&result.reply);
  rpc_channel_close(&channel);
  return failures == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: peer server|client <socket>\n");
    return 2;
  }
  base = event_base_new();
  int status = str_equal(argv[1], "server") ? serve(argv[2]) : call(argv[2]);
  event_base_free(base);
  return status;
}
