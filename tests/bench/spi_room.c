/* spi_room.c: core/rpc with nothing around it, as a server of echoes: what the room costs over bare gRPC C core.
 *
 *   spi_room serve PATH    until killed */
#include <stdio.h>
#include <stdlib.h>

#include "core/rpc/core_rpc.h"
#include "sdk/base/str.h"
#include "tests/bench/measure.h"

static void echo(struct core_rpc_call *call, void *user) {
  uint8_t reply[MEASURE_REPLY_BYTES];
  size_t length;
  (void)user;
  const uint8_t *request = core_rpc_call_request(call, &length);
  measure_reply_fill(reply, length > 0 ? request[0] : 0);
  core_rpc_call_reply(call, reply, sizeof(reply));
}

static void announce(void *argument) {
  (void)argument;
  puts("ready");
  fflush(stdout);
}

int main(int argc, char **argv) {
  static const struct core_rpc_method methods[] = {{MEASURE_METHOD, CORE_RPC_UNARY, echo, NULL}};
  struct error err;
  if (argc != 3 || !str_equal(argv[1], "serve")) {
    fputs("usage: spi_room serve PATH\n", stderr);
    return 2;
  }
  struct core_rpc_loop *loop = core_rpc_loop_create(NULL);
  core_rpc_server_register(loop, methods, 1);
  const struct core_rpc_listen_options options = {
      .path = argv[2], .name = "bench", .owner_uid = (uid_t)-1, .owner_gid = (gid_t)-1};
  if (core_rpc_listen(loop, &options, &err) == NULL) {
    fprintf(stderr, "%s\n", err.message);
    return EXIT_FAILURE;
  }
  core_rpc_post(loop, announce, NULL);
  core_rpc_loop_run(loop);
  core_rpc_loop_free(&loop);
  return EXIT_SUCCESS;
}
