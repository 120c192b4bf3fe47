/* runtime.c: the ModuleRuntime service on the runtime socket (LIF-1, LIF-2, LIF-5). Only the owner of the process or
 * root may call it: the socket is 0600 in a folder of the module's own, and the peer's uid is checked again. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "sdk/module/module_internal.h"
#include "sdk/wire/wire.h"

#define RUNTIME "/core.module.v1.ModuleRuntime/"

uint32_t module_in_flight(struct module *module) {
  uint32_t count = module->invocation_count;
  if (module->definition->in_flight)
    count += module->definition->in_flight(module);
  return count;
}

bool module_is_handing_over(const struct module *module) {
  return module->handing_over;
}

void module_latency_note(struct module *module, int64_t took_us) {
  size_t bucket = latency_bucket(took_us);
  module->latency_counts[bucket]++;
  module->latency_sum_us += took_us > 0 ? (uint64_t)took_us : 0;
  if (bucket >= module->latency_used)
    module->latency_used = bucket + 1;
}

/* ---- phases ---- */

static void describe(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  struct module *module = arg;
  (void)message, (void)length;
  core_module_v1_ModuleDescriptor *descriptor = module_descriptor_make(module->definition, module->id);
  rpc_server_call_reply_message(call, core_module_v1_ModuleDescriptor_fields, descriptor);
  module_descriptor_free(&descriptor);
}

/* Everything that must hold before the configuration is looked at. */
static bool initialize_check(struct module *module, const core_module_v1_InitializeRequest *request,
                             struct error *err) {
  if (module->draining)
    return error_set(err, ERR_MODULE_DRAINING, NULL);
  if (!str_equal(request->module_id, module->id))
    return error_set(err, ERR_MODULE_DESCRIPTOR, "this is module %s", module->id);
  if (!str_equal(request->spi_version, MODULE_SPI_VERSION))
    return error_set(err, ERR_MODULE_SPI_VERSION, "this module speaks SPI version " MODULE_SPI_VERSION);
  if (str_is_empty(request->spi_socket) || !request->channel_secret || str_is_empty(request->canary_credential))
    return error_set(err, ERR_ARGUMENT_MISSING, "spi_socket, channel_secret and canary_credential are needed");
  return true;
}

static void initialize(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  struct module *module = arg;
  struct error err = {0};
  core_module_v1_InitializeRequest request = {0};
  if (!wire_decode(core_module_v1_InitializeRequest_fields, &request, message, length, &err)) {
    rpc_server_call_fail(call, &err);
    return;
  }
  enum log_level level;
  if (!initialize_check(module, &request, &err) ||
      (module->definition->initialize && !module->definition->initialize(module, &request, &err))) {
    log_error_value(LOG_ERROR, "module", "the core's configuration was refused", &err);
    rpc_server_call_fail(call, &err);
  } else {
    if (request.log_level && log_level_parse(request.log_level, &level))
      log_level_set(level);
    module_attach_initialize(module, &request);
    core_module_v1_InitializeResponse response = {.spi_version = request.spi_version};
    rpc_server_call_reply_message(call, core_module_v1_InitializeResponse_fields, &response);
  }
  if (request.channel_secret)
    explicit_bzero(request.channel_secret->bytes, request.channel_secret->size);
  wire_release(core_module_v1_InitializeRequest_fields, &request);
}

static void get_readiness(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  struct module *module = arg;
  (void)message, (void)length;
  core_module_v1_ReadinessCondition conditions[MODULE_CONDITIONS_MAX];
  core_module_v1_Readiness readiness = {.conditions = conditions, .degraded = module->degraded_reason != NULL};
  readiness.conditions_count = (pb_size_t)module_readiness_conditions(module, conditions, &readiness.ready);
  rpc_server_call_reply_message(call, core_module_v1_Readiness_fields, &readiness);
}

core_module_v1_ModuleStats module_stats_collect(struct module *module) {
  core_module_v1_ModuleStats stats = {.requests_total = module->invocations_total,
                                      .errors_total = module->invocation_errors,
                                      .latency_counts = module->latency_counts,
                                      .latency_counts_count = (pb_size_t)module->latency_used};
  if (module->definition->stats)
    module->definition->stats(module, &stats);
  stats.in_flight = module_in_flight(module);
  return stats;
}

static void get_stats(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  core_module_v1_ModuleStats stats = module_stats_collect(arg);
  (void)message, (void)length;
  rpc_server_call_reply_message(call, core_module_v1_ModuleStats_fields, &stats);
}

/* ---- drain and shutdown ---- */

static void drain_finish(struct module *module) {
  module->drained = true;
  module_publish_now(module);
  if (module->drain_timer)
    event_del(module->drain_timer);
  if (module->drain_call) {
    core_module_v1_DrainResponse response = {.in_flight = module_in_flight(module)};
    rpc_server_call_reply_message(BASE_TAKE(module->drain_call), core_module_v1_DrainResponse_fields, &response);
  }
  if (module->leaving)
    module_exit_soon(module, MODULE_EXIT_OK);
}

void module_drain_advance(struct module *module) {
  if (module->draining && !module->definition->drain && module_in_flight(module) == 0)
    module_drained(module);
}

static void drain_deadline(evutil_socket_t fd, short what, void *arg) {
  struct module *module = arg;
  (void)fd, (void)what;
  log_event(LOG_WARN, "module", "the drain deadline passed", LOG_INT("in_flight", module_in_flight(module)));
  drain_finish(module);
}

void module_drained(struct module *module) {
  if (module->draining && !module->drained)
    drain_finish(module);
}

void module_drain_begin(struct module *module, uint32_t deadline_ms, const char *reason) {
  if (module->draining)
    return;
  module->draining = true;
  log_event(LOG_INFO, "module", "draining", LOG_TEXT("reason", reason), LOG_INT("deadline_ms", deadline_ms),
            LOG_INT("in_flight", module_in_flight(module)));
  (void)module_notify(module, "STOPPING=1");
  module_readiness_update(module);
  if (!module->drain_timer)
    module->drain_timer = evtimer_new(module->base, drain_deadline, module);
  struct timeval deadline = {.tv_sec = deadline_ms / 1000, .tv_usec = (suseconds_t)(deadline_ms % 1000) * 1000};
  evtimer_add(module->drain_timer, &deadline);
  if (module->definition->drain)
    module->definition->drain(module, deadline_ms);
  else
    module_drain_advance(module);
}

static void drain_call_cancelled(void *arg, struct rpc_server_call *call) {
  struct module *module = arg;
  if (module->drain_call == call) {
    module->drain_call = NULL;
    rpc_server_call_finish(call, NULL);
  }
}

static void drain(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  struct module *module = arg;
  struct error err = {0};
  core_module_v1_DrainRequest request = {0};
  if (!wire_decode(core_module_v1_DrainRequest_fields, &request, message, length, &err)) {
    rpc_server_call_fail(call, &err);
    return;
  }
  if (module->drain_call) {
    error_set(&err, ERR_MODULE_PHASE, "a drain is under way");
    rpc_server_call_fail(call, &err);
  } else {
    module->drain_call = call;
    rpc_server_call_handle(call, &(struct rpc_server_call_handler){.on_cancelled = drain_call_cancelled}, module);
    if (!module->draining)
      module->handing_over = request.hand_over;
    if (module->drained)
      drain_finish(module);
    else
      module_drain_begin(module, request.deadline_ms, request.reason ? request.reason : "asked by the core");
  }
  wire_release(core_module_v1_DrainRequest_fields, &request);
}

static void shutdown_now(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  struct module *module = arg;
  (void)message, (void)length;
  core_module_v1_ShutdownResponse response = {0};
  rpc_server_call_reply_message(call, core_module_v1_ShutdownResponse_fields, &response);
  log_event(LOG_INFO, "module", "told to shut down");
  module_exit_soon(module, MODULE_EXIT_OK);
}

/* ---- calls ---- */

/* No call is carried out before the core has initialized the module, or while it drains. */
static bool may_serve(struct module *module, struct rpc_server_call *call) {
  struct error err = {0};
  if (module->initialized && (!module->draining || module->handing_over))
    return true;
  error_set(&err, module->draining ? ERR_MODULE_DRAINING : ERR_MODULE_PHASE, NULL);
  rpc_server_call_fail(call, &err);
  return false;
}

static void invoke(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  if (may_serve(arg, call))
    module_invocation_begin(arg, call, message, length);
}

static void discover(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  if (may_serve(arg, call))
    module_discovery_begin(arg, call, message, length);
}

static void answer_request(struct rpc_server_call *call, const uint8_t *message, size_t length, void *arg) {
  module_answer_handle(arg, call, message, length);
}

static const struct rpc_method runtime_methods[] = {
    {RUNTIME "Describe", RPC_METHOD_UNARY, describe},
    {RUNTIME "Initialize", RPC_METHOD_UNARY, initialize},
    {RUNTIME "GetReadiness", RPC_METHOD_UNARY, get_readiness},
    {RUNTIME "Drain", RPC_METHOD_UNARY, drain},
    {RUNTIME "Shutdown", RPC_METHOD_UNARY, shutdown_now},
    {RUNTIME "GetStats", RPC_METHOD_UNARY, get_stats},
    {RUNTIME "Invoke", RPC_METHOD_SERVER_STREAM, invoke},
    {RUNTIME "AnswerRequest", RPC_METHOD_UNARY, answer_request},
    {RUNTIME "Discover", RPC_METHOD_SERVER_STREAM, discover},
};

/* The core runs as root, as us, or as the uid that the supervisor names. */
static uid_t core_uid(void) {
  uint64_t uid = 0;
  const char *named = getenv("GATEHOUSE_CORE_UID");
  return named && str_parse_u64(named, &uid) && uid < UINT32_MAX ? (uid_t)uid : geteuid();
}

static bool authorize_peer(const struct rpc_peer *peer, void *arg) {
  (void)arg;
  if (peer->uid == 0 || peer->uid == geteuid() || peer->uid == core_uid())
    return true;
  log_event(LOG_WARN, "module", "a connection to the runtime socket was refused", LOG_INT("uid", peer->uid));
  return false;
}

bool module_runtime_start(struct module *module, struct error *err) {
  struct rpc_server_options options = {.connections_max = 16, .authorize_peer = authorize_peer, .arg = module};
  module->server = rpc_server_create(module->base, &options);
  rpc_server_register(module->server, runtime_methods, sizeof(runtime_methods) / sizeof(runtime_methods[0]), module);
  module->health = rpc_health_create(module->server);
  /* A core of another user comes by the group of the folder, which the supervisor gave it. */
  mode_t mode = core_uid() == geteuid() ? 0600 : 0660; /* also root comes by its group: it has no capabilities */
  return rpc_server_listen_unix(module->server, module->runtime_socket, mode, err);
}

void module_runtime_stop(struct module *module) {
  rpc_server_close(&module->server);
  rpc_health_free(&module->health);
}
