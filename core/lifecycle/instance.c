/* instance.c: takes one instance through the phases: Describe, check, Initialize, health watch, readiness. One call is
 * under way at a time; the health stream then tells of every change, and its end is the first sign of a death. A fresh
 * channel, secret and canary for each attach, so that nothing of a past life is accepted. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/id.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "wire/pbc/grpc/health/v1/health.pb-c.h"

#define RUNTIME "/core.module.v1.ModuleRuntime/"
#define STEP_TIMEOUT_MS 5000
#define REATTACH_MS 500
#define ATTACH_WAIT_MS 1 /* for the supervisor's word of a new process */
#define ATTACH_WAITS_MAX 500
#define SECRET_BYTES 32

static void step_describe(struct lifecycle_instance *instance);
static void step_initialize(struct lifecycle_instance *instance);
static void step_watch_health(struct lifecycle_instance *instance);
static void step_readiness(struct lifecycle_instance *instance);

/* ---- ends ---- */

void lifecycle_instance_end(struct lifecycle_instance *instance, enum lifecycle_event event, const char *cause) {
  BASE_CHECK_MAGIC(instance, LIFECYCLE_INSTANCE_MAGIC);
  struct lifecycle_module *module = instance->module;
  lifecycle_instance_event(instance, event, cause);
  core_rpc_timer_cancel(&instance->start_timer);
  secret_free(&instance->channel_secret);
  policy_module_forget(module->lifecycle->options.policy, module->id);
  instance->step_call = NULL; /* their on_done still runs and finds the channel gone */
  instance->health_call = NULL;
  core_rpc_channel_close(&instance->channel);
}

void lifecycle_instance_free(struct lifecycle_instance **holder) {
  struct lifecycle_instance *instance = BASE_TAKE(*holder);
  if (!instance)
    return;
  core_rpc_timer_cancel(&instance->start_timer);
  secret_free(&instance->channel_secret);
  core_rpc_channel_close(&instance->channel);
  if (instance->descriptor)
    core__module__v1__module_descriptor__free_unpacked(instance->descriptor, NULL);
  if (instance->readiness)
    core__module__v1__readiness__free_unpacked(instance->readiness, NULL);
  instance->magic = 0;
  base_free(instance);
}

/* ---- steps ---- */

/* What a call of an instance needs when it ends: the instance may be gone by then, its place in the module taken by
 * another. */
struct step {
  struct lifecycle_module *module;
  uint64_t generation;
  struct core_rpc_client_call *call;
  bool health; /* the health stream, not a step */
  void (*done)(struct lifecycle_instance *instance, const struct core_rpc_result *result);
};

/* The instance that a step belongs to, when it is still the one that waits for it. */
static struct lifecycle_instance *step_instance(const struct step *step) {
  struct lifecycle_instance *instance = step->module->instance;
  if (!instance || instance->generation != step->generation)
    return NULL;
  return (step->health ? instance->health_call : instance->step_call) == step->call ? instance : NULL;
}

static void step_done(struct core_rpc_client_call *call, const struct core_rpc_result *result, void *user) {
  struct step *step = user;
  struct lifecycle_instance *instance = step_instance(step);
  (void)call;
  if (instance) {
    if (step->health)
      instance->health_call = NULL;
    else
      instance->step_call = NULL;
    step->done(instance, result);
  }
  base_free(step);
}

static void reattach(void *argument) {
  struct lifecycle_module *module = argument;
  module->retry_timer = NULL;
  module->runtime_inode = 0; /* look at the socket as if it were new */
  lifecycle_discovery_scan(module->lifecycle);
}

/* A step failed. Lost connections are tried again while the socket is there; refusals wait for a new process. */
static void step_failed(struct lifecycle_instance *instance, const struct core_rpc_result *result, const char *what) {
  struct lifecycle_module *module = instance->module;
  char cause[LIFECYCLE_REASON_BYTES];
  bool lost = result->err.category == ERROR_CATEGORY_UNAVAILABLE;
  snprintf(cause, sizeof(cause), "%.40s: %.140s (%.60s)", what, result->err.message, result->err.code);
  lifecycle_instance_end(instance, lost ? LIFECYCLE_ON_LOST : LIFECYCLE_ON_REFUSED, cause);
  if (lost && !module->retry_timer && !module->lifecycle->stopping)
    module->retry_timer = core_rpc_timer_start(module->lifecycle->options.loop, REATTACH_MS, reattach, module);
}

static void step_refused(struct lifecycle_instance *instance, enum error_code code, const char *what) {
  char cause[LIFECYCLE_REASON_BYTES];
  snprintf(cause, sizeof(cause), "%s (%s)", what, error_code_text(code));
  lifecycle_instance_end(instance, LIFECYCLE_ON_REFUSED, cause);
}

static void step_start(struct lifecycle_instance *instance, const char *method, const void *data, size_t length,
                       void (*done)(struct lifecycle_instance *, const struct core_rpc_result *)) {
  static const struct core_rpc_client_events events = {.on_done = step_done};
  struct step *step = BASE_NEW(struct step);
  *step = (struct step){.module = instance->module, .generation = instance->generation, .done = done};
  struct core_rpc_request request = {.method = method,
                                     .kind = CORE_RPC_UNARY,
                                     .data = data,
                                     .length = length,
                                     .timeout_ms = STEP_TIMEOUT_MS,
                                     .wait_for_ready = true,
                                     .events = &events,
                                     .user = step};
  step->call = instance->step_call = core_rpc_client_start(instance->channel, &request);
}

/* Describe */

static void described(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  struct error err = {0};
  if (result->grpc_status != 0) {
    step_failed(instance, result, "Describe failed");
    return;
  }
  instance->descriptor = core__module__v1__module_descriptor__unpack(NULL, result->length, result->data);
  if (!instance->descriptor) {
    step_refused(instance, ERR_RPC_MESSAGE_MALFORMED, "the descriptor cannot be decoded");
    return;
  }
  if (!lifecycle_descriptor_check(instance->module, instance->descriptor, &instance->granted, &err)) {
    char cause[LIFECYCLE_REASON_BYTES];
    log_error_value(LOG_ERROR, "lifecycle", "a module was refused", &err);
    snprintf(cause, sizeof(cause), "%.180s (%.60s)", err.message, err.code);
    lifecycle_instance_end(instance, LIFECYCLE_ON_REFUSED, cause);
    return;
  }
  if (lifecycle_instance_event(instance, LIFECYCLE_ON_DESCRIBED, NULL))
    step_initialize(instance);
}

static void step_describe(struct lifecycle_instance *instance) {
  step_start(instance, RUNTIME "Describe", "", 0, described);
}

/* Initialize */

static void initialized(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  if (result->grpc_status != 0) {
    step_failed(instance, result, "Initialize failed");
    return;
  }
  Core__Module__V1__InitializeResponse *response =
      core__module__v1__initialize_response__unpack(NULL, result->length, result->data);
  bool agreed = response && str_equal(response->spi_version, LIFECYCLE_SPI_VERSION);
  if (response)
    core__module__v1__initialize_response__free_unpacked(response, NULL);
  if (!agreed) {
    step_refused(instance, response ? ERR_MODULE_SPI_VERSION : ERR_RPC_MESSAGE_MALFORMED,
                 "the answer to Initialize names another SPI version or cannot be decoded");
    return;
  }
  if (lifecycle_instance_event(instance, LIFECYCLE_ON_INITIALIZED, NULL))
    step_watch_health(instance);
}

/* Fills in what the module may know (LIF-2). */
static void initialize_fill(struct lifecycle_instance *instance, Core__Module__V1__InitializeRequest *request) {
  struct lifecycle_module *module = instance->module;
  const struct lifecycle_options *options = &module->lifecycle->options;
  request->module_id = module->id;
  request->generation = instance->generation;
  request->config_json.data = (uint8_t *)(uintptr_t)(module->configured ? module->config.config_json : "{}");
  request->config_json.len = module->configured ? module->config.config_length : 2;
  request->config_revision = module->config_revision;
  request->spi_version = (char *)(uintptr_t)LIFECYCLE_SPI_VERSION;
  request->spi_socket = module->spi_path;
  request->runtime_mode = CORE__MODULE__V1__RUNTIME_MODE__RUNTIME_MODE_SIDECAR;
  request->ingress_mode = CORE__MODULE__V1__INGRESS_MODE__INGRESS_MODE_DIRECT;
  request->log_level = (char *)(uintptr_t)options->log_level;
  request->in_flight_max = options->in_flight_max;
  request->core_version = (char *)(uintptr_t)GATEHOUSE_VERSION;
  request->fallback = instance->descriptor->fallback_strategy;
}

static void step_initialize(struct lifecycle_instance *instance) {
  struct lifecycle_module *module = instance->module;
  Core__Module__V1__InitializeRequest request = CORE__MODULE__V1__INITIALIZE_REQUEST__INIT;
  initialize_fill(instance, &request);

  char secret_text[2 * SECRET_BYTES + 1];
  id_random_hex(secret_text, SECRET_BYTES);
  instance->channel_secret = secret_create(secret_text, sizeof(secret_text) - 1);
  request.channel_secret.data = (uint8_t *)secret_text;
  request.channel_secret.len = sizeof(secret_text) - 1;
  request.canary_credential = policy_canary_issue(module->lifecycle->options.policy, module->id);

  const char *const *names = lifecycle_family_names();
  char *granted[16];
  for (size_t i = 0; names[i]; i++)
    if (instance->granted & (1u << i))
      granted[request.n_granted_families++] = (char *)(uintptr_t)names[i];
  request.granted_families = granted;

  Core__Module__V1__Listener listeners[8], *listener_pointers[8];
  for (size_t i = 0; i < module->listener_count; i++) {
    core__module__v1__listener__init(&listeners[i]);
    listeners[i].name = module->listeners[i].name;
    listeners[i].address = module->listeners[i].address;
    listeners[i].port = module->listeners[i].port;
    listener_pointers[i] = &listeners[i];
  }
  request.n_listeners = module->listener_count;
  request.listeners = listener_pointers;

  size_t length = core__module__v1__initialize_request__get_packed_size(&request);
  uint8_t *bytes = base_alloc(length);
  core__module__v1__initialize_request__pack(&request, bytes);
  if (lifecycle_instance_event(instance, LIFECYCLE_ON_INITIALIZE_SENT, NULL))
    step_start(instance, RUNTIME "Initialize", bytes, length, initialized);
  secret_wipe(bytes, length);
  secret_wipe(secret_text, sizeof(secret_text));
  base_free(bytes);
  base_free(request.canary_credential);
}

/* Health */

static void health_message(struct core_rpc_client_call *call, const uint8_t *data, size_t length, void *user) {
  struct lifecycle_instance *instance = step_instance(user);
  (void)call;
  if (!instance)
    return;
  Grpc__Health__V1__HealthCheckResponse *response = grpc__health__v1__health_check_response__unpack(NULL, length, data);
  instance->healthy = response && response->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
  if (response)
    grpc__health__v1__health_check_response__free_unpacked(response, NULL);
  instance->health_changed = instance->step_call != NULL;
  if (!instance->step_call)
    step_readiness(instance);
}

static void health_ended(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  step_failed(instance, result, "the module's connection ended");
}

static void step_watch_health(struct lifecycle_instance *instance) {
  static const struct core_rpc_client_events events = {.on_message = health_message, .on_done = step_done};
  struct step *step = BASE_NEW(struct step);
  *step = (struct step){
      .module = instance->module, .generation = instance->generation, .health = true, .done = health_ended};
  struct core_rpc_request request = {.method = "/grpc.health.v1.Health/Watch",
                                     .kind = CORE_RPC_SERVER_STREAM,
                                     .data = "",
                                     .timeout_ms = INT64_MAX,
                                     .events = &events,
                                     .user = step};
  step->call = instance->health_call = core_rpc_client_start(instance->channel, &request);
}

/* Readiness: asked at each change of health. */

static void readiness_cause(const Core__Module__V1__Readiness *readiness, char *cause, size_t cause_bytes) {
  str_copy(cause, cause_bytes, "not ready");
  for (size_t i = 0; i < readiness->n_conditions; i++)
    if (!readiness->conditions[i]->met) {
      snprintf(cause, cause_bytes, "%.60s: %.160s", readiness->conditions[i]->name, readiness->conditions[i]->message);
      return;
    }
}

static void readiness_answered(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  if (result->grpc_status != 0) {
    step_failed(instance, result, "GetReadiness failed");
    return;
  }
  if (instance->health_changed) { /* what it said is older than the last word on health: nobody would ask again */
    instance->health_changed = false;
    step_readiness(instance);
    return;
  }
  Core__Module__V1__Readiness *readiness = core__module__v1__readiness__unpack(NULL, result->length, result->data);
  if (!readiness) {
    step_refused(instance, ERR_RPC_MESSAGE_MALFORMED, "the readiness cannot be decoded");
    return;
  }
  if (instance->readiness)
    core__module__v1__readiness__free_unpacked(instance->readiness, NULL);
  instance->readiness = readiness;
  bool canary_seen = policy_canary_seen(instance->module->lifecycle->options.policy, instance->module->id);
  char cause[LIFECYCLE_REASON_BYTES];
  if (readiness->ready && instance->healthy && canary_seen) {
    core_rpc_timer_cancel(&instance->start_timer);
    instance->module->fault[0] = '\0';
    lifecycle_instance_event(instance, LIFECYCLE_ON_HEALTHY, "every condition of readiness holds");
  } else if (readiness->ready && instance->healthy) {
    step_refused(instance, ERR_MODULE_CANARY, "ready without having proven its deny path");
  } else {
    readiness_cause(readiness, cause, sizeof(cause));
    lifecycle_instance_event(instance, LIFECYCLE_ON_UNHEALTHY, cause);
  }
}

static void step_readiness(struct lifecycle_instance *instance) {
  step_start(instance, RUNTIME "GetReadiness", "", 0, readiness_answered);
}

/* ---- beginning ---- */

static void start_timed_out(void *argument) {
  struct lifecycle_instance *instance = argument;
  instance->start_timer = NULL;
  char cause[LIFECYCLE_REASON_BYTES];
  struct lifecycle_module *module = instance->module;
  uint64_t generation = instance->generation;
  lifecycle_module_fault(module, generation, ERR_MODULE_START_TIMEOUT, "not ready in time; last: %.160s",
                         instance->reason);
  str_copy(cause, sizeof(cause), module->fault);
  lifecycle_instance_end(instance, LIFECYCLE_ON_TIMED_OUT, cause);
  if (module->lifecycle->control && module->pid && module->process_generation == generation)
    lifecycle_control_kill(module->lifecycle->control, module->id, generation);
}

/* A socket can be seen before the supervisor's word of the process behind it has arrived: then the generation is not
 * known yet. */
static bool process_is_known(const struct lifecycle_module *module) {
  if (!module->supervised)
    return true;
  return module->pid && (kill(module->pid, 0) == 0 || errno != ESRCH);
}

/* A socket file can be left over, or not be listened to yet. A supervisor removes the one and tells of every process;
 * without one the only way to know is to knock, which does not block. */
static bool socket_listens(const struct lifecycle_module *module) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (module->supervised)
    return true;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  bool listens = fd >= 0 && str_copy(address.sun_path, sizeof(address.sun_path), module->runtime_path) &&
                 (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 || errno != ECONNREFUSED);
  if (fd >= 0)
    close(fd);
  return listens;
}

static void attach_again(void *argument) {
  struct lifecycle_module *module = argument;
  module->retry_timer = NULL;
  lifecycle_instance_attach(module);
}

void lifecycle_instance_attach(struct lifecycle_module *module) {
  struct lifecycle *lifecycle = module->lifecycle;
  struct stat status;
  core_rpc_timer_cancel(&module->retry_timer);
  bool listens = socket_listens(module);
  if ((!process_is_known(module) || !listens) && module->attach_waits < ATTACH_WAITS_MAX) {
    module->attach_waits++;
    module->retry_timer = core_rpc_timer_start(lifecycle->options.loop, ATTACH_WAIT_MS, attach_again, module);
    return;
  }
  module->attach_waits = 0;
  if (stat(module->runtime_path, &status) == 0) {
    module->runtime_inode = status.st_ino;
    module->runtime_changed_ns = (int64_t)status.st_ctim.tv_sec * 1000000000 + status.st_ctim.tv_nsec;
  }
  if (!listens)
    return; /* left over by a process that is gone: the next one makes its own */
  if (module->instance && module->instance->channel)
    lifecycle_instance_end(module->instance, LIFECYCLE_ON_LOST, "replaced by a new instance");
  lifecycle_instance_free(&module->instance);

  struct lifecycle_instance *instance = BASE_NEW(struct lifecycle_instance);
  instance->magic = LIFECYCLE_INSTANCE_MAGIC;
  instance->module = module;
  instance->state = LIFECYCLE_DISCOVERED;
  instance->discovered_us = clock_monotonic_us();
  str_copy(instance->reason, sizeof(instance->reason), "runtime socket found");
  if (module->process_generation > 0)
    instance->generation = module->process_generation;
  else
    instance->generation = module->generation_last + 1;
  if (instance->generation > module->generation_last)
    module->generation_last = instance->generation;
  instance->channel = core_rpc_channel_create(lifecycle->options.loop, module->runtime_path, NULL);
  instance->start_timer = core_rpc_timer_start(lifecycle->options.loop, lifecycle_module_start_timeout_ms(module),
                                               start_timed_out, instance);
  module->instance = instance;
  log_event(LOG_INFO, "lifecycle", "module discovered", LOG_TEXT("module", module->id),
            LOG_INT("generation", instance->generation));
  step_describe(instance);
}
