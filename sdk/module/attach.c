/* attach.c: the way to the core. After Initialize the SPI channel is dialled with the channel secret; when it is up,
 * the module proves its deny path: it resolves the canary, which must be refused (LIF-3). Then it is attached, follows
 * the catalog's changes, and is ready when every condition holds. When the channel is lost it is detached at once
 * (LIF-6): the same core is dialled again with back-off, a new core comes by itself with a new Initialize. */
#include <string.h>

#include "sdk/base/alloc.h"
#include "sdk/base/backoff.h"
#include "sdk/base/log.h"
#include "sdk/base/secret.h"
#include "sdk/base/str.h"
#include "sdk/module/module_internal.h"
#include "sdk/wire/wire.h"
#include "wire/nano/core/spi/auth/v1/auth.pb.h"
#include "wire/nano/core/spi/config/v1/config.pb.h"
#include "wire/nano/core/spi/observability/v1/observability.pb.h"
#include "wire/nano/core/spi/plugin/v1/plugin.pb.h"
#include "wire/nano/core/spi/session/v1/session.pb.h"

#define ANNOUNCE_AGAIN_MS 100
#define RETRY_FIRST_MS 50
#define RETRY_MAX_MS 2000
#define CANARY_DEADLINE_MS 5000
#define SPI_DEADLINE_MS 10000
#define SPI_IN_FLIGHT_DEFAULT 1024
#define WATCH_METHOD "/core.spi.catalog.v1.CatalogService/Watch"

static void prove_deny_path(struct module *module);
static void watch_start(struct module *module);

static void text_set(char **target, const char *value) {
  base_free(*target);
  *target = value ? base_strdup(value) : NULL;
}

/* ---- readiness ---- */

size_t module_readiness_conditions(struct module *module, core_module_v1_ReadinessCondition *conditions, bool *ready) {
  const struct {
    const char *name;
    bool met, relevant;
    const char *message;
  } table[] = {
      {"config_accepted", module->initialized, true, "no core has initialized the module"},
      {"spi_connected", module->connected, true, "the core cannot be reached"},
      {"deny_path_proven", module->canary == MODULE_CANARY_PROVEN, true, module->canary_message},
      {"warm_up", module->warm, true, module->warm_message},
      {"holds", false, module->rollback_reason != NULL, module->rollback_reason},
      {"listening", module->listening, module->listening_known, module->listening_message},
      {"not_draining", !module->draining, true, "the module is draining"},
      {"not_degraded", true, module->degraded_reason != NULL, module->degraded_reason},
  };
  size_t count = 0;
  *ready = true;
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
    if (!table[i].relevant)
      continue;
    *ready = *ready && table[i].met;
    bool told = !table[i].met || str_equal(table[i].name, "not_degraded");
    conditions[count++] = (core_module_v1_ReadinessCondition){
        .name = (char *)(uintptr_t)table[i].name,
        .met = table[i].met,
        .message = told ? (char *)(uintptr_t)table[i].message : NULL,
    };
  }
  return count;
}

static void announce_again(evutil_socket_t fd, short what, void *arg) {
  struct module *module = arg;
  (void)fd, (void)what;
  module->announce_waits = false;
  module_readiness_update(module);
}

/* Whoever is not heard to be ready is ended for it, however well it serves. */
static void announce(struct module *module) {
  static const struct timeval pause = {.tv_usec = ANNOUNCE_AGAIN_MS * 1000};
  if (module->announce_waits)
    return;
  module->announced = module_notify(module, "READY=1\nSTATUS=ready");
  if (module->announced)
    log_event(LOG_INFO, "module", "ready", LOG_INT("generation", module->generation));
  else
    module->announce_waits = event_base_once(module->base, -1, EV_TIMEOUT, announce_again, module, &pause) == 0;
}

void module_readiness_update(struct module *module) {
  core_module_v1_ReadinessCondition conditions[MODULE_CONDITIONS_MAX];
  bool ready;
  module_readiness_conditions(module, conditions, &ready);
  if (module->health)
    rpc_health_set(module->health, "", ready ? RPC_HEALTH_SERVING : RPC_HEALTH_NOT_SERVING);
  if (ready && !module->announced)
    announce(module);
}

void module_warm_set(struct module *module, bool warm, const char *message) {
  module->warm = warm;
  text_set(&module->warm_message, message);
  module_readiness_update(module);
}

void module_listening_set(struct module *module, bool listening, const char *message) {
  module->listening = listening;
  module->listening_known = true;
  text_set(&module->listening_message, message);
  module_readiness_update(module);
}

void module_degraded_set(struct module *module, const char *reason) {
  text_set(&module->degraded_reason, reason);
  module_readiness_update(module);
}

void module_rollback_request(struct module *module, const char *reason) {
  log_event(LOG_ERROR, "module", "this version asks to be rolled back", LOG_TEXT("reason", reason));
  text_set(&module->rollback_reason, reason);
  module_readiness_update(module);
}

bool module_is_attached(const struct module *module) {
  return module->attached;
}

bool module_core_knows_may_have_begun(const struct module *module) {
  return module->core_knows_may_have_begun;
}

/* ---- attached or not ---- */

static void attached_set(struct module *module, bool attached) {
  if (module->attached == attached)
    return;
  module->attached = attached;
  log_event(attached ? LOG_INFO : LOG_WARN, "module", attached ? "attached to the core" : "detached from the core",
            LOG_INT("generation", module->generation));
  if (module->definition->attached)
    module->definition->attached(module, attached);
  else if (attached)
    module_warm_set(module, true, NULL);
  if (attached)
    watch_start(module);
  if (attached)
    module_publish_start(module);
  module_readiness_update(module);
}

/* With back-off (TRN-6): a core that refuses for good is not asked twenty times a second. */
static void retry_later(struct module *module) {
  if (evtimer_pending(module->retry_timer, NULL))
    return;
  uint32_t wait_ms = backoff_ms(RETRY_FIRST_MS, RETRY_MAX_MS, ++module->retries);
  struct timeval delay = {.tv_sec = wait_ms / 1000, .tv_usec = (suseconds_t)(wait_ms % 1000) * 1000};
  evtimer_add(module->retry_timer, &delay);
}

static void retry(evutil_socket_t fd, short what, void *arg) {
  struct module *module = arg;
  (void)fd, (void)what;
  if (!module->connected)
    return;
  if (module->canary == MODULE_CANARY_UNKNOWN)
    prove_deny_path(module);
  else if (module->attached && !module->watch_call)
    watch_start(module);
}

/* ---- the deny path ---- */

static void canary_answered(void *arg, const struct rpc_status *status, void *reply) {
  struct module *module = arg;
  (void)reply;
  module->canary_call = NULL;
  module->canary = MODULE_CANARY_UNKNOWN;
  if (status->code == RPC_OK) {
    module->canary = MODULE_CANARY_BROKEN;
    text_set(&module->canary_message, "the core accepted a credential that it must refuse");
    log_event(LOG_ERROR, "module", "the deny path is broken: the canary was accepted");
  } else if (status->code == RPC_UNAUTHENTICATED) {
    module->canary = MODULE_CANARY_PROVEN;
    module->retries = 0;
    text_set(&module->canary_message, NULL);
    attached_set(module, true);
  } else {
    text_set(&module->canary_message, status->error.message);
    log_error_value(LOG_WARN, "module", "the deny path could not be proven yet", &status->error);
    retry_later(module);
  }
  module_readiness_update(module);
}

static void prove_deny_path(struct module *module) {
  if (module->canary_call)
    return;
  char *bearer = base_asprintf("Bearer %s", module->canary_credential);
  core_common_v1_Header header = {.name = (char *)(uintptr_t) "authorization", .value = bearer};
  core_spi_auth_v1_ResolveCallerRequest request = {
      .transport = (char *)(uintptr_t) "canary",
      .headers_count = 1,
      .headers = &header,
      .client_address = (char *)(uintptr_t) "127.0.0.1",
      .protocol_family = (char *)(uintptr_t)module->definition->protocol_family,
  };
  module->canary = MODULE_CANARY_ASKING;
  struct rpc_call_options options = {.deadline_ms = CANARY_DEADLINE_MS};
  module->canary_call = rpc_call_unary_message(
      module->spi, "/core.spi.auth.v1.AuthPolicyService/ResolveCaller", core_spi_auth_v1_ResolveCallerRequest_fields,
      &request, core_spi_auth_v1_ResolveCallerResponse_fields, sizeof(core_spi_auth_v1_ResolveCallerResponse), &options,
      canary_answered, module);
  base_free(bearer);
}

/* ---- the catalog's changes ---- */

static void watch_message(void *arg, const uint8_t *message, size_t length) {
  struct module *module = arg;
  struct error err = {0};
  core_spi_catalog_v1_WatchEvent event = {0};
  module->retries = 0;
  if (!wire_decode(core_spi_catalog_v1_WatchEvent_fields, &event, message, length, &err)) {
    log_error_value(LOG_ERROR, "module", "a change of the catalog could not be read", &err);
    return;
  }
  if (event.revision > module->watch_revision)
    module->watch_revision = event.revision;
  module->definition->changed(module, &event);
  wire_release(core_spi_catalog_v1_WatchEvent_fields, &event);
}

static void watch_ended(void *arg, const struct rpc_status *status) {
  struct module *module = arg;
  module->watch_call = NULL;
  if (status->code == RPC_FAILED_PRECONDITION)
    module->watch_revision = 0; /* the revision is gone: ask for a snapshot marker */
  if (module->attached)
    retry_later(module);
}

static void watch_start(struct module *module) {
  static const struct rpc_stream_handler handler = {.on_message = watch_message, .on_status = watch_ended};
  if (module->watch_call || !module->definition->changed)
    return;
  core_spi_catalog_v1_WatchRequest request = {.after_revision = module->watch_revision};
  module->watch_call = rpc_call_open(module->spi, WATCH_METHOD, NULL, &handler, module);
  rpc_call_send_message(module->watch_call, core_spi_catalog_v1_WatchRequest_fields, &request);
  rpc_call_half_close(module->watch_call);
}

/* ---- the channel ---- */

static void channel_state(bool connected, void *arg) {
  struct module *module = arg;
  module->connected = connected;
  if (module->canary != MODULE_CANARY_BROKEN)
    module->canary = MODULE_CANARY_UNKNOWN;
  if (connected && module->initialized)
    prove_deny_path(module);
  else if (!connected)
    attached_set(module, false);
  module_readiness_update(module);
}

static void channel_open(struct module *module, const char *spi_socket, uint32_t in_flight_max) {
  struct rpc_channel_options options = {.in_flight_max = in_flight_max,
                                        .keep_connected = true,
                                        .denied_is_unavailable = true, /* a new core comes with a new secret */
                                        .cancelled_is_refused = true,
                                        .on_state = channel_state,
                                        .arg = module};
  module_spi_limits(&options);
  text_set(&module->spi_socket, spi_socket);
  module->spi_in_flight_max = in_flight_max;
  module->connected = false;
  module->spi = rpc_channel_create(module->base, spi_socket, &options);
}

void module_attach_open(struct module *module, const char *spi_socket) {
  channel_open(module, spi_socket, SPI_IN_FLIGHT_DEFAULT);
}

void module_attach_initialize(struct module *module, const core_module_v1_InitializeRequest *request) {
  struct secret *secret = secret_create(request->channel_secret->bytes, request->channel_secret->size);
  attached_set(module, false);
  if (module->canary_call)
    rpc_call_cancel(BASE_TAKE(module->canary_call));
  if (module->watch_call)
    rpc_call_cancel(BASE_TAKE(module->watch_call));
  module->watch_revision = 0;
  module->generation = request->generation;
  module->core_knows_may_have_begun = request->knows_may_have_begun;
  module->canary = MODULE_CANARY_UNKNOWN;
  text_set(&module->canary_credential, request->canary_credential);
  text_set(&module->canary_message, "not asked yet");
  module->initialized = true;
  if (!module->retry_timer)
    module->retry_timer = evtimer_new(module->base, retry, module);
  uint32_t in_flight_max = request->in_flight_max ? request->in_flight_max : SPI_IN_FLIGHT_DEFAULT;
  if (!str_equal(module->spi_socket, request->spi_socket) || module->spi_in_flight_max != in_flight_max) {
    struct rpc_channel *before = module->spi;
    channel_open(module, request->spi_socket, in_flight_max);
    rpc_channel_close(&before); /* its calls end in here and find the new one */
    module->connected = false;
  }
  rpc_channel_metadata_set_secret(module->spi, MODULE_SECRET_METADATA, secret);
  secret_free(&secret);
  if (module->connected)
    prove_deny_path(module);
  else
    rpc_channel_connect(module->spi);
  module_readiness_update(module);
}

void module_attach_close(struct module *module) {
  module->initialized = false;
  if (module->canary_call)
    rpc_call_cancel(BASE_TAKE(module->canary_call));
  if (module->watch_call)
    rpc_call_cancel(BASE_TAKE(module->watch_call));
  rpc_channel_close(&module->spi);
  if (module->retry_timer)
    event_free(BASE_TAKE(module->retry_timer));
  text_set(&module->spi_socket, NULL);
  text_set(&module->canary_credential, NULL);
  text_set(&module->canary_message, NULL);
  text_set(&module->warm_message, NULL);
  text_set(&module->listening_message, NULL);
  text_set(&module->degraded_reason, NULL);
  text_set(&module->rollback_reason, NULL);
}

/* ---- calls ---- */

static const struct {
  const char *path;
  const pb_msgdesc_t *request, *response;
  size_t response_bytes;
} spi_methods[SPI_METHOD_COUNT] = {
#define SPI_METHOD(name, path, request, response) {path, request##_fields, response##_fields, sizeof(response)},
#include "sdk/module/spi_methods.def"
#undef SPI_METHOD
};

struct rpc_channel *module_spi(const struct module *module) {
  return module->spi;
}

struct rpc_call *module_spi_call(struct module *module, enum module_spi_method method, const void *request,
                                 uint32_t deadline_ms, rpc_unary_message_callback *callback, void *arg) {
  struct rpc_call_options options = {.deadline_ms = deadline_ms ? deadline_ms : SPI_DEADLINE_MS};
  return rpc_call_unary_message(module->spi, spi_methods[method].path, spi_methods[method].request, request,
                                spi_methods[method].response, spi_methods[method].response_bytes, &options, callback,
                                arg);
}
