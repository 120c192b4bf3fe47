/* probes.c: that a process becomes ready in time (LIF-8), and liveness (LIF-4): once an instance is ready its health
 * service is called again and again. What it answers is not looked at, only that it does: a loop that hangs, a process
 * that was stopped, cannot. So many calls in a row without an answer and it is condemned; with a supervisor it gets
 * SIGABRT first and writes where it hangs, then SIGKILL. */
#include <stdio.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"

/* When the core's own loop was so late, a missing answer says nothing about the module. */
#define OWN_DELAY_MAX_MS 500
#define SLOW_MS 1000 /* an answer that is later than this is worth a line */

/* ---- becoming ready ---- */

/* The process lives and does not get ready, however often it was dialled: to wait longer would be to wait for ever
 * (LIF-8). */
static void process_timed_out(void *argument) {
  struct lifecycle_module *module = argument;
  module->process_timer = NULL;
  if (!module->pid)
    return;
  uint64_t generation = module->process_generation;
  struct lifecycle_instance *instance = module->instance;
  bool shown = instance && instance->generation == generation;
  lifecycle_module_fault(module, generation, ERR_MODULE_START_TIMEOUT, "not ready in time; last: %.160s",
                         shown ? instance->reason : "it never showed its runtime socket");
  if (shown && instance->channel)
    lifecycle_instance_end(instance, LIFECYCLE_ON_TIMED_OUT, module->fault);
  lifecycle_account_condemn(module, generation, LIFECYCLE_DEATH_START, true);
}

void lifecycle_module_process_watch(struct lifecycle_module *module) {
  if (!module->pid || module->process_timer)
    return;
  module->process_timer = core_rpc_timer_start(module->lifecycle->options.loop,
                                               lifecycle_module_start_timeout_ms(module), process_timed_out, module);
}

/* ---- liveness ---- */

static void liveness_ask(void *argument);

static void liveness_later(struct lifecycle_instance *instance) {
  instance->liveness_timer = core_rpc_timer_start(
      instance->module->lifecycle->options.loop, instance->module->config.liveness.interval_ms, liveness_ask, instance);
}

static void liveness_failed(struct lifecycle_instance *instance) {
  struct lifecycle_module *module = instance->module;
  char cause[LIFECYCLE_REASON_BYTES];
  lifecycle_module_fault(module, instance->generation, ERR_MODULE_PROBE,
                         "it hangs: no answer to %u liveness probes in a row", instance->liveness_probe.failures);
  snprintf(cause, sizeof(cause), "%s", module->fault);
  lifecycle_account_condemn(module, instance->generation, LIFECYCLE_DEATH_PROBE, true);
  lifecycle_instance_lose(instance, cause);
}

/* The first missing answer shows in the status at once: a module that hangs gets no new work. A candidate is judged by
 * the threshold alone. */
static void liveness_missed(struct lifecycle_instance *instance) {
  const struct lifecycle_module *module = instance->module;
  unsigned in_a_row = instance->liveness_probe.failures;
  char cause[LIFECYCLE_REASON_BYTES];
  log_event(LOG_WARN, "lifecycle", "no answer to a liveness probe", LOG_TEXT("module", module->id),
            LOG_INT("generation", instance->generation), LOG_INT("in_a_row", in_a_row));
  snprintf(cause, sizeof(cause), "no answer in %u ms to %u liveness probe%s in a row (%s)",
           module->config.liveness.timeout_ms, in_a_row, in_a_row == 1 ? "" : "s", error_code_text(ERR_MODULE_PROBE));
  if (instance->state == LIFECYCLE_READY && module->role == LIFECYCLE_CURRENT)
    lifecycle_instance_event(instance, LIFECYCLE_ON_UNHEALTHY, cause);
}

static void liveness_answered(struct lifecycle_instance *instance, const struct core_rpc_result *result) {
  const struct lifecycle_probe_config *config = &instance->module->config.liveness;
  int64_t took_ms = (clock_monotonic_us() - instance->liveness_asked_us) / 1000;
  if (instance->state != LIFECYCLE_READY && instance->state != LIFECYCLE_DEGRADED)
    return; /* it is told to end, which has deadlines of its own */
  bool answered = result->grpc_status == 0 || result->err.category != ERROR_CATEGORY_UNAVAILABLE;
  bool own_fault = !answered && took_ms > (int64_t)config->timeout_ms + OWN_DELAY_MAX_MS;
  bool back = answered && instance->liveness_probe.failures > 0;
  if (!own_fault && lifecycle_probe_count(&instance->liveness_probe, config, answered) == LIFECYCLE_PROBE_FAILED) {
    liveness_failed(instance);
    return;
  }
  if (answered && took_ms > SLOW_MS)
    log_event(LOG_WARN, "lifecycle", "a module's loop was held up", LOG_TEXT("module", instance->module->id),
              LOG_INT("generation", instance->generation), LOG_INT("milliseconds", took_ms));
  if (!answered && !own_fault && took_ms >= (int64_t)config->timeout_ms) /* a lost connection is told elsewhere */
    liveness_missed(instance);
  if (back)
    lifecycle_instance_readiness_ask(instance); /* whether it is ready again is not this probe's to say */
  liveness_later(instance);
}

static void liveness_ask(void *argument) {
  struct lifecycle_instance *instance = argument;
  instance->liveness_timer = NULL;
  instance->liveness_asked_us = clock_monotonic_us();
  lifecycle_instance_call(instance, LIFECYCLE_CALL_LIVENESS, "/grpc.health.v1.Health/Check", "", 0,
                          instance->module->config.liveness.timeout_ms, liveness_answered);
}

void lifecycle_liveness_begin(struct lifecycle_instance *instance) {
  if (instance->module->config.liveness.interval_ms == 0 || instance->liveness_timer ||
      instance->calls[LIFECYCLE_CALL_LIVENESS])
    return;
  liveness_later(instance);
}
