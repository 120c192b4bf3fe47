/* rpc_test_fixture.h: one server with the support methods and health, one channel to it, on a Unix socket of its own;
 * for the test files that need a living pair. Included once per test program. */
#ifndef GATEHOUSE_RPC_TEST_FIXTURE_H
#define GATEHOUSE_RPC_TEST_FIXTURE_H

#include <check.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "sdk/base/secret.h"
#include "sdk/rpc/rpc_test_support.h"

static char directory[] = "/tmp/rpc_test_XXXXXX";
static char path[64];
static struct event_base *base;
static struct rpc_server *server;
static struct rpc_channel *channel;
static struct rpc_health *health;
static struct support_result result;
static unsigned connected, disconnected;

static void on_state(bool is_connected, void *arg) {
  (void)arg;
  connected += is_connected;
  disconnected += !is_connected;
}

static void server_start(const struct rpc_server_options *options) {
  struct error err;
  server = rpc_server_create(base, options);
  rpc_server_register(server, support_methods, SUPPORT_METHOD_COUNT, NULL);
  health = rpc_health_create(server);
  ck_assert_msg(rpc_server_listen_unix(server, path, 0600, &err), "%s", err.message);
}

static void setup(void) {
  str_copy(directory, sizeof(directory), "/tmp/rpc_test_XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(directory));
  snprintf(path, sizeof(path), "%s/s.sock", directory);
  base = event_base_new();
  server_start(NULL);
  channel = rpc_channel_create(base, path, &(struct rpc_channel_options){.on_state = on_state});
  result = (struct support_result){0};
  support_cancelled = support_handled = connected = disconnected = 0;
  support_streamed = 0;
}

static void server_stop(void) {
  rpc_server_close(&server);
  rpc_health_free(&health);
}

static void teardown(void) {
  rpc_channel_close(&channel);
  server_stop();
  buf_free(&result.reply);
  event_base_free(base);
  rmdir(directory);
}

static void call_unary(const char *method, const void *request, size_t length, const struct rpc_call_options *options) {
  buf_free(&result.reply);
  result = (struct support_result){0};
  rpc_call_unary(channel, method, request, length, options, support_unary_done, &result);
  ck_assert(!result.done);
  SUPPORT_RUN_UNTIL(base, result.done);
}

#endif
