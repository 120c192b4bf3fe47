/* health.c: grpc.health.v1.Health (LIF-4): Check answers at once, Watch sends the current status and every change. The
 * two messages are one field each, so they are read and written with nanopb's low level. */
#include <pb_decode.h>
#include <pb_encode.h>

#include "sdk/rpc/rpc_server_internal.h"

#define HEALTH_MAGIC 0x52504865u
#define SERVICE_NAME_MAX 256 /* of a request; longer ones are unknown by definition */
#define WATCHERS_MAX 256

/* HealthCheckResponse.ServingStatus beyond enum rpc_health_status: what Watch says of a service that nobody set. */
#define STATUS_SERVICE_UNKNOWN 3

enum { REQUEST_SERVICE = 1, RESPONSE_STATUS = 1 };

struct health_service {
  TAILQ_ENTRY(health_service) link;
  char *name;
  enum rpc_health_status status;
};

struct health_watcher {
  TAILQ_ENTRY(health_watcher) link;
  struct rpc_health *health;
  struct rpc_server_call *call;
  char name[SERVICE_NAME_MAX];
  unsigned told;
};

struct rpc_health {
  uint32_t magic;
  TAILQ_HEAD(, health_service) services;
  TAILQ_HEAD(, health_watcher) watchers;
  unsigned watcher_count;
};

static struct health_service *service_find(const struct rpc_health *health, const char *name) {
  struct health_service *service;
  TAILQ_FOREACH(service, &health->services, link) {
    if (strcmp(service->name, name) == 0)
      return service;
  }
  return NULL;
}

static unsigned status_of(const struct rpc_health *health, const char *name) {
  const struct health_service *service = service_find(health, name);
  return service != NULL ? (unsigned)service->status : STATUS_SERVICE_UNKNOWN;
}

static bool request_decode(const uint8_t *message, size_t length, char name[static SERVICE_NAME_MAX]) {
  pb_istream_t stream = pb_istream_from_buffer(message, length);
  pb_wire_type_t type;
  uint32_t field, size;
  bool end;
  name[0] = '\0';
  while (pb_decode_tag(&stream, &type, &field, &end)) {
    if (field != REQUEST_SERVICE || type != PB_WT_STRING) {
      if (!pb_skip_field(&stream, type))
        return false;
      continue;
    }
    if (!pb_decode_varint32(&stream, &size) || size >= SERVICE_NAME_MAX || !pb_read(&stream, (pb_byte_t *)name, size))
      return false;
    name[size] = '\0';
  }
  return end;
}

static size_t response_encode(unsigned status, uint8_t target[static 16]) {
  pb_ostream_t stream = pb_ostream_from_buffer(target, 16);
  BASE_CHECK(pb_encode_tag(&stream, PB_WT_VARINT, RESPONSE_STATUS) && pb_encode_varint(&stream, status));
  return stream.bytes_written;
}

static void call_fail(struct rpc_server_call *call, enum error_code code, const char *message) {
  struct error error;
  error_set(&error, code, "%s", message);
  rpc_server_call_fail(call, &error);
}

static void check(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  const struct rpc_health *health = arg;
  char name[SERVICE_NAME_MAX];
  uint8_t reply[16];
  if (!request_decode(message, length, name))
    call_fail(call, ERR_RPC_MESSAGE_MALFORMED, "The request is not valid.");
  else if (service_find(health, name) == NULL)
    call_fail(call, ERR_NOT_FOUND, "No such service.");
  else
    rpc_server_call_reply(call, reply, response_encode(status_of(health, name), reply));
}

static void watcher_free(struct health_watcher *watcher) {
  TAILQ_REMOVE(&watcher->health->watchers, watcher, link);
  watcher->health->watcher_count--;
  base_free(watcher);
}

static void watcher_tell(struct health_watcher *watcher) {
  uint8_t message[16];
  unsigned status = status_of(watcher->health, watcher->name);
  if (status == watcher->told)
    return;
  /* A watcher that does not read misses the steps between: it gets the newest status once there is room. */
  if (rpc_server_call_send(watcher->call, message, response_encode(status, message)) != RPC_SEND_REFUSED)
    watcher->told = status;
}

static void watch_writable(void *arg, struct rpc_server_call *call) {
  (void)call;
  watcher_tell(arg);
}

static void watch_cancelled(void *arg, struct rpc_server_call *call) {
  watcher_free(arg);
  rpc_server_call_finish(call, NULL);
}

static void watch(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  static const struct rpc_server_call_handler handler = {.on_writable = watch_writable,
                                                         .on_cancelled = watch_cancelled};
  struct rpc_health *health = arg;
  char name[SERVICE_NAME_MAX];
  if (!request_decode(message, length, name)) {
    call_fail(call, ERR_RPC_MESSAGE_MALFORMED, "The request is not valid.");
    return;
  }
  if (health->watcher_count >= WATCHERS_MAX) {
    call_fail(call, ERR_RPC_IN_FLIGHT_LIMIT, "Too many watchers.");
    return;
  }
  struct health_watcher *watcher = BASE_NEW(struct health_watcher);
  watcher->health = health;
  watcher->call = call;
  watcher->told = UINT32_MAX;
  memcpy(watcher->name, name, sizeof(name));
  TAILQ_INSERT_TAIL(&health->watchers, watcher, link);
  health->watcher_count++;
  rpc_server_call_handle(call, &handler, watcher);
  watcher_tell(watcher);
}

static const struct rpc_method methods[] = {{"/grpc.health.v1.Health/Check", RPC_METHOD_UNARY, check},
                                            {"/grpc.health.v1.Health/Watch", RPC_METHOD_SERVER_STREAM, watch}};

/* The server drains: nothing here is serving any more, and watchers are to look elsewhere. */
static void drain(void *arg) {
  struct rpc_health *health = arg;
  struct health_service *service;
  TAILQ_FOREACH(service, &health->services, link) {
    rpc_health_set(health, service->name, RPC_HEALTH_NOT_SERVING);
  }
  struct health_watcher *watcher;
  while ((watcher = TAILQ_FIRST(&health->watchers)) != NULL) {
    struct rpc_server_call *call = watcher->call;
    watcher_free(watcher);
    call_fail(call, ERR_UNAVAILABLE, "The server is draining.");
  }
}

struct rpc_health *rpc_health_create(struct rpc_server *server) {
  struct rpc_health *health = BASE_NEW(struct rpc_health);
  health->magic = HEALTH_MAGIC;
  TAILQ_INIT(&health->services);
  TAILQ_INIT(&health->watchers);
  rpc_server_register(server, methods, sizeof(methods) / sizeof(methods[0]), health);
  server->drain_hook = drain;
  server->drain_hook_arg = health;
  rpc_health_set(health, "", RPC_HEALTH_NOT_SERVING);
  return health;
}

void rpc_health_free(struct rpc_health **health_pointer) {
  struct rpc_health *health = *health_pointer;
  if (health == NULL)
    return;
  BASE_CHECK_MAGIC(health, HEALTH_MAGIC);
  *health_pointer = NULL;
  BASE_CHECK(TAILQ_EMPTY(&health->watchers)); /* rpc_server_close ended them */
  struct health_service *service;
  while ((service = TAILQ_FIRST(&health->services)) != NULL) {
    TAILQ_REMOVE(&health->services, service, link);
    base_free(service->name);
    base_free(service);
  }
  base_free(health);
}

void rpc_health_set(struct rpc_health *health, const char *name, enum rpc_health_status status) {
  BASE_CHECK_MAGIC(health, HEALTH_MAGIC);
  struct health_service *service = service_find(health, name);
  if (service == NULL) {
    service = BASE_NEW(struct health_service);
    service->name = base_strdup(name);
    TAILQ_INSERT_TAIL(&health->services, service, link);
  }
  service->status = status;
  struct health_watcher *watcher;
  TAILQ_FOREACH(watcher, &health->watchers, link) {
    if (strcmp(watcher->name, name) == 0)
      watcher_tell(watcher);
  }
}
