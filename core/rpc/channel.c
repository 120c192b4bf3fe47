/* channel.c: connections to other servers. Retries are off (T12: deadlines stay), connections are not shared between
 * channels, the reconnect back-off is short because the other side is on this machine (T9), and the authority is
 * "localhost", as every gRPC over a Unix socket accepts it. */
#include <limits.h>

#include <sys/socket.h>
#include <unistd.h>

#include "core/rpc/core_rpc_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

#define CHANNEL_MAGIC 0xC04ec4a1u

enum {
  RECONNECT_MIN_MS = 50,
  RECONNECT_MAX_MS = 100,
  CONNECT_TIMEOUT_MS = 5000, /* a busy peer may take its time to accept; a dead one fails at once */
};

static struct core_rpc_channel *channel_link(struct core_rpc_loop *loop, grpc_channel *handle) {
  struct core_rpc_channel *channel = BASE_NEW(struct core_rpc_channel);
  *channel = (struct core_rpc_channel){.magic = CHANNEL_MAGIC, .loop = loop, .handle = handle, .next = loop->channels};
  if (channel->next != NULL)
    channel->next->previous = channel;
  loop->channels = channel;
  return channel;
}

#define INTEGER_ARGUMENT(key_, value_)                                                                                 \
  { .type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)(key_), .value.integer = (int)(value_) }
#define TEXT_ARGUMENT(key_, value_)                                                                                    \
  { .type = GRPC_ARG_STRING, .key = (char *)(uintptr_t)(key_), .value.string = (char *)(uintptr_t)(value_) }

struct core_rpc_channel *core_rpc_channel_create(struct core_rpc_loop *loop, const char *unix_path,
                                                 const struct core_rpc_channel_options *options) {
  loop_check(loop);
  uint32_t min_ms = options != NULL && options->reconnect_min_ms != 0 ? options->reconnect_min_ms : RECONNECT_MIN_MS;
  uint32_t max_ms = options != NULL && options->reconnect_max_ms != 0 ? options->reconnect_max_ms : RECONNECT_MAX_MS;
  grpc_arg list[] = {
      INTEGER_ARGUMENT(GRPC_ARG_ENABLE_RETRIES, 0),
      INTEGER_ARGUMENT(GRPC_ARG_ENABLE_CHANNELZ, 0),
      INTEGER_ARGUMENT(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
      INTEGER_ARGUMENT(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0), /* never offered, so never used */
      INTEGER_ARGUMENT(GRPC_ARG_HTTP2_BDP_PROBE, 0),
      INTEGER_ARGUMENT(GRPC_ARG_CLIENT_IDLE_TIMEOUT_MS, INT_MAX),
      INTEGER_ARGUMENT(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
      INTEGER_ARGUMENT(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, min_ms),
      INTEGER_ARGUMENT(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, CONNECT_TIMEOUT_MS), /* named so; it bounds one attempt */
      INTEGER_ARGUMENT(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, max_ms),
      INTEGER_ARGUMENT(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, loop->options.message_max_bytes),
      INTEGER_ARGUMENT(GRPC_ARG_MAX_METADATA_SIZE, loop->options.metadata_max_bytes),
      TEXT_ARGUMENT(GRPC_ARG_DEFAULT_AUTHORITY, "localhost"),
  };
  grpc_channel_args arguments = {.num_args = sizeof(list) / sizeof(list[0]), .args = list};
  char *target = base_asprintf("unix:%s", unix_path);
  grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
  grpc_channel *handle = grpc_channel_create(target, credentials, &arguments);
  grpc_channel_credentials_release(credentials);
  base_free(target);
  BASE_CHECK(handle != NULL);
  return channel_link(loop, handle);
}

struct core_rpc_channel *channel_create_local(struct core_rpc_loop *loop, struct core_rpc_listener *listener,
                                              const struct core_rpc_peer *identity) {
  int pair[2];
  if (loop->phase != LOOP_SERVING || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
    return NULL;
  if (!peer_connect(listener, pair[0], identity)) {
    close(pair[1]);
    return NULL;
  }
  grpc_arg list[] = {
      INTEGER_ARGUMENT(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1), /* our own server's answers */
      INTEGER_ARGUMENT(GRPC_ARG_MAX_METADATA_SIZE, loop->options.metadata_max_bytes),
      TEXT_ARGUMENT(GRPC_ARG_DEFAULT_AUTHORITY, "localhost"),
  };
  grpc_channel_args arguments = {.num_args = sizeof(list) / sizeof(list[0]), .args = list};
  grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
  grpc_channel *handle = grpc_channel_create_from_fd("local", pair[1], credentials, &arguments);
  grpc_channel_credentials_release(credentials);
  BASE_CHECK(handle != NULL);
  return channel_link(loop, handle);
}

void core_rpc_channel_reconnect(struct core_rpc_channel *channel) {
  BASE_CHECK_MAGIC(channel, CHANNEL_MAGIC);
  grpc_channel_reset_connect_backoff(channel->handle);
}

void core_rpc_channel_close(struct core_rpc_channel **channel_handle) {
  struct core_rpc_channel *channel = BASE_TAKE(*channel_handle);
  if (channel == NULL)
    return;
  BASE_CHECK_MAGIC(channel, CHANNEL_MAGIC);
  client_calls_abandon(channel);
  if (channel->previous != NULL)
    channel->previous->next = channel->next;
  else
    channel->loop->channels = channel->next;
  if (channel->next != NULL)
    channel->next->previous = channel->previous;
  grpc_channel_destroy(channel->handle);
  channel->magic = 0;
  base_free(channel);
}
