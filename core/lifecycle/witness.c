/* witness.c: what the core itself sees of a module's work, for the verdict on a new version (LIF-9): how calls to it
 * and plans that it carried out ended, how long they took, and which are without an answer for long. A module that
 * counts wrong, or not at all, is judged by this. Counts always, since it costs next to nothing; whoever compares takes
 * differences. */
#include "core/lifecycle/lifecycle_internal.h"
#include "sdk/base/clock.h"

void lifecycle_witness_begin(struct lifecycle *lifecycle, const char *process_id, struct lifecycle_witness *witness) {
  *witness = (struct lifecycle_witness){.module = lifecycle_module_find(lifecycle, process_id),
                                        .began_us = clock_monotonic_us()};
  if (witness->module)
    TAILQ_INSERT_TAIL(&witness->module->witnesses, witness, entry);
}

void lifecycle_witness_end(struct lifecycle_witness *witness, enum lifecycle_outcome outcome) {
  struct lifecycle_module *module = witness->module;
  if (!module)
    return;
  TAILQ_REMOVE(&module->witnesses, witness, entry);
  witness->module = NULL;
  if (outcome == LIFECYCLE_OUTCOME_NONE)
    return;
  module->seen.requests++;
  module->seen.errors += outcome == LIFECYCLE_OUTCOME_FAILED;
  module->seen.latency[latency_bucket(clock_monotonic_us() - witness->began_us)]++;
}

uint64_t lifecycle_witness_stalled(const struct lifecycle_module *module) {
  int64_t before_us = clock_monotonic_us() - LIFECYCLE_STALL_US;
  const struct lifecycle_witness *witness;
  uint64_t count = 0;
  TAILQ_FOREACH(witness, &module->witnesses, entry) {
    if (witness->began_us > before_us)
      break;
    count++;
  }
  return count;
}
