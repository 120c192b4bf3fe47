/* quarantine.c: a module that cannot hold is kept down (LIF-8). The supervisor is told to hold it, operators are told
 * by the log at level error, a metric, the state graph and the status, and the decision is a row of the store, so that
 * neither a new core nor a new supervisor begins the loop anew.
 *
 * One that never was ready stays down until an operator releases it: the same start would end the same way. One that
 * had been ready is started on trial after a pause, since what broke it may have come from outside and be gone. On
 * trial one death is enough: it is held again, for twice as long, up to an hour. When it has been ready for as long as
 * deaths are counted the trial is over and all is forgotten. A release is promised to an operator: it counts, and is
 * answered, when the row is gone from the disk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define NAMESPACE "lifecycle"
#define KEY_PREFIX "quarantine/"
/* Of the reason that the supervisor keeps: it tells a quarantine from an operator's stop when the store forgets. */
#define HOLD_PREFIX "quarantined: "
#define DISABLED_REASON "not enabled in the configuration" /* as the supervisor says it */
#define PAUSE_MAX_MS 3600000

static void timer_start(struct lifecycle_module *module);

/* ---- the row ---- */

static bool is_remembered(const struct lifecycle_module *module) {
  return module->hold == LIFECYCLE_HOLD_QUARANTINED || module->versions->quarantine.on_trial;
}

/* Borrows the reason. */
static void fill(const struct lifecycle_module *module, Core__Admin__V1__ModuleQuarantine *message) {
  const struct lifecycle_quarantine *quarantine = &module->versions->quarantine;
  core__admin__v1__module_quarantine__init(message);
  message->reason = (char *)(uintptr_t)module->hold_reason;
  message->pause_ms = quarantine->pause_ms;
  message->trial_at_ms = quarantine->trial_at_ms;
  message->on_trial = quarantine->on_trial;
}

static uint8_t *pack(const struct lifecycle_module *module, size_t *length) {
  Core__Admin__V1__ModuleQuarantine message;
  fill(module, &message);
  *length = core__admin__v1__module_quarantine__get_packed_size(&message);
  uint8_t *bytes = base_alloc(*length + 1);
  core__admin__v1__module_quarantine__pack(&message, bytes);
  return bytes;
}

Core__Admin__V1__ModuleQuarantine *lifecycle_quarantine_message(const struct lifecycle_module *module) {
  size_t length;
  if (!is_remembered(module))
    return NULL;
  uint8_t *bytes = pack(module, &length);
  Core__Admin__V1__ModuleQuarantine *copy = core__admin__v1__module_quarantine__unpack(NULL, length, bytes);
  base_free(bytes);
  return copy;
}

static void row_key(const struct lifecycle_module *module, char key[static 64]) {
  snprintf(key, 64, KEY_PREFIX "%s", module->name);
}

/* Not waited for: nothing was promised by it. Until it is on disk the supervisor remembers the hold for the next core,
 * and if everything dies in these milliseconds the module shows once more that it cannot hold. */
static void row_put(const struct lifecycle_module *module) {
  struct store *store = module->lifecycle->options.store;
  char key[64];
  size_t length;
  if (!store)
    return;
  struct store_batch *batch = store_batch_create();
  uint8_t *bytes = pack(module, &length);
  row_key(module, key);
  store_batch_put(batch, NAMESPACE, key, bytes, length, STORE_REVISION_ANY);
  store_commit(store, &batch, NULL, NULL);
  base_free(bytes);
}

void lifecycle_quarantine_forget(const struct lifecycle_module *module, store_done *done, void *arg) {
  struct store *store = module->lifecycle->options.store;
  char key[64];
  if (!store) {
    if (done)
      done(arg, NULL, NULL);
    return;
  }
  struct store_batch *batch = store_batch_create();
  row_key(module, key);
  store_batch_delete(batch, NAMESPACE, key, STORE_REVISION_ANY);
  store_commit(store, &batch, done, arg);
}

static void hold_restore(struct lifecycle_module *module, const char *reason) {
  lifecycle_hold_set(module, LIFECYCLE_HOLD_QUARANTINED, reason);
  lifecycle_instance_imagine(module, LIFECYCLE_STOPPED);
  lifecycle_instance_event(module->instance, LIFECYCLE_ON_HELD, module->hold_reason);
  timer_start(module);
  log_event(LOG_ERROR, "lifecycle", "a module is still quarantined", LOG_TEXT("module", module->id),
            LOG_TEXT("reason", module->hold_reason));
}

/* What cannot be read holds the module all the same. */
static bool row_restore(void *arg, const struct store_row *row) {
  struct lifecycle *lifecycle = arg;
  struct lifecycle_module *module = lifecycle_module_ensure(lifecycle, row->key + strlen(KEY_PREFIX));
  if (!module)
    return true;
  struct lifecycle_quarantine *quarantine = &module->versions->quarantine;
  Core__Admin__V1__ModuleQuarantine *message =
      core__admin__v1__module_quarantine__unpack(NULL, row->length, row->value);
  if (message && module->config.quarantine_retry_ms > 0) {
    quarantine->pause_ms = message->pause_ms;
    quarantine->trial_at_ms = message->trial_at_ms;
  }
  bool due = quarantine->pause_ms > 0 && quarantine->trial_at_ms <= clock_wall_ms(); /* it may run already */
  quarantine->on_trial = message && (message->on_trial || due);
  if (!quarantine->on_trial)
    hold_restore(module, message ? message->reason : "why cannot be read any more");
  if (message)
    core__admin__v1__module_quarantine__free_unpacked(message, NULL);
  return true;
}

bool lifecycle_quarantine_restore(struct lifecycle *lifecycle, struct error *err) {
  return !lifecycle->options.store ||
         store_scan(lifecycle->options.store, NAMESPACE, KEY_PREFIX, row_restore, lifecycle, err);
}

/* ---- holds ---- */

void lifecycle_hold_set(struct lifecycle_module *module, enum lifecycle_hold hold, const char *reason) {
  static const enum error_code codes[] = {
      [LIFECYCLE_HOLD_STOPPED] = ERR_MODULE_STOPPED, [LIFECYCLE_HOLD_QUARANTINED] = ERR_MODULE_QUARANTINED};
  const char *const labels[] = {module->name, NULL};
  char told[LIFECYCLE_REASON_BYTES + sizeof(HOLD_PREFIX)];
  module->hold = hold;
  str_copy(module->hold_reason, sizeof(module->hold_reason), reason);
  observe_gauge_set(module->lifecycle->options.observe, OBSERVE_MODULE_QUARANTINED, labels,
                    hold == LIFECYCLE_HOLD_QUARANTINED);
  if (!module->lifecycle->control || !module->supervised)
    return;
  snprintf(told, sizeof(told), "%s%s", hold == LIFECYCLE_HOLD_QUARANTINED ? HOLD_PREFIX : "", module->hold_reason);
  lifecycle_control_hold(module->lifecycle->control, module->id, hold != LIFECYCLE_HOLD_NONE, told,
                         hold == LIFECYCLE_HOLD_NONE ? ERR_NONE : codes[hold]);
}

/* Also by a new core, whose predecessor may have died before it said so: the supervisor knows what was told. */
static void alert_held(const struct lifecycle_module *module) {
  lifecycle_alert(module->lifecycle, LIFECYCLE_ALERT_QUARANTINED, module->name, module->process_generation,
                  module->hold_reason);
}

void lifecycle_hold_adopt(struct lifecycle_module *module, bool held, const char *reason) {
  if (module->hold == LIFECYCLE_HOLD_QUARANTINED) { /* by the store: also a new supervisor is to hold it */
    char remembered[LIFECYCLE_REASON_BYTES];
    str_copy(remembered, sizeof(remembered), module->hold_reason);
    lifecycle_hold_set(module, LIFECYCLE_HOLD_QUARANTINED, remembered);
    alert_held(module);
  } else if (!held) {
    module->hold = LIFECYCLE_HOLD_NONE;
  } else if (str_equal(reason, DISABLED_REASON)) {
    module->hold = LIFECYCLE_HOLD_DISABLED;
    str_copy(module->hold_reason, sizeof(module->hold_reason), reason);
  } else if (str_starts_with(reason, HOLD_PREFIX) && module->versions->quarantine.on_trial) {
    lifecycle_hold_set(module, LIFECYCLE_HOLD_NONE, ""); /* the core before ended between its two words */
  } else if (str_starts_with(reason, HOLD_PREFIX) && module->versions->first->hold == LIFECYCLE_HOLD_QUARANTINED) {
    lifecycle_quarantine_move(module->versions->first, module); /* the row names the module, not the process */
  } else if (str_starts_with(reason, HOLD_PREFIX)) {
    lifecycle_quarantine_begin(module, reason + strlen(HOLD_PREFIX));
  } else {
    lifecycle_hold_set(module, LIFECYCLE_HOLD_STOPPED, reason);
  }
}

/* ---- quarantine ---- */

static void hold_down(struct lifecycle_module *module, const char *reason) {
  lifecycle_redial_cancel(module);
  lifecycle_hold_set(module, LIFECYCLE_HOLD_QUARANTINED, reason);
  if (module->lifecycle->control && module->pid) {
    module->ordered_generation = module->process_generation;
    lifecycle_control_kill(module->lifecycle->control, module->id, module->process_generation, false);
  }
  if (module->instance && module->instance->channel) /* a newer one, which is not wanted any more */
    lifecycle_instance_end(module->instance, LIFECYCLE_ON_REFUSED, reason);
  if (!module->instance)
    lifecycle_instance_imagine(module, LIFECYCLE_STOPPED);
  lifecycle_instance_event(module->instance, LIFECYCLE_ON_HELD, module->hold_reason);
  timer_start(module);
  row_put(module);
}

/* How long it is held, when it is to be tried again at all. */
static uint64_t next_pause_ms(const struct lifecycle_module *module) {
  uint64_t before_ms = module->versions->quarantine.pause_ms;
  if (module->config.quarantine_retry_ms == 0 || (before_ms == 0 && module->ready_generation == 0))
    return 0;
  if (before_ms == 0)
    return module->config.quarantine_retry_ms;
  return before_ms < PAUSE_MAX_MS / 2 ? 2 * before_ms : PAUSE_MAX_MS;
}

void lifecycle_quarantine_begin(struct lifecycle_module *module, const char *reason) {
  struct lifecycle_quarantine *quarantine = &module->versions->quarantine;
  quarantine->pause_ms = next_pause_ms(module);
  quarantine->trial_at_ms = quarantine->pause_ms ? clock_wall_ms() + (int64_t)quarantine->pause_ms : 0;
  quarantine->on_trial = false;
  hold_down(module, reason);
  log_event(LOG_ERROR, "lifecycle",
            quarantine->pause_ms ? "a module is quarantined until its trial start or `gatehouse module release`"
                                 : "a module is quarantined: it stays down until `gatehouse module release`",
            LOG_TEXT("module", module->id), LOG_TEXT("reason", module->hold_reason),
            LOG_INT("trial_in_ms", quarantine->pause_ms), LOG_TEXT("code", error_code_text(ERR_MODULE_QUARANTINED)));
  alert_held(module);
}

static void let_go(struct lifecycle_module *module, const char *cause) {
  core_rpc_timer_cancel(&module->versions->quarantine.timer);
  lifecycle_deaths_forgive(&module->deaths);
  lifecycle_hold_set(module, LIFECYCLE_HOLD_NONE, "");
  if (module->instance)
    lifecycle_instance_event(module->instance, LIFECYCLE_ON_RELEASED, cause);
  log_event(LOG_INFO, "lifecycle", "a module is released from quarantine", LOG_TEXT("module", module->id),
            LOG_TEXT("cause", cause));
  lifecycle_alert(module->lifecycle, LIFECYCLE_ALERT_RELEASED, module->name, module->process_generation, cause);
}

static void pause_forget(struct lifecycle_quarantine *quarantine) {
  quarantine->pause_ms = 0;
  quarantine->trial_at_ms = 0;
  quarantine->on_trial = false;
}

void lifecycle_quarantine_lift(struct lifecycle_module *module) {
  pause_forget(&module->versions->quarantine);
  let_go(module, "released by an operator");
}

void lifecycle_quarantine_end(struct lifecycle_module *module) {
  lifecycle_quarantine_forget(module, NULL, NULL);
  lifecycle_quarantine_lift(module);
}

void lifecycle_quarantine_move(struct lifecycle_module *from, struct lifecycle_module *to) {
  char reason[LIFECYCLE_REASON_BYTES];
  str_copy(reason, sizeof(reason), from->hold_reason);
  lifecycle_hold_set(from, LIFECYCLE_HOLD_NONE, "");
  hold_down(to, reason);
}

/* ---- the trial ---- */

static void trial_over(void *argument) {
  struct lifecycle_module *module = argument;
  struct lifecycle_quarantine *quarantine = &module->versions->quarantine;
  quarantine->timer = NULL;
  pause_forget(quarantine);
  lifecycle_quarantine_forget(module, NULL, NULL);
  log_event(LOG_INFO, "lifecycle", "a module held after its quarantine", LOG_TEXT("module", module->id));
}

void lifecycle_quarantine_ready(struct lifecycle_module *module) {
  struct lifecycle_quarantine *quarantine = &module->versions->quarantine;
  if (quarantine->on_trial && !quarantine->timer)
    quarantine->timer =
        core_rpc_timer_start(module->lifecycle->options.loop, module->config.intensity.window_ms, trial_over, module);
}

static void trial_begin(void *argument) {
  struct lifecycle_module *module = argument;
  struct lifecycle_quarantine *quarantine = &module->versions->quarantine;
  struct error err = {0};
  quarantine->timer = NULL;
  if (module->hold != LIFECYCLE_HOLD_QUARANTINED)
    return;
  quarantine->on_trial = true;
  let_go(module, "started on trial");
  row_put(module);
  if (module->lifecycle->control && !module->supervised)
    return; /* the supervisor's first list of processes is to come, and starts what is down */
  if (!lifecycle_orders_start(module, &err))
    log_error_value(LOG_ERROR, "lifecycle", "a trial start was not ordered", &err);
}

/* For the trial that is due, if there is to be one. */
static void timer_start(struct lifecycle_module *module) {
  struct lifecycle_quarantine *quarantine = &module->versions->quarantine;
  int64_t left_ms = quarantine->trial_at_ms - clock_wall_ms();
  core_rpc_timer_cancel(&quarantine->timer);
  if (quarantine->pause_ms == 0)
    return;
  if (left_ms > (int64_t)quarantine->pause_ms) /* the wall clock was set back */
    left_ms = (int64_t)quarantine->pause_ms;
  quarantine->timer =
      core_rpc_timer_start(module->lifecycle->options.loop, left_ms > 0 ? (uint64_t)left_ms : 0, trial_begin, module);
}
