/* quarantine.c: a module that cannot hold is kept down until an operator releases it (LIF-8). The supervisor is told to
 * hold it, operators are told by the log at level error, a metric, the state graph and the status, and the decision is
 * a row of the store, so that neither a new core nor a new supervisor begins the loop anew. A release is promised to an
 * operator: it counts, and is answered, when the row is gone from the disk. */
#include <stdio.h>
#include <string.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

#define NAMESPACE "lifecycle"
#define KEY_PREFIX "quarantine/"
/* Of the reason that the supervisor keeps: it tells a quarantine from an operator's stop when the store forgets. */
#define HOLD_PREFIX "quarantined: "
#define DISABLED_REASON "not enabled in the configuration" /* as the supervisor says it */

/* ---- the row ---- */

static void row_key(const struct lifecycle_module *module, char key[static 64]) {
  snprintf(key, 64, KEY_PREFIX "%s", module->name);
}

/* Not waited for: nothing was promised by it. Until it is on disk the supervisor remembers the hold for the next core,
 * and if everything dies in these milliseconds the module shows once more that it cannot hold. */
static void row_put(const struct lifecycle_module *module) {
  struct store *store = module->lifecycle->options.store;
  char key[64];
  if (!store)
    return;
  struct store_batch *batch = store_batch_create();
  row_key(module, key);
  store_batch_put(batch, NAMESPACE, key, module->hold_reason, strlen(module->hold_reason), STORE_REVISION_ANY);
  store_commit(store, &batch, NULL, NULL);
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

static bool row_restore(void *arg, const struct store_row *row) {
  struct lifecycle *lifecycle = arg;
  struct lifecycle_module *module = lifecycle_module_ensure(lifecycle, row->key + strlen(KEY_PREFIX));
  if (!module)
    return true;
  char reason[LIFECYCLE_REASON_BYTES];
  snprintf(reason, sizeof(reason), "%.*s", (int)row->length, (const char *)row->value);
  lifecycle_hold_set(module, LIFECYCLE_HOLD_QUARANTINED, reason);
  lifecycle_instance_imagine(module, LIFECYCLE_STOPPED);
  lifecycle_instance_event(module->instance, LIFECYCLE_ON_HELD, module->hold_reason);
  log_event(LOG_ERROR, "lifecycle", "a module is still quarantined", LOG_TEXT("module", module->id),
            LOG_TEXT("reason", module->hold_reason));
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

void lifecycle_hold_adopt(struct lifecycle_module *module, bool held, const char *reason) {
  if (module->hold == LIFECYCLE_HOLD_QUARANTINED) { /* by the store: also a new supervisor is to hold it */
    char remembered[LIFECYCLE_REASON_BYTES];
    str_copy(remembered, sizeof(remembered), module->hold_reason);
    lifecycle_hold_set(module, LIFECYCLE_HOLD_QUARANTINED, remembered);
  } else if (!held) {
    module->hold = LIFECYCLE_HOLD_NONE;
  } else if (str_equal(reason, DISABLED_REASON)) {
    module->hold = LIFECYCLE_HOLD_DISABLED;
    str_copy(module->hold_reason, sizeof(module->hold_reason), reason);
  } else if (str_starts_with(reason, HOLD_PREFIX)) {
    lifecycle_quarantine_begin(module, reason + strlen(HOLD_PREFIX));
  } else {
    lifecycle_hold_set(module, LIFECYCLE_HOLD_STOPPED, reason);
  }
}

/* ---- quarantine ---- */

void lifecycle_quarantine_begin(struct lifecycle_module *module, const char *reason) {
  core_rpc_timer_cancel(&module->retry_timer);
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
  row_put(module);
  log_event(LOG_ERROR, "lifecycle", "a module is quarantined: it stays down until `gatehouse module release`",
            LOG_TEXT("module", module->id), LOG_TEXT("reason", module->hold_reason),
            LOG_TEXT("code", error_code_text(ERR_MODULE_QUARANTINED)));
}

void lifecycle_quarantine_lift(struct lifecycle_module *module) {
  lifecycle_deaths_forgive(&module->deaths);
  lifecycle_hold_set(module, LIFECYCLE_HOLD_NONE, "");
  if (module->instance)
    lifecycle_instance_event(module->instance, LIFECYCLE_ON_RELEASED, "released by an operator");
  log_event(LOG_INFO, "lifecycle", "a module is released from quarantine", LOG_TEXT("module", module->id));
}

void lifecycle_quarantine_end(struct lifecycle_module *module) {
  lifecycle_quarantine_forget(module, NULL, NULL);
  lifecycle_quarantine_lift(module);
}
