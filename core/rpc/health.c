/* health.c: grpc.health.v1.Health (LIF-4), so that stock probes work. Check of an unknown service is NOT_FOUND; Watch
 * of one answers SERVICE_UNKNOWN and goes on, as the protocol says. A slow watcher gets the latest status only. */
#include <string.h>

#include "core/rpc/core_rpc_internal.h"
#include "core/rpc/protobuf.h"
#include "sdk/base/alloc.h"
#include "sdk/base/buf.h"
#include "sdk/base/str.h"

enum { REQUEST_SERVICE = 1, RESPONSE_STATUS = 1, STATUS_SERVICE_UNKNOWN = 3, SERVICE_NAME_MAX = 256 };

struct health_service {
  char *name;
  int status;
  struct health_service *next;
};

struct health_watcher {
  struct core_rpc_loop *loop;
  struct core_rpc_call *call;
  char *name;
  bool behind; /* the queue was full: tell the status when it is writable again */
  struct health_watcher *previous, *next;
};

struct health_table {
  struct core_rpc_method methods[2];
  struct health_service *services;
  struct health_watcher *watchers;
};

static struct health_table *health_table(struct core_rpc_loop *loop) {
  if (loop->health == NULL)
    loop->health = BASE_NEW(struct health_table);
  return loop->health;
}

static struct health_service *health_find(const struct health_table *table, const char *name) {
  for (struct health_service *service = table->services; service != NULL; service = service->next)
    if (strcmp(service->name, name) == 0)
      return service;
  return NULL;
}

/* The service name of a request as an owned string, or NULL when the message is malformed. */
static char *health_request_service(struct core_rpc_call *call) {
  size_t length;
  const uint8_t *data = core_rpc_call_request(call, &length);
  struct protobuf_reader reader = {.data = data, .length = length};
  struct protobuf_field field, name = {0};
  while (protobuf_next(&reader, &field))
    if (field.number == REQUEST_SERVICE && field.is_bytes)
      name = field;
  bool valid = !reader.malformed && name.length <= SERVICE_NAME_MAX &&
               (name.length == 0 ||
                (memchr(name.data, '\0', name.length) == NULL && str_is_utf8((const char *)name.data, name.length)));
  return valid ? base_strndup(name.length == 0 ? "" : (const char *)name.data, name.length) : NULL;
}

static grpc_byte_buffer *health_response(int status) {
  struct buf buf = {0};
  protobuf_put_number(&buf, RESPONSE_STATUS, (uint64_t)status);
  grpc_byte_buffer *message = message_from_bytes(buf.data, buf.length);
  buf_free(&buf);
  return message;
}

static void health_check(struct core_rpc_call *call, void *user) {
  struct core_rpc_loop *loop = user;
  char *name = health_request_service(call);
  const struct health_service *service = name == NULL ? NULL : health_find(loop->health, name);
  if (name == NULL)
    core_rpc_call_fail_code(call, ERR_RPC_MESSAGE_MALFORMED);
  else if (service == NULL)
    core_rpc_call_fail_code(call, ERR_NOT_FOUND);
  else
    call_reply_buffer(call, health_response(service->status));
  base_free(name);
}

static void watcher_tell(struct health_watcher *watcher) {
  const struct health_service *service = health_find(watcher->loop->health, watcher->name);
  int status = service == NULL ? STATUS_SERVICE_UNKNOWN : service->status;
  watcher->behind = !call_send_buffer(watcher->call, health_response(status));
}

static void watcher_on_writable(struct core_rpc_call *call, void *user) {
  struct health_watcher *watcher = user;
  (void)call;
  if (watcher->behind)
    watcher_tell(watcher);
}

static void watcher_on_drain(struct core_rpc_call *call, void *user) {
  (void)user;
  core_rpc_call_fail_code(call, ERR_UNAVAILABLE);
}

static void watcher_on_cancel(struct core_rpc_call *call, void *user) {
  (void)user;
  core_rpc_call_finish(call);
}

static void watcher_on_free(void *user) {
  struct health_watcher *watcher = user;
  if (watcher->previous != NULL)
    watcher->previous->next = watcher->next;
  else
    watcher->loop->health->watchers = watcher->next;
  if (watcher->next != NULL)
    watcher->next->previous = watcher->previous;
  base_free(watcher->name);
  base_free(watcher);
}

static const struct core_rpc_call_events watcher_events = {.on_cancel = watcher_on_cancel,
                                                           .on_writable = watcher_on_writable,
                                                           .on_drain = watcher_on_drain,
                                                           .on_free = watcher_on_free};

static void health_watch(struct core_rpc_call *call, void *user) {
  struct core_rpc_loop *loop = user;
  char *name = health_request_service(call);
  if (name == NULL) {
    core_rpc_call_fail_code(call, ERR_RPC_MESSAGE_MALFORMED);
    return;
  }
  struct health_watcher *watcher = BASE_NEW(struct health_watcher);
  *watcher = (struct health_watcher){.loop = loop, .call = call, .name = name, .next = loop->health->watchers};
  if (watcher->next != NULL)
    watcher->next->previous = watcher;
  loop->health->watchers = watcher;
  core_rpc_call_events_set(call, &watcher_events, watcher);
  watcher_tell(watcher);
}

void core_rpc_health_register(struct core_rpc_loop *loop) {
  static const struct {
    const char *path;
    enum core_rpc_kind kind;
    core_rpc_handler *handler;
  } methods[] = {
      {"/grpc.health.v1.Health/Check", CORE_RPC_UNARY, health_check},
      {"/grpc.health.v1.Health/Watch", CORE_RPC_SERVER_STREAM, health_watch},
  };
  struct health_table *table = health_table(loop);
  for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
    table->methods[i] = (struct core_rpc_method){
        .path = methods[i].path, .kind = methods[i].kind, .handler = methods[i].handler, .user = loop};
  }
  core_rpc_server_register(loop, table->methods, sizeof(methods) / sizeof(methods[0]));
  core_rpc_health_set(loop, "", CORE_RPC_HEALTH_SERVING);
}

void core_rpc_health_set(struct core_rpc_loop *loop, const char *service_name, enum core_rpc_health health) {
  struct health_table *table = health_table(loop_check(loop));
  struct health_service *service = health_find(table, service_name);
  if (service == NULL) {
    service = BASE_NEW(struct health_service);
    *service = (struct health_service){.name = base_strdup(service_name), .status = -1, .next = table->services};
    table->services = service;
  }
  if (service->status == (int)health)
    return;
  service->status = (int)health;
  for (struct health_watcher *watcher = table->watchers; watcher != NULL; watcher = watcher->next)
    if (strcmp(watcher->name, service_name) == 0 && !core_rpc_call_is_cancelled(watcher->call))
      watcher_tell(watcher);
}

void health_free(struct core_rpc_loop *loop) {
  struct health_table *table = BASE_TAKE(loop->health);
  if (table == NULL)
    return;
  while (table->services != NULL) {
    struct health_service *service = table->services;
    table->services = service->next;
    base_free(service->name);
    base_free(service);
  }
  base_free(table);
}
