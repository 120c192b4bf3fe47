/* probe.h: thresholds of a probe (LIF-4): answers are counted, and only so many in a row are news. Pure. */
#ifndef GATEHOUSE_CORE_LIFECYCLE_PROBE_H
#define GATEHOUSE_CORE_LIFECYCLE_PROBE_H

#include <stdbool.h>
#include <stdint.h>

struct lifecycle_probe_config {
  uint32_t interval_ms; /* between two questions; 0: the probe is off */
  uint32_t timeout_ms;  /* for an answer */
  uint32_t failures;    /* in a row make it failed; at least 1 */
  uint32_t successes;   /* in a row make it passed; at least 1 */
};

struct lifecycle_probe {
  uint32_t failures, successes; /* in a row; one of them is 0 */
};

enum lifecycle_probe_news { LIFECYCLE_PROBE_SAME, LIFECYCLE_PROBE_PASSED, LIFECYCLE_PROBE_FAILED };

/* Counts one answer. PASSED and FAILED are said at every answer from the threshold on. */
static inline enum lifecycle_probe_news lifecycle_probe_count(struct lifecycle_probe *probe,
                                                              const struct lifecycle_probe_config *config, bool good) {
  uint32_t *counted = good ? &probe->successes : &probe->failures;
  *(good ? &probe->failures : &probe->successes) = 0;
  if (*counted < UINT32_MAX)
    ++*counted;
  if (*counted < (good ? config->successes : config->failures))
    return LIFECYCLE_PROBE_SAME;
  return good ? LIFECYCLE_PROBE_PASSED : LIFECYCLE_PROBE_FAILED;
}

#endif
