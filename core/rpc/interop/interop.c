/* interop.c: this room's test service as a program, and its client as another, for the interoperability tests.
 *
 *   core_rpc_interop serve <socket> [<descriptor set>]   until SIGTERM; prints "ready"
 *   core_rpc_interop call <socket>                       drives a foreign server of the same service; prints what went
 * wrong */
#include <event2/event.h>
#include <signal.h>
#include <stdlib.h>

#include "core/rpc/core_rpc.h"
#include "core/rpc/test_service.h"
#include "sdk/base/buf.h"

enum { GRACE_MS = 500, CALL_TIMEOUT_MS = 5000 };

static struct buf file_read(const char *path) {
  struct buf content = {0};
  FILE *file = fopen(path, "rb");
  if (file == NULL)
    return content;
  char part[4096];
  for (size_t count; (count = fread(part, 1, sizeof(part), file)) > 0;)
    buf_append(&content, part, count);
  fclose(file);
  return content;
}

static void announce(void *argument) {
  (void)argument;
  puts("ready");
  fflush(stdout);
}

static struct event *signal_event; /* I/O thread */

static void on_signal(evutil_socket_t number, short what, void *loop) {
  (void)number;
  (void)what;
  event_free(signal_event);
  core_rpc_loop_stop(loop, GRACE_MS);
}

static void signals_watch(void *loop) {
  signal_event = evsignal_new(core_rpc_io_base(loop), SIGTERM, on_signal, loop);
  event_add(signal_event, NULL);
}

static int serve(const char *path, const char *descriptor_path) {
  struct error err;
  struct core_rpc_loop *loop = core_rpc_loop_create(NULL);
  struct buf descriptors = {0};
  core_rpc_server_register(loop, test_service_methods, TEST_SERVICE_METHODS);
  core_rpc_health_register(loop);
  core_rpc_health_set(loop, "test.v1.Test", CORE_RPC_HEALTH_NOT_SERVING);
  if (descriptor_path != NULL) {
    descriptors = file_read(descriptor_path);
    core_rpc_reflection_register(loop, (const uint8_t *)descriptors.data, descriptors.length);
  }
  const struct core_rpc_listen_options options = {
      .path = path, .name = "interop", .owner_uid = (uid_t)-1, .owner_gid = (gid_t)-1};
  if (core_rpc_listen(loop, &options, &err) == NULL)
    return EXIT_FAILURE;
  core_rpc_io_post(loop, signals_watch, loop);
  core_rpc_post(loop, announce, NULL);
  core_rpc_loop_run(loop);
  core_rpc_loop_free(&loop);
  buf_free(&descriptors);
  return EXIT_SUCCESS;
}

/* ---- client: one step after the other, each a row ---- */

struct step {
  const char *method, *data;
  enum core_rpc_kind kind;
  int64_t timeout_ms;
  unsigned cancel_after;
  int grpc_status;
  const char *code;
  unsigned messages;
  const char *reply; /* the reply, or the first message */
};

static const struct step steps[] = {
    {"Echo", "hello", CORE_RPC_UNARY, CALL_TIMEOUT_MS, 0, 0, "", 0, "hello"},
    {"Echo", "", CORE_RPC_UNARY, CALL_TIMEOUT_MS, 0, 0, "", 0, ""},
    {"Fail", "x", CORE_RPC_UNARY, CALL_TIMEOUT_MS, 0, 10, "catalog.record.conflict", 0, NULL},
    {"Hold", "", CORE_RPC_UNARY, 200, 0, 4, "deadline.exceeded", 0, NULL},
    {"Nothing", "", CORE_RPC_UNARY, CALL_TIMEOUT_MS, 0, 12, "rpc.method.unknown", 0, NULL},
    {"Count", "1000 10", CORE_RPC_SERVER_STREAM, CALL_TIMEOUT_MS, 0, 0, "", 1000, "xxxxxxxxxx"},
    {"Count", "1000000 10", CORE_RPC_SERVER_STREAM, CALL_TIMEOUT_MS, 5, 1, "call.cancelled", 0, "xxxxxxxxxx"},
    {"Chat", "word", CORE_RPC_BIDI, CALL_TIMEOUT_MS, 0, 0, "", 3, "word"},
};
enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

struct client {
  struct core_rpc_loop *loop;
  struct core_rpc_channel *channel;
  size_t step;
  unsigned messages, failures;
  struct buf reply;
};

static void client_step(struct client *client);

static void on_message(struct core_rpc_client_call *call, const uint8_t *data, size_t length, void *user) {
  struct client *client = user;
  if (client->messages++ == 0)
    buf_append(&client->reply, data, length);
  if (client->messages == steps[client->step].cancel_after)
    core_rpc_client_cancel(call);
}

static void on_done(struct core_rpc_client_call *call, const struct core_rpc_result *result, void *user) {
  struct client *client = user;
  const struct step *step = &steps[client->step];
  (void)call;
  if (result->data != NULL)
    buf_append(&client->reply, result->data, result->length);
  bool as_expected =
      result->grpc_status == step->grpc_status && strcmp(result->err.code, step->code) == 0 &&
      (step->messages == 0 || client->messages == step->messages) &&
      (step->reply == NULL ||
       (client->reply.length == strlen(step->reply) &&
        (client->reply.length == 0 || memcmp(client->reply.data, step->reply, client->reply.length) == 0)));
  if (!as_expected) {
    printf("step %zu (%s): status %d, code \"%s\", %u messages, %zu bytes\n", client->step, step->method,
           result->grpc_status, result->err.code, client->messages, client->reply.length);
    client->failures++;
  }
  client->messages = 0;
  buf_clear(&client->reply);
  if (++client->step < STEPS)
    client_step(client);
  else
    core_rpc_loop_stop(client->loop, 0);
}

static void client_step(struct client *client) {
  static const struct core_rpc_client_events events = {.on_message = on_message, .on_done = on_done};
  const struct step *step = &steps[client->step];
  char *method = base_asprintf("/test.v1.Test/%s", step->method);
  const struct core_rpc_request request = {.method = method,
                                           .kind = step->kind,
                                           .data = step->data,
                                           .length = strlen(step->data),
                                           .timeout_ms = step->timeout_ms,
                                           .events = &events,
                                           .user = client};
  struct core_rpc_client_call *call = core_rpc_client_start(client->channel, &request);
  base_free(method);
  if (step->kind != CORE_RPC_BIDI)
    return;
  for (unsigned i = 0; i < step->messages; i++)
    (void)core_rpc_client_send(call, step->data, strlen(step->data));
  core_rpc_client_half_close(call);
}

static int call(const char *path) {
  struct client client = {.loop = core_rpc_loop_create(NULL)};
  for (int i = 0; i < 1000 && client.channel == NULL; i++) { /* the other side may not listen yet */
    client.channel = core_rpc_channel_create(client.loop, path);
    if (client.channel == NULL)
      usleep(10000);
  }
  if (client.channel == NULL) {
    core_rpc_loop_free(&client.loop);
    return EXIT_FAILURE;
  }
  client_step(&client);
  core_rpc_loop_run(client.loop);
  core_rpc_loop_free(&client.loop);
  buf_free(&client.reply);
  printf("%u of %u steps failed\n", client.failures, (unsigned)STEPS);
  return client.failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argument_count, char **arguments) {
  if (argument_count >= 3 && strcmp(arguments[1], "serve") == 0)
    return serve(arguments[2], argument_count > 3 ? arguments[3] : NULL);
  if (argument_count == 3 && strcmp(arguments[1], "call") == 0)
    return call(arguments[2]);
  fprintf(stderr, "usage: core_rpc_interop serve|call <socket> [<descriptor set>]\n");
  return 2;
}
