/* client.c: calls of core.admin.v1 on core/admin.sock, one at a time. Messages are protobuf-c; what the answer is comes
 * from the registry of methods. The loop runs only while a call does. */
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#include "sdk/base/str.h"
#include "sdk/wire/wire_registry.h"
#include "supervisor/ctl/ctl_internal.h"

#define MESSAGE_BYTES_MAX (64u * 1024 * 1024)
#define SOCKET_PATH_MAX 107

static void connect_to_core(struct ctl *ctl) {
  if (ctl->channel)
    return;
  const struct rpc_channel_options options = {.message_bytes_max = MESSAGE_BYTES_MAX, .backoff_max_ms = 500};
  ctl->base = event_base_new();
  if (!ctl->base)
    abort();
  ctl->socket_path = base_asprintf("%s/core/admin.sock", ctl_run_dir(ctl));
  ctl->channel = rpc_channel_create(ctl->base, ctl->socket_path, &options);
}

void ctl_client_close(struct ctl *ctl) {
  rpc_channel_close(&ctl->channel);
  if (ctl->base)
    event_base_free(ctl->base);
  ctl->base = NULL;
  base_free(BASE_TAKE(ctl->socket_path));
}

bool ctl_error_is_unreachable(const struct error *err) {
  static const enum error_code codes[] = {
      ERR_RPC_CONNECT_FAILED,           ERR_RPC_PEER_GONE,          ERR_RPC_PROTOCOL, ERR_DEADLINE_EXCEEDED,
      ERR_RPC_STATUS_DEADLINE_EXCEEDED, ERR_RPC_STATUS_UNAVAILABLE, ERR_RPC_REFUSED};
  for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
    if (error_is(err, codes[i]))
      return true;
  return false;
}

/* The transport does not know which socket it was, and an operator wants to. A deadline is noticed here or at the other
 * side, whoever is first. */
static void explain(const struct ctl *ctl, const struct error *from, struct error *err) {
  *err = *from;
  if (strlen(ctl->socket_path) > SOCKET_PATH_MAX)
    error_set(err, ERR_RPC_CONNECT_FAILED, "the run directory's path is too long: a socket's has at most %d bytes",
              SOCKET_PATH_MAX);
  else if (error_is(from, ERR_RPC_CONNECT_FAILED))
    error_set(err, ERR_RPC_CONNECT_FAILED, "the core cannot be reached at %s; is the gateway running?",
              ctl->socket_path);
  else if (error_is(from, ERR_DEADLINE_EXCEEDED) || error_is(from, ERR_RPC_STATUS_DEADLINE_EXCEEDED))
    error_set(err, ERR_DEADLINE_EXCEEDED, "the core did not answer within %u ms; see --timeout", ctl->timeout_ms);
}

struct exchange {
  const ProtobufCMessageDescriptor *output;
  struct rpc_call *call;
  ctl_message_visit *visit;
  void *arg;
  ProtobufCMessage *reply;
  struct rpc_status status;
  bool done;
};

static void decode(struct exchange *exchange, const uint8_t *bytes, size_t length, ProtobufCMessage **message) {
  *message = protobuf_c_message_unpack(exchange->output, NULL, length, bytes);
  if (!*message) {
    exchange->status.code = RPC_INTERNAL;
    error_set(&exchange->status.error, ERR_RPC_MESSAGE_MALFORMED, "the core's answer cannot be understood");
  }
}

static void unary_done(void *arg, const struct rpc_status *status, const uint8_t *reply, size_t reply_length) {
  struct exchange *exchange = arg;
  exchange->status = *status;
  exchange->done = true;
  if (status->code == RPC_OK)
    decode(exchange, reply, reply_length, &exchange->reply);
}

static void stream_message(void *arg, const uint8_t *bytes, size_t length) {
  struct exchange *exchange = arg;
  ProtobufCMessage *message;
  decode(exchange, bytes, length, &message);
  if (!message || !exchange->visit(exchange->arg, message)) {
    rpc_call_cancel(exchange->call);
    exchange->done = true;
  }
  ctl_message_free(message);
}

static void stream_done(void *arg, const struct rpc_status *status) {
  struct exchange *exchange = arg;
  exchange->status = *status;
  exchange->done = true;
}

static const struct wire_method *find(const char *method) {
  char path[128];
  snprintf(path, sizeof(path), "/core.admin.v1.%s", method);
  const struct wire_method *found = wire_method_find(path);
  if (!found)
    abort(); /* names are literals of this program */
  return found;
}

static uint8_t *pack(const ProtobufCMessage *request, size_t *length) {
  uint8_t *bytes = base_alloc(protobuf_c_message_get_packed_size(request) + 1);
  *length = protobuf_c_message_pack(request, bytes);
  return bytes;
}

static bool finish(struct ctl *ctl, struct exchange *exchange, struct error *err) {
  while (!exchange->done)
    if (event_base_loop(ctl->base, EVLOOP_ONCE) != 0)
      return error_set(err, ERR_INTERNAL, NULL);
  if (!error_is_set(&exchange->status.error))
    return true;
  explain(ctl, &exchange->status.error, err);
  return false;
}

bool ctl_call(struct ctl *ctl, const char *method, const ProtobufCMessage *request, ProtobufCMessage **reply,
              struct error *err) {
  connect_to_core(ctl);
  const struct wire_method *found = find(method);
  struct exchange exchange = {.output = found->output};
  size_t length;
  uint8_t *bytes = pack(request, &length);
  rpc_call_unary(ctl->channel, found->path, bytes, length, &(struct rpc_call_options){.deadline_ms = ctl->timeout_ms},
                 unary_done, &exchange);
  base_free(bytes);
  bool ok = finish(ctl, &exchange, err);
  *reply = exchange.reply;
  return ok;
}

void *ctl_call_or_fail(struct ctl *ctl, const char *method, const ProtobufCMessage *request, int *status) {
  ProtobufCMessage *reply = NULL;
  struct error err = {0};
  *status = ctl_call(ctl, method, request, &reply, &err) ? CTL_EXIT_OK : ctl_fail(&err);
  return reply;
}

bool ctl_stream(struct ctl *ctl, const char *method, const ProtobufCMessage *request, uint32_t deadline_ms,
                ctl_message_visit *visit, void *arg, struct error *err) {
  static const struct rpc_stream_handler handler = {.on_message = stream_message, .on_status = stream_done};
  connect_to_core(ctl);
  const struct wire_method *found = find(method);
  struct exchange exchange = {.output = found->output, .visit = visit, .arg = arg};
  size_t length;
  uint8_t *bytes = pack(request, &length);
  exchange.call = rpc_call_open(ctl->channel, found->path, &(struct rpc_call_options){.deadline_ms = deadline_ms},
                                &handler, &exchange);
  rpc_call_send(exchange.call, bytes, length);
  rpc_call_half_close(exchange.call);
  base_free(bytes);
  return finish(ctl, &exchange, err);
}

void ctl_sleep(struct ctl *ctl, uint32_t ms) {
  connect_to_core(ctl);
  struct timeval time = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};
  event_base_loopexit(ctl->base, &time);
  event_base_loop(ctl->base, EVLOOP_NO_EXIT_ON_EMPTY);
}
