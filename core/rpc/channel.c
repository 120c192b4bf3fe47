/* channel.c: connections to other servers, each made by us and handed to gRPC as a descriptor: no resolver, no
 * balancer, no connection that gRPC would make anew on its own, perhaps to another process than the one that was asked
 * before (a channel is one life of its peer), and a shorter path for each call. The authority is "localhost", as every
 * gRPC over a Unix socket accepts it. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/rpc/core_rpc_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/str.h"

#define CHANNEL_MAGIC 0xC04ec4a1u
#define LEAVE_MS 1000 /* far longer than it takes to read what is there */

static struct core_rpc_channel *channel_link(struct core_rpc_loop *loop, grpc_channel *handle,
                                             struct socket_tally *tally) {
  struct core_rpc_channel *channel = BASE_NEW(struct core_rpc_channel);
  *channel = (struct core_rpc_channel){
      .magic = CHANNEL_MAGIC, .loop = loop, .handle = handle, .tally = tally, .next = loop->channels};
  if (channel->next != NULL)
    channel->next->previous = channel;
  loop->channels = channel;
  return channel;
}

#define INTEGER_ARGUMENT(key_, value_)                                                                                 \
  { .type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)(key_), .value.integer = (int)(value_) }
#define TEXT_ARGUMENT(key_, value_)                                                                                    \
  { .type = GRPC_ARG_STRING, .key = (char *)(uintptr_t)(key_), .value.string = (char *)(uintptr_t)(value_) }

/* Takes the descriptor. */
static struct core_rpc_channel *channel_from_socket(struct core_rpc_loop *loop, const char *name, int fd,
                                                    int message_max_bytes) {
  grpc_arg list[] = {
      INTEGER_ARGUMENT(GRPC_ARG_ENABLE_CHANNELZ, 0),
      INTEGER_ARGUMENT(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
      INTEGER_ARGUMENT(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0), /* never offered, so never used */
      INTEGER_ARGUMENT(GRPC_ARG_HTTP2_BDP_PROBE, 0),
      INTEGER_ARGUMENT(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, message_max_bytes),
      INTEGER_ARGUMENT(GRPC_ARG_MAX_METADATA_SIZE, loop->options.metadata_max_bytes),
      TEXT_ARGUMENT(GRPC_ARG_DEFAULT_AUTHORITY, "localhost"),
  };
  grpc_channel_args arguments = {.num_args = sizeof(list) / sizeof(list[0]), .args = list};
  grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
  struct socket_tally *tally = socket_tally_begin(fd);
  grpc_channel *handle = grpc_channel_create_from_fd(name, fd, credentials, &arguments);
  grpc_channel_credentials_release(credentials);
  BASE_CHECK(handle != NULL);
  return channel_link(loop, handle, tally);
}

struct core_rpc_channel *core_rpc_channel_create(struct core_rpc_loop *loop, const char *unix_path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  loop_check(loop);
  if (!str_copy(address.sun_path, sizeof(address.sun_path), unix_path)) {
    errno = ENAMETOOLONG;
    return NULL;
  }
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return NULL;
  if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
    int reason = errno;
    close(fd);
    errno = reason;
    return NULL;
  }
  return channel_from_socket(loop, "module", fd, (int)loop->options.message_max_bytes);
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
  return channel_from_socket(loop, "local", pair[1], -1); /* our own server's answers */
}

static struct core_rpc_channel *channel_check(struct core_rpc_channel *channel) {
  BASE_CHECK_MAGIC(channel, CHANNEL_MAGIC);
  return channel;
}

bool core_rpc_channel_is_lost(const struct core_rpc_channel *channel) {
  return socket_tally_is_over(channel->tally);
}

void core_rpc_channel_close(struct core_rpc_channel **channel_handle) {
  struct core_rpc_channel *channel = BASE_TAKE(*channel_handle);
  if (channel == NULL)
    return;
  channel_check(channel);
  core_rpc_timer_cancel(&channel->leave_timer);
  client_calls_abandon(channel);
  if (channel->previous != NULL)
    channel->previous->next = channel->next;
  else
    channel->loop->channels = channel->next;
  if (channel->next != NULL)
    channel->next->previous = channel->previous;
  grpc_channel_destroy(channel->handle);
  socket_tally_release(&channel->tally);
  channel->magic = 0;
  base_free(channel);
}

static void channel_left(void *argument) {
  struct core_rpc_channel *channel = argument;
  channel->leave_timer = NULL;
  core_rpc_channel_close(&channel);
}

void core_rpc_channel_leave(struct core_rpc_channel **channel_handle) {
  struct core_rpc_channel *channel = BASE_TAKE(*channel_handle);
  if (channel == NULL)
    return;
  if (channel_check(channel)->calls != NULL)
    channel->leave_timer = core_rpc_timer_start(channel->loop, LEAVE_MS, channel_left, channel);
  else
    core_rpc_channel_close(&channel);
}

void channel_call_ended(struct core_rpc_channel *channel) {
  if (channel->leave_timer != NULL && channel->calls == NULL)
    core_rpc_channel_close(&channel);
}
