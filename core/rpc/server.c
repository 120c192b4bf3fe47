/* server.c: which methods exist, and arming gRPC to deliver calls of them. Every registered method has one request
 * armed at any time (more gain nothing, measured), and one generic request answers every other path (T1). When the
 * server shuts down the armed requests come back empty and are not armed again. */
#include <string.h>

#include "core/rpc/core_rpc_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"

struct method_slot {
  struct rpc_tag tag;
  struct core_rpc_loop *loop;
  const struct core_rpc_method *method;
  void *registered;
  struct call_arrival arrival;
  struct method_slot *next;
};

struct unknown_slot {
  struct rpc_tag tag;
  struct core_rpc_loop *loop;
  grpc_call_details details;
  struct call_arrival arrival;
};

void core_rpc_server_register(struct core_rpc_loop *loop, const struct core_rpc_method *table, size_t count) {
  loop_check(loop);
  BASE_CHECK(!loop->started);
  for (size_t i = 0; i < count; i++) {
    struct method_slot *slot = BASE_NEW(struct method_slot);
    slot->loop = loop;
    slot->method = &table[i];
    slot->registered = grpc_server_register_method(
        loop->server, table[i].path, NULL,
        table[i].kind == CORE_RPC_BIDI ? GRPC_SRM_PAYLOAD_NONE : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
    BASE_CHECK(slot->registered != NULL); /* NULL: the path is registered twice */
    slot->next = loop->methods;
    loop->methods = slot;
  }
}

static void method_arm(struct method_slot *slot) {
  struct core_rpc_loop *loop = slot->loop;
  if (loop->phase != LOOP_SERVING)
    return;
  slot->arrival = (struct call_arrival){0};
  grpc_call_error error = grpc_server_request_registered_call(
      loop->server, slot->registered, &slot->arrival.handle, &slot->arrival.deadline, &slot->arrival.metadata,
      slot->method->kind == CORE_RPC_BIDI ? NULL : &slot->arrival.payload, loop->queue, loop->queue, &slot->tag);
  BASE_CHECK(error == GRPC_CALL_OK);
}

static void method_on_call(struct rpc_tag *tag, bool ok) {
  struct method_slot *slot = RPC_OWNER(tag, struct method_slot, tag);
  if (!ok)
    return;
  struct call_arrival arrival = slot->arrival;
  method_arm(slot);
  call_accept(slot->loop, slot->method, &arrival);
}

static void unknown_arm(struct unknown_slot *slot) {
  struct core_rpc_loop *loop = slot->loop;
  if (loop->phase != LOOP_SERVING)
    return;
  slot->arrival = (struct call_arrival){0};
  grpc_call_details_init(&slot->details);
  grpc_call_error error = grpc_server_request_call(loop->server, &slot->arrival.handle, &slot->details,
                                                   &slot->arrival.metadata, loop->queue, loop->queue, &slot->tag);
  BASE_CHECK(error == GRPC_CALL_OK);
}

static void unknown_on_call(struct rpc_tag *tag, bool ok) {
  struct unknown_slot *slot = RPC_OWNER(tag, struct unknown_slot, tag);
  if (!ok) {
    grpc_call_details_destroy(&slot->details);
    return;
  }
  struct call_arrival arrival = slot->arrival;
  arrival.deadline = slot->details.deadline;
  grpc_call_details_destroy(&slot->details);
  unknown_arm(slot);
  call_accept(slot->loop, NULL, &arrival);
}

void server_start(struct core_rpc_loop *loop) {
  grpc_server_start(loop->server);
  for (struct method_slot *slot = loop->methods; slot != NULL; slot = slot->next) {
    slot->tag.complete = method_on_call;
    method_arm(slot);
  }
  loop->unknown = BASE_NEW(struct unknown_slot);
  loop->unknown->loop = loop;
  loop->unknown->tag.complete = unknown_on_call;
  unknown_arm(loop->unknown);
}

void server_free(struct core_rpc_loop *loop) {
  while (loop->methods != NULL) {
    struct method_slot *slot = loop->methods;
    loop->methods = slot->next;
    base_free(slot);
  }
  base_free(loop->unknown);
  loop->unknown = NULL;
}

/* ---- services, for reflection and the HTTP twin ---- */

/* "/package.Service/Method" -> "package.Service" */
static const char *method_service(const struct core_rpc_method *method, size_t *length) {
  const char *service = method->path + 1;
  const char *slash = strchr(service, '/');
  BASE_CHECK(slash != NULL);
  *length = (size_t)(slash - service);
  return service;
}

static bool method_is_of(const struct core_rpc_method *method, const char *service, size_t length) {
  size_t own_length;
  const char *own = method_service(method, &own_length);
  return own_length == length && memcmp(own, service, length) == 0;
}

bool server_has_service(const struct core_rpc_loop *loop, const char *service, size_t length) {
  for (const struct method_slot *slot = loop->methods; slot != NULL; slot = slot->next)
    if (method_is_of(slot->method, service, length))
      return true;
  return false;
}

void server_each_service(const struct core_rpc_loop *loop,
                         void (*visit)(const char *service, size_t length, void *argument), void *argument) {
  for (const struct method_slot *slot = loop->methods; slot != NULL; slot = slot->next) {
    size_t length;
    const char *service = method_service(slot->method, &length);
    bool first = true;
    for (const struct method_slot *before = loop->methods; first && before != slot; before = before->next)
      first = !method_is_of(before->method, service, length);
    if (first)
      visit(service, length, argument);
  }
}

const struct core_rpc_method *server_find_method(const struct core_rpc_loop *loop, const char *path) {
  for (const struct method_slot *slot = loop->methods; slot != NULL; slot = slot->next)
    if (strcmp(slot->method->path, path) == 0)
      return slot->method;
  return NULL;
}
