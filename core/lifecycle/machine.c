/* machine.c: the state machine of an instance, carried out from transitions.def. Every transition is logged, kept in
 * the module's history, and recorded in the state graph with its cause (LIF-1). */
#include <string.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/check.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

static const char *const state_names[LIFECYCLE_STATE_COUNT] = {
#define LIFECYCLE_STATE(name, text) text,
#include "core/lifecycle/states.def"
#undef LIFECYCLE_STATE
};

static const char *const event_names[LIFECYCLE_EVENT_COUNT] = {
#define LIFECYCLE_EVENT(name, text) text,
#include "core/lifecycle/events.def"
#undef LIFECYCLE_EVENT
};

/* The table; 0 is forbidden, else the new state plus one. */
static const unsigned char table[LIFECYCLE_STATE_COUNT][LIFECYCLE_EVENT_COUNT] = {
#define LIFECYCLE_TRANSITION(from, event, to) [LIFECYCLE_##from][LIFECYCLE_ON_##event] = LIFECYCLE_##to + 1,
#include "core/lifecycle/transitions.def"
#undef LIFECYCLE_TRANSITION
};

const char *lifecycle_state_name(enum lifecycle_state state) {
  return state < LIFECYCLE_STATE_COUNT ? state_names[state] : "unknown";
}

bool lifecycle_transition_lookup(enum lifecycle_state from, enum lifecycle_event event, enum lifecycle_state *to) {
  BASE_CHECK(from < LIFECYCLE_STATE_COUNT && event < LIFECYCLE_EVENT_COUNT);
  if (!table[from][event])
    return false;
  *to = (enum lifecycle_state)(table[from][event] - 1);
  return true;
}

static void history_append(struct lifecycle_instance *instance, enum lifecycle_state from, enum lifecycle_state to,
                           const char *cause) {
  struct lifecycle_module *module = instance->module->versions->first; /* one history for all its processes */
  struct lifecycle_transition *slot = &module->history[module->history_count++ % LIFECYCLE_HISTORY_MAX];
  slot->at_ms = clock_wall_ms();
  slot->generation = instance->generation;
  slot->from = from;
  slot->to = to;
  str_copy(slot->cause, sizeof(slot->cause), cause);
}

static void serving_tell(struct lifecycle_instance *instance) {
  struct lifecycle *lifecycle = instance->module->lifecycle;
  bool serving = instance->state == LIFECYCLE_READY;
  const char *const labels[] = {instance->module->name, NULL};
  if (instance->module->role == LIFECYCLE_CURRENT)
    observe_gauge_set(lifecycle->options.observe, OBSERVE_MODULE_STATE, labels, serving ? 1 : 0);
  if (serving == instance->serving)
    return;
  instance->serving = serving;
  if (serving)
    observe_duration(lifecycle->options.observe, OBSERVE_MODULE_ATTACH_SECONDS, labels,
                     (uint64_t)(clock_monotonic_us() - instance->discovered_us));
  if (lifecycle->options.on_serving)
    lifecycle->options.on_serving(lifecycle->options.arg, instance, serving);
}

/* What follows a degraded instance that is no better is told by who decides it. */
static void alert_tell(const struct lifecycle_instance *instance, enum lifecycle_state to, const char *cause) {
  if (to == LIFECYCLE_DEGRADED || to == LIFECYCLE_READY)
    lifecycle_alert(instance->module->lifecycle,
                    to == LIFECYCLE_DEGRADED ? LIFECYCLE_ALERT_DEGRADED : LIFECYCLE_ALERT_RECOVERED,
                    instance->module->name, instance->generation, cause);
}

bool lifecycle_instance_event(struct lifecycle_instance *instance, enum lifecycle_event event, const char *cause) {
  BASE_CHECK_MAGIC(instance, LIFECYCLE_INSTANCE_MAGIC);
  struct lifecycle_module *module = instance->module;
  enum lifecycle_state from = instance->state, to;
  if (!lifecycle_transition_lookup(from, event, &to)) {
    log_event(LOG_DEBUG, "lifecycle", "an event means nothing in this state", LOG_TEXT("module", module->id),
              LOG_TEXT("state", state_names[from]), LOG_TEXT("event", event_names[event]));
    return false;
  }
  if (str_is_empty(cause))
    cause = event_names[event];
  instance->state = to;
  if (to == LIFECYCLE_READY || event == LIFECYCLE_ON_REFUSED)
    core_rpc_timer_cancel(&module->process_timer);
  if (to == LIFECYCLE_READY)
    lifecycle_account_ready(module, instance->generation);
  if (cause != instance->reason)
    str_copy(instance->reason, sizeof(instance->reason), cause);
  history_append(instance, from, to, cause);
  log_event(to == LIFECYCLE_FAILED || to == LIFECYCLE_QUARANTINED ? LOG_WARN : LOG_INFO, "lifecycle", "transition",
            LOG_TEXT("module", module->id), LOG_INT("generation", instance->generation),
            LOG_TEXT("from", state_names[from]), LOG_TEXT("to", state_names[to]), LOG_TEXT("cause", cause));
  psg_module_transition_record(
      module->lifecycle->options.psg,
      &(struct psg_module_transition){
          .module_id = module->name,
          .protocol_family = instance->descriptor ? instance->descriptor->protocol_family : module->family,
          .module_version = instance->descriptor ? instance->descriptor->module_version : module->version,
          .generation = instance->generation,
          .from_state = state_names[from],
          .to_state = state_names[to],
          .cause = cause,
      });
  if (module->role == LIFECYCLE_CURRENT && (from == LIFECYCLE_DEGRADED || to == LIFECYCLE_DEGRADED))
    alert_tell(instance, to, cause);
  serving_tell(instance);
  return true;
}
