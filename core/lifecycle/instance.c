/* instance.c: takes one instance through the phases: Describe, check, Initialize, health watch, readiness. One call is
 * under way at a time; the health stream then tells of every change, and its end is the first sign of a death. A fresh
 * channel, secret and canary for each attach, so that nothing of a past life is accepted. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/backoff.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/id.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"
#include "wire/pbc/grpc/health/v1/health.pb-c.h"

#define RUNTIME "/core.module.v1.ModuleRuntime/"
#define STEP_TIMEOUT_MS 5000
#define REDIAL_AT_ONCE_MS 1    /* when the process is dying too, the supervisor's word of that may come first */
#define REDIAL_HELD_US 1000000 /* a connection that held for so long was none that failed */
#define ATTACH_WAIT_MS 1       /* for the supervisor's word of a new process */
#define ATTACH_WAITS_MAX 500
#define SECRET_BYTES 32

static void step_describe(struct lifecycle_instance *instance);
static void step_initialize(struct lifecycle_instance *instance);
static void step_watch_health(struct lifecycle_instance *instance);
static void step_readiness(struct lifecycle_instance *instance);
static void readiness_later(struct lifecycle_instance *instance);

static void reattach(void *argument);

/* ---- ends ---- */

static void timers_cancel(struct lifecycle_instance *instance) {
  core_rpc_timer_cancel(&instance->start_timer);
  core_rpc_timer_cancel(&instance->readiness_timer);
  core_rpc_timer_cancel(&instance->liveness_timer);
  core_rpc_timer_cancel(&instance->drain_timer);
}

/* An instance has failed and its process may live. One that was refused or late would stay so for ever: it is ended,
 * and its death says the rest. A lost connection is dialled again; the process has its start timeout to get ready once
 * more. Without a supervisor nobody tells of deaths, so this is the death. */
static void failure_follow_up(struct lifecycle_instance *instance, enum lifecycle_event event,
                              enum lifecycle_state before, const char *cause) {
  static const enum lifecycle_death_cause causes[LIFECYCLE_EVENT_COUNT] = {
      [LIFECYCLE_ON_REFUSED] = LIFECYCLE_DEATH_REFUSED,
      [LIFECYCLE_ON_TIMED_OUT] = LIFECYCLE_DEATH_START,
      [LIFECYCLE_ON_LOST] = LIFECYCLE_DEATH_CONNECTION};
  struct lifecycle_module *module = instance->module;
  bool served = before == LIFECYCLE_READY || before == LIFECYCLE_DEGRADED;
  if (module->lifecycle->stopping || module->hold != LIFECYCLE_HOLD_NONE)
    return;
  if (event != LIFECYCLE_ON_LOST) {
    str_copy(module->fault, sizeof(module->fault), cause);
    module->fault_generation = instance->generation;
  }
  if (module->supervised && module->lifecycle->control) {
    if (event != LIFECYCLE_ON_LOST)
      lifecycle_account_condemn(module, instance->generation, causes[event], event == LIFECYCLE_ON_TIMED_OUT);
    else if (served)
      lifecycle_module_process_watch(module);
  } else if (event != LIFECYCLE_ON_LOST || served) {
    char text[LIFECYCLE_REASON_BYTES];
    bool doomed = module->doomed_generation == instance->generation;
    lifecycle_account_death(module, instance->generation, doomed ? module->doom : causes[event], cause, text);
    lifecycle_account_judge(module, text);
  }
}

void lifecycle_instance_end(struct lifecycle_instance *instance, enum lifecycle_event event, const char *cause) {
  BASE_CHECK_MAGIC(instance, LIFECYCLE_INSTANCE_MAGIC);
  struct lifecycle_module *module = instance->module;
  enum lifecycle_state before = instance->state;
  bool told = lifecycle_instance_event(instance, event, cause);
  timers_cancel(instance);
  secret_free(&instance->channel_secret);
  policy_module_forget(module->lifecycle->options.policy, module->id);
  memset(instance->calls, 0, sizeof(instance->calls)); /* their on_done still runs and finds the channel gone */
  if (event == LIFECYCLE_ON_EXITED)
    core_rpc_channel_leave(&instance->channel);
  else
    core_rpc_channel_close(&instance->channel);
  lifecycle_orders_instance_ended(module, instance->generation);
  if (told && event != LIFECYCLE_ON_EXITED && instance->state == LIFECYCLE_FAILED)
    failure_follow_up(instance, event, before, cause);
}

/* The module refuses while nobody is attached to it: the first try follows at once, those after it with back-off
 * (TRN-6). */
static uint32_t redial_wait_ms(struct lifecycle_module *module, bool held) {
  const struct lifecycle_options *options = &module->lifecycle->options;
  unsigned failures = held ? 0 : module->redials;
  module->redials = failures + 1;
  return failures == 0 ? REDIAL_AT_ONCE_MS : backoff_ms(options->backoff_first_ms, options->backoff_max_ms, failures);
}

void lifecycle_redial_cancel(struct lifecycle_module *module) {
  core_rpc_timer_cancel(&module->retry_timer);
  module->attach_waits = 0; /* else the scan would leave the next socket to a timer that is gone */
}

void lifecycle_instance_lose(struct lifecycle_instance *instance, const char *cause) {
  struct lifecycle_module *module = instance->module;
  bool held = clock_monotonic_us() - instance->discovered_us >= REDIAL_HELD_US;
  lifecycle_instance_end(instance, LIFECYCLE_ON_LOST, cause);
  if (!module->retry_timer && !module->lifecycle->stopping && module->hold == LIFECYCLE_HOLD_NONE)
    module->retry_timer =
        core_rpc_timer_start(module->lifecycle->options.loop, redial_wait_ms(module, held), reattach, module);
}

void lifecycle_instance_free(struct lifecycle_instance **holder) {
  struct lifecycle_instance *instance = BASE_TAKE(*holder);
  if (!instance)
    return;
  timers_cancel(instance);
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
  enum lifecycle_call slot;
  lifecycle_answer *done;
};

/* The instance that a step belongs to, when it is still the one that waits for it. */
static struct lifecycle_instance *step_instance(const struct step *step) {
  struct lifecycle_instance *instance = step->module->instance;
  if (!instance || instance->generation != step->generation)
    return NULL;
  return instance->calls[step->slot] == step->call ? instance : NULL;
}

static void step_done(struct core_rpc_client_call *call, const struct core_rpc_result *result, void *user) {
  struct step *step = user;
  struct lifecycle_instance *instance = step_instance(step);
  (void)call;
  if (instance) {
    instance->calls[step->slot] = NULL;
    step->done(instance, result);
  }
  base_free(step);
}

static void reattach(void *argument) {
  struct lifecycle_module *module = argument;
  module->retry_timer = NULL;
  module->dialled = (struct lifecycle_socket){0}; /* look at the socket as if it were new */
  lifecycle_discovery_scan(module->lifecycle);
}

/* A step failed. Lost connections are tried again while the socket is there; refusals wait for a new process. */
static void step_failed(struct lifecycle_instance *instance, const struct core_rpc_result *result, const char *what) {
  char cause[LIFECYCLE_REASON_BYTES];
  snprintf(cause, sizeof(cause), "%.40s: %.140s (%.60s)", what, result->err.message, result->err.code);
  if (result->err.category == ERROR_CATEGORY_UNAVAILABLE)
    lifecycle_instance_lose(instance, cause);
  else
    lifecycle_instance_end(instance, LIFECYCLE_ON_REFUSED, cause);
}

static void step_refused(struct lifecycle_instance *instance, enum error_code code, const char *what) {
  char cause[LIFECYCLE_REASON_BYTES];
  snprintf(cause, sizeof(cause), "%s (%s)", what, error_code_text(code));
  lifecycle_instance_end(instance, LIFECYCLE_ON_REFUSED, cause);
}

void lifecycle_instance_call(struct lifecycle_instance *instance, enum lifecycle_call slot, const char *method,
                             const void *data, size_t length, int64_t timeout_ms, lifecycle_answer *done) {
  static const struct core_rpc_client_events events = {.on_done = step_done};
  struct step *step = BASE_NEW(struct step);
  *step = (struct step){.module = instance->module, .generation = instance->generation, .slot = slot, .done = done};
  struct core_rpc_request request = {.method = method,
                                     .kind = CORE_RPC_UNARY,
                                     .data = data,
                                     .length = length,
                                     .timeout_ms = timeout_ms,
                                     .events = &events,
                                     .user = step};
  step->call = instance->calls[slot] = core_rpc_client_start(instance->channel, &request);
}

static void step_start(struct lifecycle_instance *instance, const char *method, const void *data, size_t length,
                       lifecycle_answer *done) {
  lifecycle_instance_call(instance, LIFECYCLE_CALL_STEP, method, data, length, STEP_TIMEOUT_MS, done);
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
  size_t config_length;
  const char *config = lifecycle_config_text(instance->module, &config_length);
  if (!lifecycle_descriptor_check(instance->module, instance->descriptor, &instance->granted, &err) ||
      !lifecycle_config_check(instance->descriptor, config, config_length, &err)) {
    char cause[LIFECYCLE_REASON_BYTES];
    log_error_value(LOG_ERROR, "lifecycle", "a module was refused", &err);
    snprintf(cause, sizeof(cause), "%.180s (%.60s)", err.message, err.code);
    lifecycle_instance_end(instance, LIFECYCLE_ON_REFUSED, cause);
    return;
  }
  lifecycle_versions_heard(instance->module, instance->descriptor->module_version);
  if (lifecycle_instance_event(instance, LIFECYCLE_ON_DESCRIBED, NULL))
    step_initialize(instance);
}

static void step_describe(struct lifecycle_instance *instance) {
  step_start(instance, RUNTIME "Describe", "", 0, described);
}

/* Initialize */

static void initialized(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  if (result->grpc_status != 0 && error_is(&result->err, ERR_MODULE_DRAINING)) {
    lifecycle_orders_finish(instance);
    return;
  }
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
  if (lifecycle_instance_event(instance, LIFECYCLE_ON_INITIALIZED, NULL) && !lifecycle_upgrade_sends_away(instance))
    step_watch_health(instance);
}

/* Fills in what the module may know (LIF-2). */
static void initialize_fill(struct lifecycle_instance *instance, Core__Module__V1__InitializeRequest *request) {
  struct lifecycle_module *module = instance->module;
  const struct lifecycle_options *options = &module->lifecycle->options;
  request->module_id = module->name;
  request->generation = instance->generation;
  request->config_json.data = (uint8_t *)(uintptr_t)lifecycle_config_text(module, &request->config_json.len);
  request->config_revision = module->edition.config;
  request->spi_version = (char *)(uintptr_t)LIFECYCLE_SPI_VERSION;
  request->spi_socket = module->spi_path;
  request->runtime_mode = CORE__MODULE__V1__RUNTIME_MODE__RUNTIME_MODE_SIDECAR;
  request->ingress_mode = CORE__MODULE__V1__INGRESS_MODE__INGRESS_MODE_DIRECT;
  request->log_level = (char *)(uintptr_t)options->log_level;
  request->in_flight_max = options->in_flight_max;
  request->core_version = (char *)(uintptr_t)GATEHOUSE_VERSION;
  request->fallback = instance->descriptor->fallback_strategy;
  request->knows_may_have_begun = true;
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
  instance->health_changed = instance->calls[LIFECYCLE_CALL_STEP] != NULL;
  lifecycle_instance_readiness_ask(instance);
}

static void health_ended(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  step_failed(instance, result, "the module's connection ended");
}

static void step_watch_health(struct lifecycle_instance *instance) {
  static const struct core_rpc_client_events events = {.on_message = health_message, .on_done = step_done};
  struct step *step = BASE_NEW(struct step);
  *step = (struct step){.module = instance->module,
                        .generation = instance->generation,
                        .slot = LIFECYCLE_CALL_HEALTH,
                        .done = health_ended};
  struct core_rpc_request request = {.method = "/grpc.health.v1.Health/Watch",
                                     .kind = CORE_RPC_SERVER_STREAM,
                                     .data = "",
                                     .timeout_ms = INT64_MAX,
                                     .events = &events,
                                     .user = step};
  step->call = instance->calls[LIFECYCLE_CALL_HEALTH] = core_rpc_client_start(instance->channel, &request);
  readiness_later(instance);
}

/* Readiness: asked at each change of health and, as the startup or the readiness probe, every so often (LIF-4). What
 * the module says counts at once; missing answers count by the probe's threshold. */

static const struct lifecycle_probe_config *readiness_config(const struct lifecycle_instance *instance) {
  return instance->state == LIFECYCLE_WARMING ? &instance->module->config.startup : &instance->module->config.readiness;
}

static void readiness_probe(void *argument) {
  struct lifecycle_instance *instance = argument;
  instance->readiness_timer = NULL;
  readiness_later(instance);
  lifecycle_instance_readiness_ask(instance);
}

void lifecycle_instance_readiness_ask(struct lifecycle_instance *instance) {
  if (!instance->calls[LIFECYCLE_CALL_STEP])
    step_readiness(instance);
}

static void readiness_later(struct lifecycle_instance *instance) {
  uint32_t interval_ms = readiness_config(instance)->interval_ms;
  core_rpc_timer_cancel(&instance->readiness_timer);
  if (interval_ms > 0)
    instance->readiness_timer =
        core_rpc_timer_start(instance->module->lifecycle->options.loop, interval_ms, readiness_probe, instance);
}

static void readiness_cause(const Core__Module__V1__Readiness *readiness, char *cause, size_t cause_bytes) {
  str_copy(cause, cause_bytes, "not ready");
  for (size_t i = 0; i < readiness->n_conditions; i++)
    if (!readiness->conditions[i]->met) {
      snprintf(cause, cause_bytes, "%.60s: %.160s", readiness->conditions[i]->name, readiness->conditions[i]->message);
      return;
    }
}

/* The module says that this version cannot keep its promises (LIF-11). */
static bool rollback_wanted(const Core__Module__V1__Readiness *readiness) {
  for (size_t i = 0; i < readiness->n_conditions; i++)
    if (!readiness->conditions[i]->met && str_equal(readiness->conditions[i]->name, "holds"))
      return true;
  return false;
}

/* It serves, and says that it cannot do all of it: operators see why. */
static void partly_degraded_tell(struct lifecycle_instance *instance) {
  const Core__Module__V1__Readiness *readiness = instance->readiness;
  for (size_t i = 0; readiness->degraded && i < readiness->n_conditions; i++)
    if (str_equal(readiness->conditions[i]->name, "not_degraded"))
      snprintf(instance->reason, sizeof(instance->reason), "serves, but not fully: %.200s",
               readiness->conditions[i]->message);
}

static void readiness_good(struct lifecycle_instance *instance) {
  const struct lifecycle_probe_config *config = readiness_config(instance);
  enum lifecycle_probe_news news = lifecycle_probe_count(&instance->readiness_probe, config, true);
  if (instance->state == LIFECYCLE_READY) {
    partly_degraded_tell(instance);
    return;
  }
  if (news != LIFECYCLE_PROBE_PASSED && config->interval_ms > 0)
    return; /* the next answers decide */
  core_rpc_timer_cancel(&instance->start_timer);
  instance->module->fault[0] = '\0';
  lifecycle_instance_event(instance, LIFECYCLE_ON_HEALTHY, "every condition of readiness holds");
  partly_degraded_tell(instance);
  readiness_later(instance);
  lifecycle_liveness_begin(instance);
}

static void readiness_missing(struct lifecycle_instance *instance) {
  bool starting = instance->state == LIFECYCLE_WARMING;
  char cause[LIFECYCLE_REASON_BYTES];
  if (lifecycle_probe_count(&instance->readiness_probe, readiness_config(instance), false) != LIFECYCLE_PROBE_FAILED)
    return;
  snprintf(cause, sizeof(cause), "no answer to %u %s probes in a row (%s)", instance->readiness_probe.failures,
           starting ? "startup" : "readiness", error_code_text(ERR_MODULE_PROBE));
  if (starting)
    lifecycle_instance_end(instance, LIFECYCLE_ON_TIMED_OUT, cause);
  else if (instance->state == LIFECYCLE_READY)
    lifecycle_instance_event(instance, LIFECYCLE_ON_UNHEALTHY, cause);
}

static void readiness_answered(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  if (result->grpc_status != 0 && result->err.category == ERROR_CATEGORY_UNAVAILABLE) {
    readiness_missing(instance); /* a lost connection also ends the health stream, and that is told there */
    return;
  }
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
    readiness_good(instance);
  } else if (readiness->ready && instance->healthy) {
    step_refused(instance, ERR_MODULE_CANARY, "ready without having proven its deny path");
  } else {
    instance->readiness_probe = (struct lifecycle_probe){0};
    readiness_cause(readiness, cause, sizeof(cause));
    if (rollback_wanted(readiness) && instance->module->role == LIFECYCLE_CURRENT &&
        lifecycle_upgrade_fall_back(instance->module, cause))
      return; /* this one is given up */
    if (instance->state == LIFECYCLE_READY)
      lifecycle_instance_event(instance, LIFECYCLE_ON_UNHEALTHY, cause);
    else if (instance->state == LIFECYCLE_WARMING || instance->state == LIFECYCLE_DEGRADED)
      str_copy(instance->reason, sizeof(instance->reason), cause);
  }
}

static void step_readiness(struct lifecycle_instance *instance) {
  lifecycle_instance_call(instance, LIFECYCLE_CALL_STEP, RUNTIME "GetReadiness", "", 0,
                          readiness_config(instance)->timeout_ms, readiness_answered);
}

/* ---- beginning ---- */

static void start_timed_out(void *argument) {
  struct lifecycle_instance *instance = argument;
  instance->start_timer = NULL;
  char cause[LIFECYCLE_REASON_BYTES];
  snprintf(cause, sizeof(cause), "not ready in time; last: %.160s (%s)", instance->reason,
           error_code_text(ERR_MODULE_START_TIMEOUT));
  lifecycle_instance_end(instance, LIFECYCLE_ON_TIMED_OUT, cause);
}

/* A socket can be seen before the supervisor's word of the process behind it has arrived: then the generation is not
 * known yet. */
static bool process_is_known(const struct lifecycle_module *module) {
  if (!module->supervised)
    return true;
  return module->pid && (kill(module->pid, 0) == 0 || errno != ESRCH);
}

static bool socket_is(const struct lifecycle_socket *one, const struct lifecycle_socket *other) {
  return one->inode == other->inode && one->changed_ns == other->changed_ns;
}

static void attach_again(void *argument) {
  struct lifecycle_module *module = argument;
  module->retry_timer = NULL;
  lifecycle_instance_attach(module);
}

/* The module's newest, in the place of the one before. */
static struct lifecycle_instance *instance_make(struct lifecycle_module *module, enum lifecycle_state state,
                                                const char *reason) {
  struct lifecycle_instance *instance = BASE_NEW(struct lifecycle_instance);
  lifecycle_instance_free(&module->instance);
  instance->magic = LIFECYCLE_INSTANCE_MAGIC;
  instance->module = module;
  instance->state = state;
  instance->discovered_us = clock_monotonic_us();
  str_copy(instance->reason, sizeof(instance->reason), reason);
  instance->generation = module->process_generation > 0 ? module->process_generation : module->generation_last + 1;
  if (instance->generation > module->generation_last)
    module->generation_last = instance->generation;
  module->instance = instance;
  return instance;
}

void lifecycle_instance_imagine(struct lifecycle_module *module, enum lifecycle_state state) {
  instance_make(module, state, "");
}

void lifecycle_instance_attach(struct lifecycle_module *module) {
  struct lifecycle *lifecycle = module->lifecycle;
  core_rpc_timer_cancel(&module->retry_timer);
  if (module->hold != LIFECYCLE_HOLD_NONE) {
    lifecycle_redial_cancel(module);
    return;
  }
  /* A socket that takes the place of another in the middle of this may have been dialled or not: it would be lost. One
   * that does so later is waited for as long as any other: it may be bound already and not listen yet. */
  struct lifecycle_socket dialled = lifecycle_discovery_look(module);
  struct core_rpc_channel *channel = core_rpc_channel_create(lifecycle->options.loop, module->runtime_path);
  struct lifecycle_socket then = lifecycle_discovery_look(module);
  bool certain = channel && process_is_known(module) && socket_is(&then, &dialled);
  if (!socket_is(&then, &module->attach_last))
    module->attach_waits = 0;
  module->attach_last = then;
  if (!certain && module->attach_waits < ATTACH_WAITS_MAX) {
    core_rpc_channel_close(&channel);
    module->attach_waits++;
    module->retry_timer = core_rpc_timer_start(lifecycle->options.loop, ATTACH_WAIT_MS, attach_again, module);
    return;
  }
  module->attach_waits = 0;
  module->dialled = dialled;
  if (!channel)
    return; /* left over by a process that is gone: the next one makes its own */
  if (module->instance && module->instance->channel)
    lifecycle_instance_end(module->instance, LIFECYCLE_ON_LOST, "replaced by a new instance");
  if (module->hold != LIFECYCLE_HOLD_NONE) {
    core_rpc_channel_close(&channel);
    return; /* that was one too many */
  }
  struct lifecycle_instance *instance = instance_make(module, LIFECYCLE_DISCOVERED, "runtime socket found");
  instance->channel = channel;
  instance->start_timer = core_rpc_timer_start(lifecycle->options.loop, lifecycle_module_start_timeout_ms(module),
                                               start_timed_out, instance);
  log_event(LOG_INFO, "lifecycle", "module discovered", LOG_TEXT("module", module->id),
            LOG_INT("generation", instance->generation));
  step_describe(instance);
}
