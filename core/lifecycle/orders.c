/* orders.c: what operators order (LIF-5). An orderly end goes in steps, each with its time: Drain (the module refuses
 * in its protocol's form and finishes what it has), SIGTERM by the supervisor or Shutdown without one, SIGKILL. While
 * it drains the module is asked how much is in flight, for the status. */
#include <stdio.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define RUNTIME "/core.module.v1.ModuleRuntime/"
#define DRAIN_ANSWER_MS 1000 /* beyond the deadline, for the answer itself */
#define STATS_EVERY_MS 200
#define STATS_TIMEOUT_MS 1000
#define SHUTDOWN_TIMEOUT_MS 2000
#define ORDERED_BY_OPERATOR "by an operator"

#define LEAVE_TEXT "another process of the module takes over"

static const char *const plan_texts[] = {[LIFECYCLE_PLAN_STAY] = "drain ordered " ORDERED_BY_OPERATOR,
                                         [LIFECYCLE_PLAN_STOP] = "stop ordered " ORDERED_BY_OPERATOR,
                                         [LIFECYCLE_PLAN_RESTART] = "restart ordered " ORDERED_BY_OPERATOR};

/* ---- after the drain ---- */

static void shutdown_answered(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  (void)instance;
  (void)result; /* its connection ends next, or its container runtime ends it */
}

static void plan_go_on(struct lifecycle_module *module) {
  struct lifecycle_control *control = module->lifecycle->control;
  enum lifecycle_plan plan = module->plan;
  if (plan == LIFECYCLE_PLAN_STAY || plan == LIFECYCLE_PLAN_NONE)
    return;
  module->plan = LIFECYCLE_PLAN_NONE;
  if (control && module->supervised) {
    if (module->pid && plan == LIFECYCLE_PLAN_STOP)
      lifecycle_control_end(control, module->id, module->process_generation, NULL);
    else if (module->pid)
      lifecycle_control_restart(control, module->id, module->process_generation, NULL);
  } else if (lifecycle_module_is_alive(module)) {
    lifecycle_instance_call(module->instance, LIFECYCLE_CALL_DRAIN, RUNTIME "Shutdown", "", 0, SHUTDOWN_TIMEOUT_MS,
                            shutdown_answered);
  }
}

void lifecycle_orders_instance_ended(struct lifecycle_module *module, uint64_t generation) {
  if (module->plan == LIFECYCLE_PLAN_STAY)
    module->plan = LIFECYCLE_PLAN_NONE;
  if (module->plan != LIFECYCLE_PLAN_NONE && module->ordered_generation == generation)
    plan_go_on(module); /* its process may live on without answering */
}

/* ---- the drain ---- */

static void stats_ask(void *argument);

static void stats_answered(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  Core__Module__V1__ModuleStats *stats =
      result->grpc_status == 0 ? core__module__v1__module_stats__unpack(NULL, result->length, result->data) : NULL;
  if (stats) {
    instance->in_flight = stats->in_flight;
    core__module__v1__module_stats__free_unpacked(stats, NULL);
  }
  if (!instance->drained)
    instance->drain_timer =
        core_rpc_timer_start(instance->module->lifecycle->options.loop, STATS_EVERY_MS, stats_ask, instance);
}

static void stats_ask(void *argument) {
  struct lifecycle_instance *instance = argument;
  instance->drain_timer = NULL;
  lifecycle_instance_call(instance, LIFECYCLE_CALL_STATS, RUNTIME "GetStats", "", 0, STATS_TIMEOUT_MS, stats_answered);
}

static void drain_answered(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  struct lifecycle_module *module = instance->module;
  Core__Module__V1__DrainResponse *response =
      result->grpc_status == 0 ? core__module__v1__drain_response__unpack(NULL, result->length, result->data) : NULL;
  char cause[LIFECYCLE_REASON_BYTES];
  if (!response)
    snprintf(cause, sizeof(cause), "it did not drain: %.120s (%.60s)", result->err.message, result->err.code);
  else if (response->in_flight > 0)
    snprintf(cause, sizeof(cause), "the drain deadline passed, %u in flight", response->in_flight);
  else
    str_copy(cause, sizeof(cause), "drained: nothing in flight");
  instance->in_flight = response ? response->in_flight : instance->in_flight;
  instance->drained = true;
  if (response)
    core__module__v1__drain_response__free_unpacked(response, NULL);
  core_rpc_timer_cancel(&instance->drain_timer);
  log_event(LOG_INFO, "lifecycle", "a module has drained", LOG_TEXT("module", module->id),
            LOG_INT("generation", instance->generation), LOG_INT("in_flight", instance->in_flight),
            LOG_TEXT("outcome", cause));
  if (module->plan == LIFECYCLE_PLAN_STAY) {
    str_copy(instance->reason, sizeof(instance->reason), cause);
    return;
  }
  if (instance->state == LIFECYCLE_DRAINING)
    lifecycle_instance_event(instance, LIFECYCLE_ON_DRAINED, cause);
  plan_go_on(module);
}

static void drain_ask(struct lifecycle_instance *instance, uint32_t deadline_ms) {
  Core__Module__V1__DrainRequest request = CORE__MODULE__V1__DRAIN_REQUEST__INIT;
  request.deadline_ms = deadline_ms;
  request.reason = instance->reason;
  request.hand_over = instance->handing_over;
  size_t length = core__module__v1__drain_request__get_packed_size(&request);
  uint8_t *bytes = base_alloc(length);
  core__module__v1__drain_request__pack(&request, bytes);
  lifecycle_instance_call(instance, LIFECYCLE_CALL_DRAIN, RUNTIME "Drain", bytes, length,
                          (int64_t)deadline_ms + DRAIN_ANSWER_MS, drain_answered);
  base_free(bytes);
  stats_ask(instance);
}

/* It need not become ready any more, nor prove that it lives. */
static void timers_stop(struct lifecycle_module *module, struct lifecycle_instance *instance) {
  core_rpc_timer_cancel(&instance->start_timer);
  core_rpc_timer_cancel(&instance->readiness_timer);
  core_rpc_timer_cancel(&instance->liveness_timer);
  core_rpc_timer_cancel(&module->process_timer);
}

/* Carries a plan out for whatever runs now; what cannot drain ends at once. */
static void plan_begin(struct lifecycle_module *module, enum lifecycle_plan plan, uint32_t deadline_ms) {
  struct lifecycle_instance *instance = lifecycle_module_is_alive(module) ? module->instance : NULL;
  module->plan = plan;
  if (instance)
    timers_stop(module, instance);
  core_rpc_timer_cancel(&module->process_timer);
  if (plan != LIFECYCLE_PLAN_STAY)
    module->ordered_generation = module->pid ? module->process_generation : instance ? instance->generation : 0;
  if (instance && instance->state == LIFECYCLE_DRAINING && !instance->drained)
    return; /* under way: it ends as the newest order says */
  if (instance && lifecycle_instance_event(instance, LIFECYCLE_ON_DRAIN_ORDERED,
                                           instance->handing_over ? LEAVE_TEXT : plan_texts[plan]))
    drain_ask(instance, deadline_ms ? deadline_ms : module->config.drain_timeout_ms);
  else
    plan_go_on(module);
}

void lifecycle_orders_leave(struct lifecycle_module *module, bool hand_over) {
  struct lifecycle_instance *instance = lifecycle_module_is_alive(module) ? module->instance : NULL;
  if (instance && hand_over &&
      (instance->state == LIFECYCLE_WARMING || instance->state == LIFECYCLE_READY ||
       instance->state == LIFECYCLE_DEGRADED || instance->state == LIFECYCLE_ROLLING_BACK)) {
    instance->handing_over = true;
    if (instance->state == LIFECYCLE_ROLLING_BACK) { /* on its way out already, and it says so until it is gone */
      timers_stop(module, instance);
      module->plan = LIFECYCLE_PLAN_STOP;
      module->ordered_generation = module->process_generation;
      drain_ask(instance, module->config.drain_timeout_ms);
      return;
    }
  }
  plan_begin(module, LIFECYCLE_PLAN_STOP, 0);
}

void lifecycle_orders_finish(struct lifecycle_instance *instance) {
  struct lifecycle_module *module = instance->module;
  bool comes_back = module->role == LIFECYCLE_CURRENT && module->hold == LIFECYCLE_HOLD_NONE;
  timers_stop(module, instance);
  module->plan = comes_back ? LIFECYCLE_PLAN_RESTART : LIFECYCLE_PLAN_STOP;
  module->ordered_generation = instance->generation;
  str_copy(instance->reason, sizeof(instance->reason), "it drains, as the core before this one ordered");
  drain_ask(instance, module->config.drain_timeout_ms);
}

/* ---- orders ---- */

static uint64_t generation_now(const struct lifecycle_module *module) {
  if (module->pid)
    return module->process_generation;
  return lifecycle_module_is_alive(module) ? module->instance->generation : 0;
}

bool lifecycle_orders_start(struct lifecycle_module *module, struct error *err) {
  if (module->lifecycle->control && module->supervised)
    return lifecycle_control_start(module->lifecycle->control, module->id, err);
  module->dialled = (struct lifecycle_socket){0}; /* look at its socket as if it were new */
  lifecycle_discovery_scan(module->lifecycle);
  return true;
}

static bool held_refused(const struct lifecycle_module *module, struct error *err) {
  if (module->hold == LIFECYCLE_HOLD_QUARANTINED)
    return !error_set(err, ERR_MODULE_PHASE, "the module is quarantined; `gatehouse module release` brings it back");
  if (module->hold == LIFECYCLE_HOLD_DISABLED)
    return !error_set(err, ERR_MODULE_PHASE, "the module is not enabled in the configuration");
  return false;
}

static bool order_drain(struct lifecycle_module *module, uint32_t deadline_ms, struct error *err) {
  const struct lifecycle_instance *instance = module->instance;
  if (!lifecycle_module_is_alive(module) || instance->state < LIFECYCLE_WARMING || instance->state > LIFECYCLE_DEGRADED)
    return error_set(err, ERR_MODULE_PHASE, "the module is not serving");
  plan_begin(module, LIFECYCLE_PLAN_STAY, deadline_ms);
  return true;
}

static bool order_stop(struct lifecycle_module *module, uint32_t deadline_ms, struct error *err) {
  if (held_refused(module, err))
    return false;
  if (module->hold == LIFECYCLE_HOLD_STOPPED)
    return error_set(err, ERR_MODULE_PHASE, "the module is stopped already");
  lifecycle_redial_cancel(module);
  lifecycle_hold_set(module, LIFECYCLE_HOLD_STOPPED, "stopped " ORDERED_BY_OPERATOR);
  module->restart_waits = false; /* the hold cancelled it */
  plan_begin(module, LIFECYCLE_PLAN_STOP, deadline_ms);
  return true;
}

static bool order_restart(struct lifecycle_module *module, uint32_t deadline_ms, struct error *err) {
  if (held_refused(module, err))
    return false;
  if (module->hold == LIFECYCLE_HOLD_STOPPED)
    return error_set(err, ERR_MODULE_PHASE, "the module is stopped; start it");
  if (!generation_now(module))
    return lifecycle_orders_start(module, err);
  plan_begin(module, LIFECYCLE_PLAN_RESTART, deadline_ms);
  return true;
}

static bool order_start(struct lifecycle_module *module, uint32_t deadline_ms, struct error *err) {
  if (held_refused(module, err))
    return false;
  bool drained_only = lifecycle_module_is_alive(module) && module->instance->state == LIFECYCLE_DRAINING &&
                      module->plan == LIFECYCLE_PLAN_STAY;
  if (drained_only) { /* there is no way back for this process */
    plan_begin(module, LIFECYCLE_PLAN_RESTART, deadline_ms);
    return true;
  }
  if (module->hold == LIFECYCLE_HOLD_STOPPED)
    lifecycle_hold_set(module, LIFECYCLE_HOLD_NONE, "");
  else if (generation_now(module))
    return error_set(err, ERR_MODULE_PHASE, "the module is running");
  if (module->plan == LIFECYCLE_PLAN_STOP)
    module->plan = LIFECYCLE_PLAN_RESTART; /* it was stopping: it comes back when it has ended */
  return lifecycle_orders_start(module, err);
}

/* The module that an order is for; NULL: it takes none now. */
static struct lifecycle_module *order_module(struct lifecycle *lifecycle, const char *module_id, struct error *err) {
  struct lifecycle_module *module = lifecycle_module_named(lifecycle, module_id);
  if (module && module->versions->phase == LIFECYCLE_UPGRADE_NONE)
    return module;
  if (module)
    error_set(err, ERR_MODULE_PHASE, "an upgrade is under way (%s); `gatehouse module rollback` ends it",
              lifecycle_upgrade_phase_name(module->versions->phase));
  else
    error_set(err, ERR_MODULE_UNKNOWN, NULL);
  return NULL;
}

bool lifecycle_order(struct lifecycle *lifecycle, enum lifecycle_order order, const char *module_id,
                     uint32_t drain_deadline_ms, uint64_t *generation, struct error *err) {
  static bool (*const orders[LIFECYCLE_ORDER_COUNT])(struct lifecycle_module *, uint32_t, struct error *) = {
      [LIFECYCLE_ORDER_DRAIN] = order_drain,
      [LIFECYCLE_ORDER_STOP] = order_stop,
      [LIFECYCLE_ORDER_RESTART] = order_restart,
      [LIFECYCLE_ORDER_START] = order_start,
  };
  struct lifecycle_module *module = order_module(lifecycle, module_id, err);
  if (!module)
    return false;
  *generation = generation_now(module);
  return orders[order](module, drain_deadline_ms, err);
}

/* ---- release ---- */

struct release {
  struct lifecycle *lifecycle;
  char module_id[LIFECYCLE_MODULE_ID_BYTES];
  lifecycle_done *done;
  void *arg;
};

static void release_written(void *arg, const struct store_commit_result *result, const struct error *err) {
  struct release *release = arg;
  struct lifecycle_module *module = lifecycle_module_named(release->lifecycle, release->module_id);
  struct error failed = {0};
  (void)result;
  if (!err && module && module->hold == LIFECYCLE_HOLD_QUARANTINED) { /* else something else let it go meanwhile */
    lifecycle_quarantine_lift(module);
    if (!lifecycle_orders_start(module, &failed))
      err = &failed;
  }
  release->done(release->arg, err);
  base_free(release);
}

bool lifecycle_release(struct lifecycle *lifecycle, const char *module_id, lifecycle_done *done, void *arg,
                       struct error *err) {
  struct lifecycle_module *module = order_module(lifecycle, module_id, err);
  if (!module)
    return false;
  if (module->hold != LIFECYCLE_HOLD_QUARANTINED)
    return error_set(err, ERR_MODULE_PHASE, "the module is not quarantined");
  struct release *release = BASE_NEW(struct release);
  *release = (struct release){.lifecycle = lifecycle, .done = done, .arg = arg};
  str_copy(release->module_id, sizeof(release->module_id), module->name);
  lifecycle_quarantine_forget(module, release_written, release);
  return true;
}
