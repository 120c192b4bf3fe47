/* account.c: the deaths of a module that nobody ordered (LIF-7, LIF-8): each is kept with its cause and its last words,
 * counted, named as what it is (a bad version never became ready, an incident did), and judged: too many and the module
 * is quarantined. */
#include <stdio.h>
#include <string.h>

#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/alloc.h"
#include "sdk/base/clock.h"
#include "sdk/base/log.h"
#include "sdk/base/str.h"

void lifecycle_account_ready(struct lifecycle_module *module, uint64_t generation) {
  lifecycle_quarantine_ready(module);
  bool adopted = module->adopted_generation == generation; /* then the supervisor is yet to hear of it from this core */
  if (module->ready_generation == generation && !adopted)
    return;
  if (!adopted)
    module->ready_us = clock_monotonic_us();
  module->ready_generation = generation;
  module->adopted_generation = 0;
  lifecycle_deaths_ready(&module->deaths);
  if (module->lifecycle->control && module->supervised)
    lifecycle_control_module_ready(module->lifecycle->control, module->id, generation, module->edition.config);
}

void lifecycle_account_adopt(struct lifecycle_module *module, uint64_t generation, uint64_t ready_ms) {
  if (ready_ms == 0 || module->ready_generation == generation)
    return;
  module->ready_generation = module->adopted_generation = generation;
  module->ready_us = clock_monotonic_us() - (int64_t)ready_ms * 1000;
}

static void record(struct lifecycle_module *module, const struct lifecycle_death *death) {
  struct lifecycle_death *slot = &module->recent[module->recent_count++ % LIFECYCLE_DEATHS_SHOWN];
  for (size_t i = 0; i < slot->word_count; i++)
    base_free(slot->words[i]);
  *slot = *death;
  for (size_t i = 0; i < module->last_word_count; i++)
    slot->words[slot->word_count++] = base_strdup(module->last_words[i]);
}

void lifecycle_account_death(struct lifecycle_module *module, uint64_t generation, enum lifecycle_death_cause cause,
                             const char *detail, char text[static LIFECYCLE_REASON_BYTES]) {
  struct lifecycle_death death = {.at_ms = clock_wall_ms(),
                                  .generation = generation,
                                  .cause = cause,
                                  .was_ready = generation > 0 && module->ready_generation == generation};
  if (death.was_ready)
    death.ready_ms = (uint64_t)(clock_monotonic_us() - module->ready_us) / 1000;
  if (death.was_ready && cause == LIFECYCLE_DEATH_START) /* its start was good: it does not answer any more */
    death.cause = cause = LIFECYCLE_DEATH_PROBE;
  str_copy(death.detail, sizeof(death.detail), detail);
  record(module, &death);
  const char *kind = lifecycle_death_kind_name(death.was_ready);
  if (death.was_ready)
    snprintf(text, LIFECYCLE_REASON_BYTES, "%s after %.1f s ready: %.200s", kind, (double)death.ready_ms / 1000,
             detail);
  else
    snprintf(text, LIFECYCLE_REASON_BYTES, "%s, never ready: %.200s", kind, detail);
  const char *const labels[] = {module->name, lifecycle_death_cause_name(cause), kind, NULL};
  observe_count(module->lifecycle->options.observe, OBSERVE_MODULE_DEATHS, labels, 1);
  log_event(LOG_WARN, "lifecycle", "a module died", LOG_TEXT("module", module->id), LOG_INT("generation", generation),
            LOG_TEXT("kind", kind), LOG_TEXT("cause", lifecycle_death_cause_name(cause)), LOG_TEXT("detail", detail));
}

/* A version before this one, or a declared fallback path, is asked to take over before the module is held down (LIF-8,
 * LIF-10): this is the one place that every death passes when it was one too many. */
void lifecycle_account_judge(struct lifecycle_module *module, const char *text) {
  const struct lifecycle_intensity *limits = &module->config.intensity;
  const struct lifecycle_death *death = &module->recent[(module->recent_count - 1) % LIFECYCLE_DEATHS_SHOWN];
  int64_t now_ms = clock_monotonic_us() / 1000;
  char reason[LIFECYCLE_REASON_BYTES];
  if (module->versions->quarantine.on_trial && module->hold == LIFECYCLE_HOLD_NONE) {
    snprintf(reason, sizeof(reason), "failed again after its quarantine; last: %.180s", text);
    lifecycle_quarantine_begin(module, reason);
    return;
  }
  switch (lifecycle_deaths_add(&module->deaths, limits, death->cause, now_ms)) {
  case LIFECYCLE_VERDICT_GO_ON:
    return;
  case LIFECYCLE_VERDICT_TOO_OFTEN:
    snprintf(reason, sizeof(reason), "%u deaths in %u s; last: %.180s",
             lifecycle_deaths_recent(&module->deaths, limits->window_ms, now_ms), (limits->window_ms + 999) / 1000,
             text);
    break;
  case LIFECYCLE_VERDICT_TOO_LATE:
    snprintf(reason, sizeof(reason), "not ready in time, %u times in a row; last: %.180s", module->deaths.late_starts,
             text);
    break;
  }
  if (module->hold == LIFECYCLE_HOLD_NONE && !lifecycle_upgrade_fall_back(module, reason))
    lifecycle_quarantine_begin(module, reason);
}

void lifecycle_account_condemn(struct lifecycle_module *module, uint64_t generation, enum lifecycle_death_cause cause,
                               bool trace) {
  if (module->doomed_generation == generation)
    return; /* the first reason stands */
  module->doomed_generation = generation;
  module->doom = cause;
  if (!module->lifecycle->control || !module->pid || module->process_generation != generation)
    return;
  log_event(LOG_WARN, "lifecycle", "a module is killed", LOG_TEXT("module", module->id),
            LOG_INT("generation", generation), LOG_TEXT("cause", lifecycle_death_cause_name(cause)),
            LOG_TEXT("fault", module->fault));
  lifecycle_control_kill(module->lifecycle->control, module->id, generation, trace);
}
